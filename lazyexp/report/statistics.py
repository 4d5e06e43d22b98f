"""Medians, intervals and speedups, with misses kept as misses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import stats

from lazyexp.report.fronts import RESAMPLES, TOLERANCE
from lazyexp.report.groups import CONTROL, Group
from lazyexp.report.read import MEASURES, Run

MARGINS = (0.1, 0.2, 0.5)  # percentage points below what backprop ends with


@dataclass
class Interval:
    """Median, interquartile mean, and the 95 % percentile bootstrap interval of the median; NaN where undefined."""

    n: int
    median: float = math.nan
    iqm: float = math.nan
    low: float = math.nan
    high: float = math.nan


def interval(values: Any) -> Interval:
    """Statistics over runs. NaN is left out, infinity is a value like any other; one value has no interval."""
    known = np.asarray(values, dtype=float)
    known = np.sort(known[~np.isnan(known)])
    n = len(known)
    if not n:
        return Interval(0)
    low, high = _ends(_mean(*(known[places] for places in _middles(n)))) if n > 1 else (math.nan, math.nan)
    middle = float(_mean(known[(n - 1) // 2], known[n // 2]))
    return Interval(n, middle, float(stats.trim_mean(known, 0.25)), low, high)


@cache
def _middles(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(RESAMPLES,) each: where, among n sorted values, the two middle ones (or the one, twice) of every draw are.

    The draws are the same for all samples of n, and one look at them is all that a bootstrap of the median needs.
    """
    draws = np.sort(np.random.default_rng(0).integers(n, size=(RESAMPLES, n)), axis=1)
    return draws[:, (n - 1) // 2], draws[:, n // 2]


def _mean(low: Any, high: Any) -> Any:
    """The middle of two values; infinity stays infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(low == high, low, (low + high) / 2)


def _ends(medians: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval: order statistics, no interpolation, so infinity minus infinity never arises."""
    low, high = np.percentile(medians[~np.isnan(medians)], [2.5, 97.5], method="inverted_cdf")
    return float(low), float(high)


def crossing(run: Run, target: float) -> int | None:
    """The first evaluation with a test accuracy of at least `target` (0 to 1), None if there is none."""
    reached = np.flatnonzero(run.columns["test_accuracy"] >= target - TOLERANCE)
    return int(reached[0]) if len(reached) else None


@dataclass
class Speedup:
    """One row of speedup.csv: control / rule, so that 2 means half the cost. Counts are over pairs of runs."""

    rule: str
    rule_options: str = "{}"
    target: str = ""
    measure: str = ""
    n_pairs: int = 0
    n_rule_missed: int = 0
    n_control_missed: int = 0
    n_undecided: int = 0
    n_unpaired: int = 0
    paired: bool | None = None
    median: float = math.nan
    iqm: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    protocol: str = "matched"
    rule_choice: str = ""
    control_choice: str = ""
    note: str = ""
    rule_label: str = ""


@dataclass
class Pair:
    """What one pair gives at one target. `ratio` is NaN if there is none (both missed)."""

    ratio: float = math.nan
    rule_missed: bool = False
    control_missed: bool = False
    undecided: bool = False


def compare(rule: Run, control: Run, target: float | str, measure: str) -> Pair | None:
    """control / rule at the first crossing of a target; None if the measure was not measured.

    Only a run that ended misses: one still going on, cut off, or stopped by stop_at leaves the pair undecided.
    """
    if isinstance(target, str):
        if not control.complete:
            return Pair(undecided=True)
        end = control.final("test_accuracy")
        if control.status == "diverged" or math.isnan(end):
            # It ends with no accuracy that could be asked of the rule.
            return Pair(control_missed=True, rule_missed=rule.status == "diverged")
        target = end - float(target.removeprefix(f"{CONTROL}-")) / 100
    cost = []
    for run in (rule, control):
        place = crossing(run, target)
        value = math.inf if place is None else float(run.columns[measure][place])
        if math.isnan(value):
            return None
        cost.append(value)
    missed = [math.isinf(value) for value in cost]
    ended = [run.status in ("finished", "diverged") for run in (rule, control)]
    if any(miss and not end for miss, end in zip(missed, ended, strict=True)):
        return Pair(undecided=True)
    if all(missed):
        return Pair(math.nan, True, True)
    if cost[0] == cost[1]:
        return Pair(1.0)
    ratio = math.inf if cost[0] == 0 else 0.0 if missed[0] else cost[1] / cost[0]
    return Pair(ratio, *missed)


def speedups(group: Group) -> list[Speedup]:
    """All rows of a group: every rule against backprop, at every target, for every measure."""
    rows = []
    for rule, runs in group.rules.items():
        if rule == CONTROL:
            continue
        same: dict[str, Any] = {
            "protocol": group.protocol,
            "rule_label": rule,
            "rule_choice": group.choice.get(rule, ""),
        }
        same["rule_options"] = runs[0].options
        if not group.controls:
            rows.append(Speedup(runs[0].rule, **same, note="no control"))
            continue
        same["control_choice"] = group.choice.get(CONTROL, "")
        targets: list[float | str] = [*group.targets, *(f"{CONTROL}-{margin:g}" for margin in MARGINS)]
        for target in targets:
            for measure in MEASURES:
                row = _speedup(runs, group.controls, target, measure)
                if row:
                    rows.append(Speedup(runs[0].rule, **row, **same))
    return rows


def _speedup(rules: list[Run], controls: list[Run], target: float | str, measure: str) -> dict[str, Any] | None:
    """The statistics of one row; None if the measure was measured in no pair."""
    partner = {control.seed: control for control in controls}
    paired = any(run.seed in partner for run in rules)
    if paired:
        table = [[compare(run, partner[run.seed], target, measure)] for run in rules if run.seed in partner]
    else:
        table = [[compare(run, control, target, measure) for control in controls] for run in rules]
    pairs = [pair for row in table for pair in row if pair]
    if not pairs:
        return None
    ratios = np.array([[pair.ratio if pair else math.nan for pair in row] for row in table])
    stat = interval(ratios[:, 0]) if paired else _all_pairs(ratios)
    return {
        "target": target if isinstance(target, str) else f"{target:g}",
        "measure": measure,
        "n_pairs": len(pairs) - sum(pair.undecided for pair in pairs),
        "n_rule_missed": sum(pair.rule_missed for pair in pairs),
        "n_control_missed": sum(pair.control_missed for pair in pairs),
        "n_undecided": sum(pair.undecided for pair in pairs),
        "n_unpaired": sum(run.seed not in partner for run in rules),
        "paired": paired,
        **{"median": stat.median, "iqm": stat.iqm, "ci_low": stat.low, "ci_high": stat.high},
    }


def _all_pairs(ratios: np.ndarray) -> Interval:
    """Runs without a common seed: every rule run against every control, the runs resampled, not the pairs."""
    known = interval(ratios.ravel())
    rules, controls = ratios.shape
    if known.n and min(ratios.shape) > 1:
        draws = np.random.default_rng(0)
        medians = []
        for _ in range(RESAMPLES):
            drawn = ratios[np.ix_(draws.integers(rules, size=rules), draws.integers(controls, size=controls))].ravel()
            drawn = np.sort(drawn[~np.isnan(drawn)])
            if n := len(drawn):
                medians.append(_mean(drawn[(n - 1) // 2], drawn[n // 2]))
        known.low, known.high = _ends(np.array(medians))
    else:
        known.low = known.high = math.nan
    return known
