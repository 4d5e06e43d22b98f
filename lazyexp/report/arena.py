"""The arena: three rules or more in one table by their time at equal accuracy, and their ranks over several races."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lazyexp.report.fronts import Estimate, estimate
from lazyexp.report.groups import CONTROL
from lazyexp.report.races import Race
from lazyexp.report.render import Block, Heading, Table, Text
from lazyexp.report.words import number, shown

RULES = 3  # from so many on it is an arena
MARGIN = 0.1  # percentage points below backprop's best, the accuracy at which times are compared
EXPLAINED = (
    f"Every rule by the time in which its fastest configuration reaches backprop's best accuracy less {MARGIN:g} "
    "points (without backprop: the accuracy that every rule reaches); rules that never do stand at the end, by their "
    "best. Forward, backward and M1 are medians of that configuration, or of the best one."
)


def equal_accuracy(race: Race) -> np.ndarray:
    """(resamples + 1,) the accuracy at which the rules of a race are compared."""
    if race.control:
        return race.below_control(MARGIN)
    return np.min([front.best_within() for front in race.fronts.values()], axis=0)


def arena_blocks(found: list[Race]) -> list[Block]:
    """The section, empty if no race has as many as three rules."""
    large = [race for race in found if len(race.rules) >= RULES]
    if not large:
        return []
    columns = ["race", "rule", "seconds", "speedup", "best test accuracy (%)", "forward", "backward", "energy M1"]
    rows = [row for race in large for row in standings(race)]
    return [Heading("Arena"), Text(EXPLAINED), Table(columns, rows), *_rank_blocks(large)]


def standings(race: Race) -> list[list[str]]:
    """The rows of one race, fastest first."""
    target, rows = equal_accuracy(race), []
    for rule, front in race.fronts.items():
        seconds = estimate(front.time_to(target), front.resampled)
        place = front.fastest(float(target[0]))
        one = race.best(rule) if place is None else race.rules[rule][place]
        ratio = race.speedup(rule, target) if race.control and rule != CONTROL else Estimate()
        best = race.best_accuracy(rule)
        told = "never" if place is None else shown(seconds)
        counts = [one.median(name) for name in ("forward_samples", "backward_samples", "energy_l1")]
        cells = [race.name, rule, told, shown(ratio) if ratio.value else "", shown(best, 100, 4)]
        cells += ["" if math.isnan(count) else number(count) for count in counts]
        rows.append((seconds.value, -best.value, cells))
    return [cells for *_, cells in sorted(rows, key=lambda row: row[:2])]


@dataclass
class Ranks:
    """Mean ranks (rules,), 1 the fastest; two that differ by more than `critical` differ at the 5 % level."""

    mean: np.ndarray
    critical: float
    p: float


def ranks(times: np.ndarray) -> Ranks:
    """From (races, rules) seconds, infinite where never reached: equal ones share their ranks.

    Friedman's test and Nemenyi's critical difference, as in Demšar 2006 (JMLR 7, sections 3.2.2 and 3.2.3).
    """
    races, rules = times.shape
    by_race = stats.rankdata(times, axis=1)
    critical = stats.studentized_range.ppf(0.95, rules, math.inf) / math.sqrt(2)
    critical *= math.sqrt(rules * (rules + 1) / (6 * races))
    same = (by_race == by_race[:, :1]).all()
    p = 1.0 if same else float(stats.friedmanchisquare(*by_race.T).pvalue)
    return Ranks(by_race.mean(axis=0), float(critical), p)


def _rank_blocks(found: list[Race]) -> list[Block]:
    common = [rule for rule in found[0].rules if all(rule in race.rules for race in found)]
    if len(found) < 2 or len(common) < RULES:
        return []
    times = np.array([[race.fronts[rule].time_to(equal_accuracy(race))[0] for rule in common] for race in found])
    result = ranks(times)
    order = np.argsort(result.mean, kind="stable")
    half = result.critical / 2
    rows = [
        [common[i], f"{result.mean[i]:.2f} [{max(1, result.mean[i] - half):.2f}, "
         f"{min(len(common), result.mean[i] + half):.2f}]", str(int(np.isinf(times[:, i]).sum()))]
        for i in order
    ]  # fmt: skip
    words = (
        f"Mean rank by that time over {len(found)} races ({', '.join(race.name for race in found)}), of the rules "
        f"that run in all. Two rules differ at the 5 % level if their ranks are more than {result.critical:.2f} "
        f"apart, that is if their intervals do not overlap (Nemenyi); Friedman's test: p = {result.p:.3g}."
    )
    return [Text(words), Table(["rule", "mean rank", "races never reached"], rows)]
