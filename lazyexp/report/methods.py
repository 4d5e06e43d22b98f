"""The method comparison: three or more rules by their time to equal accuracy, and their ranks over comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lazyexp.report.blocks import Block, Table, Text
from lazyexp.report.comparisons import Comparison
from lazyexp.report.formatting import DASH, number, with_interval
from lazyexp.report.intervals import Interval, resampled_interval

RULES = 3  # fewer rules are no method comparison
MARGIN = 0.1  # percentage points below the baseline's best, the accuracy at which times are compared
EXPLAINED = (
    "Every rule by the training time in which its fastest configuration reaches the baseline's best accuracy minus "
    f"{MARGIN:g} percentage points (without a baseline: the accuracy that every rule reaches). Rules that never "
    "reach it follow, by their best accuracy. Forward and backward samples and M1 are medians of that configuration, "
    "or of the most accurate one."
)


def equal_accuracy(comparison: Comparison) -> np.ndarray:
    """(1 + RESAMPLES,) the accuracy at which the rules of a comparison are ranked."""
    if comparison.baseline_front:
        return comparison.below_baseline(MARGIN)
    accuracy: np.ndarray = np.min([front.best_within() for front in comparison.fronts.values()], axis=0)
    return accuracy


def method_blocks(compared: list[Comparison]) -> list[Block]:
    """The section, empty if no comparison has three rules."""
    large = [comparison for comparison in compared if len(comparison.rules) >= RULES]
    if not large:
        return []
    columns = ["comparison", "rule", "seconds", "speedup", "best test accuracy (%)", "forward samples"]
    columns += ["backward samples", "energy M1"]
    rows = [row for comparison in large for row in standings(comparison)]
    return [Text(EXPLAINED), Table(columns, rows), *_rank_blocks(large)]


def standings(comparison: Comparison) -> list[list[str]]:
    """The rows of one comparison, fastest first."""
    target, rows = equal_accuracy(comparison), []
    for rule, front in comparison.fronts.items():
        seconds = resampled_interval(front.time_to(target), front.resampled)
        fastest = front.fastest(float(target[0]))
        one = comparison.best(rule) if fastest is None else comparison.rules[rule][fastest]
        compare = comparison.baseline_front and rule != comparison.baseline
        ratio = comparison.speedup(rule, target) if compare else Interval()
        best = comparison.best_accuracy(rule)
        counts = [one.median(name) for name in ("forward_samples", "backward_samples", "energy_l1")]
        cells = [comparison.name, rule, DASH if fastest is None else with_interval(seconds)]
        cells += [with_interval(ratio) if ratio.median else DASH, with_interval(best, 100, 4)]
        cells += ["" if math.isnan(value) else number(value) for value in counts]
        rows.append((seconds.median, -best.median, cells))
    return [cells for *_, cells in sorted(rows, key=lambda row: row[:2])]


@dataclass
class Ranks:
    """Mean ranks (rules,), 1 the fastest; two that differ by more than `critical` differ at the 5 % level."""

    mean: np.ndarray
    critical: float
    p: float


def ranks(times: np.ndarray) -> Ranks:
    """Rank rules by (comparisons, rules) seconds, infinite where never reached; equal times share their ranks.

    Friedman's test and Nemenyi's critical difference, as in Demšar 2006 (JMLR 7, sections 3.2.2 and 3.2.3).
    """
    from scipy import stats  # imported late: needed for this alone

    n, rules = times.shape
    ranked = stats.rankdata(times, axis=1)
    critical = stats.studentized_range.ppf(0.95, rules, math.inf) / math.sqrt(2)
    critical *= math.sqrt(rules * (rules + 1) / (6 * n))
    same = (ranked == ranked[:, :1]).all()
    p = 1.0 if same else float(stats.friedmanchisquare(*ranked.T).pvalue)
    return Ranks(ranked.mean(axis=0), float(critical), p)


def _rank_blocks(compared: list[Comparison]) -> list[Block]:
    common = [rule for rule in compared[0].rules if all(rule in one.rules for one in compared)]
    if len(compared) < 2 or len(common) < RULES:
        return []
    times = np.array([[one.fronts[rule].time_to(equal_accuracy(one))[0] for rule in common] for one in compared])
    result = ranks(times)
    if result.critical > (len(common) - 1) / 2:
        text = (
            f"No ranks over {len(compared)} comparisons: to differ at the 5 % level, two of {len(common)} rules must "
            f"be {result.critical:.1f} ranks apart, and at most {len(common) - 1} are possible."
        )
        return [Text(text)]
    order = np.argsort(result.mean, kind="stable")
    half = result.critical / 2
    rows = [
        [common[i], f"{result.mean[i]:.2f} [{max(1, result.mean[i] - half):.2f}, "
         f"{min(len(common), result.mean[i] + half):.2f}]", str(int(np.isinf(times[:, i]).sum()))]
        for i in order
    ]  # fmt: skip
    text = (
        f"Mean rank by that time over {len(compared)} comparisons ({'; '.join(one.name for one in compared)}), of "
        "the rules that run in all of them. Two rules differ at the 5 % level if their ranks are more than "
        f"{result.critical:.2f} apart, that is if their intervals do not overlap (Nemenyi). "
        f"Friedman's test: p = {result.p:.3g}."
    )
    return [Text(text), Table(["rule", "mean rank", "comparisons never reached"], rows)]
