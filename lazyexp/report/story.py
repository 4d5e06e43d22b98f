"""What the races say, in words: a sentence for every rule, and tables along the fronts."""

from __future__ import annotations

import math

import pandas as pd

from lazyexp.report.fronts import Estimate, estimate
from lazyexp.report.groups import CONTROL
from lazyexp.report.races import LIMITS, Race
from lazyexp.report.render import Block, Heading, Table, Text
from lazyexp.report.statistics import Interval
from lazyexp.report.words import number, shown

# How far below backprop's best a rule may end and still be said to be faster, in percentage points.
NEAR = (0.05, 0.1, 0.2, 0.5, 1.0)
# A target is reached if it is missed in at most this share of the resamples: a median on the line is luck.
SELDOM = 0.05
EXPLAINED = (
    "Every configuration (all settings but the seed) is one point: the median seconds and the median final test "
    "accuracy of its runs. The time to an accuracy is that of the rule's fastest configuration whose median reaches "
    "it, so its schedule was made for that time; nothing is read off the middle of a longer run. Speedup is "
    "backprop's time over the rule's, each by its own fastest configuration. In brackets: 95 % bootstrap interval, "
    "seeds drawn again within each configuration; inf and 0 in it are draws in which one of the two misses."
)


def sentences(race: Race) -> list[str]:
    """One sentence for every rule but the control: how much faster, how much less accurate."""
    if not race.control:
        return [f"{race.name}: no finished backprop run to compare with."]
    best = race.best(CONTROL)
    control = f"{CONTROL} ends at {shown(race.best_accuracy(CONTROL), 100, 4)} % at best"
    told = [
        f"{race.name}: {control}, in {number(race.control.seconds[0][race.control.best()])} s ({_runs(best.runs)})."
    ]
    return told + [f"`{rule}` {_rule(race, rule)}" for rule in race.rivals()]


def _rule(race: Race, rule: str) -> str:
    front, behind = race.fronts[rule], race.behind(rule)
    closer = ""
    for margin in NEAR:
        target = race.below_control(margin)
        seconds, missed = float(front.time_to(target)[0]), front.missed(target)
        if missed <= SELDOM:
            slow = float(race.fronts[CONTROL].time_to(target)[0])
            faster = f"is {_faster(race.speedup(rule, target))} to backprop's best accuracy less {margin:g} points"
            times = f"({closer}{number(seconds)} s against {number(slow)} s)"
            return f"{faster} {times}, and at its own best ends {_behind(behind)}."
        never = "never reaches" if missed == 1 else f"misses in {missed:.0%} of the resamples"
        closer = f"less {margin:g} it {never}; "
    accuracy = shown(race.best_accuracy(rule), 100, 4)
    seconds = float(front.seconds[0][front.best()])
    return (
        f"{'never comes' if missed == 1 else 'does not surely come'} within {NEAR[-1]:g} point of backprop's best "
        f"accuracy: at its own best ({accuracy} %, {number(seconds)} s) it ends {_behind(behind)}."
    )


def _faster(ratio: Estimate) -> str:
    if ratio.value >= 1:
        return f"{shown(ratio)} times faster"
    with_inverse = [math.inf if value == 0 else 1 / value for value in (ratio.value, ratio.high, ratio.low)]
    return f"{shown(Estimate(*with_inverse))} times slower"


def _behind(behind: Interval) -> str:
    if not behind.n:
        return "at an accuracy that cannot be paired by seed"
    sign = -1 if behind.median < 0 else 1
    ends = sorted((sign * behind.low, sign * behind.high))
    size = shown(Estimate(sign * behind.median, *ends), 1, 2)
    return f"{size} points {'higher' if sign < 0 else 'lower'} ({behind.n} pairs of one seed)"


def _runs(runs: list) -> str:
    return f"{len(runs)} run{'s' * (len(runs) > 1)}"


def front_blocks(found: list[Race], times: pd.DataFrame) -> list[Block]:
    """The tables along the fronts, of all races in which something was compared."""
    return [
        Heading("Along the fronts"),
        Text(EXPLAINED),
        time_block(times),
        Text("Best median test accuracy (%) within so many seconds of training:"),
        within_block(found),
    ]


def time_block(times: pd.DataFrame) -> Table:
    columns = ["race", "target", "rule", "seconds", "speedup", "by", "runs"]
    rows = []
    for _, row in times.iterrows():
        ratio = Estimate(row["speedup"], row["speedup_low"], row["speedup_high"])
        seconds = Estimate(row["seconds"], row["seconds_low"], row["seconds_high"])
        target = f"{100 * row['accuracy']:.4g} %" + (f" ({row['target']})" if CONTROL in row["target"] else "")
        words = "never gets there" if math.isinf(seconds.value) else shown(seconds)
        told = "" if math.isnan(ratio.value) else shown(ratio)
        if math.isinf(ratio.value):
            told = f"{CONTROL} never gets there"
        elif ratio.value == 0:
            told = f"only {CONTROL} gets there"
        by = row["configuration"] if isinstance(row["configuration"], str) else ""
        rows.append([row["race"], target, row["rule"], words, told, by, str(row["n_runs"])])
    return Table(columns, rows)


def within_block(found: list[Race]) -> Table:
    rows = []
    for race in found:
        for rule, front in race.fronts.items():
            best = [estimate(front.best_within(limit), front.resampled) for limit in LIMITS]
            rows.append([race.name, rule, *(shown(one, 100, 4) for one in best)])
    return Table(["race", "rule", *(f"{limit} s" for limit in LIMITS)], rows)
