"""The main result of every comparison: accuracy, times to targets and speedup of every rule.

Two kinds of time are distinguished. *Along the curve*: the first evaluation that reaches a target, at identical
settings, paired by seed. *At the end of a schedule*: the training time of the fastest configuration that ends at the
target. The second is used where rules were run at several schedules, because that is what such a sweep is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.report.comparisons import MARGINS as ALL_MARGINS
from lazyexp.report.comparisons import Comparison
from lazyexp.report.formatting import relative
from lazyexp.report.groups import Group
from lazyexp.report.intervals import Interval, interval, median
from lazyexp.report.prediction import share_of_mistakes
from lazyexp.report.read import Run
from lazyexp.report.speedups import MARGINS, seconds_to

CURVE, SCHEDULE = "along the curve", "at the end of a schedule"
# A target counts as reached if at most this share of the pairs of runs, or of the resamples, misses it.
MAX_MISSED = 0.05


@dataclass
class Outcome:
    """One rule in one comparison. `seconds`: median training seconds to each target, infinite where it is missed."""

    rule: str
    accuracy: Interval
    total_seconds: float
    selected: float
    seconds: dict[str, float]
    speedups: dict[str, Interval] = field(default_factory=dict)
    missed: dict[str, float] = field(default_factory=dict)  # share of pairs or resamples
    pairs: int = 0
    mistakes: float = math.nan  # share of the presented samples that were misclassified

    def reaches(self, target: str) -> bool:
        return self.missed.get(target, 1.0) <= MAX_MISSED


@dataclass
class Headline:
    """The outcomes of one comparison, baseline first. `accuracies`: the test accuracy (0 to 1) of each target."""

    name: str
    kind: str
    baseline: str
    settings: dict[str, Any]
    outcomes: list[Outcome]
    accuracies: dict[str, float]
    source: Group | Comparison
    target: str = ""  # at which rules are compared, empty without a baseline
    cost_ratio: float | None = None  # of a backward pass and its step to a forward pass, if stated

    @property
    def competitors(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.rule != self.baseline]

    @property
    def has_baseline(self) -> bool:
        return any(one.rule == self.baseline for one in self.outcomes)

    def by_time(self) -> list[Outcome]:
        """The outcomes by their time to the target, then by accuracy."""
        return sorted(
            self.outcomes,
            key=lambda one: (one.seconds.get(self.target, math.inf), -np.nan_to_num(one.accuracy.median)),
        )


def headlines(
    groups: list[Group], compared: list[Comparison], speedups: pd.DataFrame, cost_ratio: float | None = None
) -> list[Headline]:
    """The headline of every comparison: `groups` are the matched ones, `speedups` the table of speedup.csv."""
    scheduled = [comparison for comparison in compared if _has_schedules(comparison, groups)]
    covered = {run for comparison in scheduled for run in comparison.runs}
    rows: dict[str, dict[str, list[dict[Any, Any]]]] = {}
    seconds = speedups[(speedups["measure"] == "train_seconds") & (speedups["protocol"] == "matched")]
    for row in seconds.to_dict("records"):
        rows.setdefault(row["group"], {}).setdefault(row["rule_label"], []).append(row)
    found = [_of_schedules(comparison) for comparison in scheduled]
    found += [
        _along_curve(group, rows.get(group.label, {}))
        for group in groups
        if not all(run in covered for run in group.runs)
    ]
    for kind, margins in ((CURVE, MARGINS), (SCHEDULE, ALL_MARGINS)):
        same = [one for one in found if one.kind == kind and one.has_baseline]
        margin = _margin(same, margins)
        for one in same:
            one.target = relative(one.baseline, margin)
    for one in found:
        one.cost_ratio = cost_ratio
    return found


def _has_schedules(comparison: Comparison, groups: list[Group]) -> bool:
    """Whether a rule has several schedules, or rules were run at different ones so that no group has them all."""
    if any(len({tuple(one.runs[0].settings.items()) for one in some}) > 1 for some in comparison.rules.values()):
        return True
    runs = set(comparison.runs)
    return len(comparison.rules) > 1 and not any(runs <= set(group.runs) for group in groups)


def _margin(found: list[Headline], margins: tuple[float, ...]) -> float:
    """The smallest margin below the baseline that most rules reach: one for all comparisons of a kind."""
    for margin in margins:
        reached = [rule.reaches(relative(one.baseline, margin)) for one in found for rule in one.competitors]
        if reached and 2 * sum(reached) >= len(reached):
            return margin
    return margins[-1]


def _along_curve(group: Group, rows: dict[str, list[dict[Any, Any]]]) -> Headline:
    finals = {run.seed: run.final("test_accuracy") for run in group.baselines if run.complete}
    middle = float(np.median(list(finals.values()))) if finals else math.nan
    accuracies = {f"{target:g}": target for target in group.targets}
    if finals:
        accuracies |= {relative(group.baseline, margin): middle - margin / 100 for margin in MARGINS}
    outcomes = []
    for rule, runs in group.rules.items():
        ended = [run for run in runs if run.complete] or runs
        seconds = {f"{target:g}": _median(seconds_to(run, target) for run in runs) for target in group.targets}
        for margin in MARGINS if finals else ():
            # A seed without a baseline run of its own is compared with the median baseline.
            times = (seconds_to(run, finals.get(run.seed, middle) - margin / 100) for run in runs)
            seconds[relative(group.baseline, margin)] = _median(times)
        outcome = Outcome(
            rule,
            interval(run.final("test_accuracy") for run in ended),
            _median(run.final("train_seconds") for run in ended),
            _selected(ended),
            seconds,
            mistakes=_median(share_of_mistakes(run) for run in ended),
        )
        for row in rows.get(rule, []):
            if row["n_pairs"]:
                target = row["target"]
                outcome.speedups[target] = Interval(row["median"], row["ci_low"], row["ci_high"], row["n_pairs"])
                outcome.missed[target] = row["n_rule_missed"] / row["n_pairs"]
                outcome.pairs = max(outcome.pairs, row["n_pairs"])
        outcomes.append(outcome)
    return Headline(group.label, CURVE, group.baseline, group.settings, outcomes, accuracies, group)


def _of_schedules(comparison: Comparison) -> Headline:
    targets = comparison.targets()
    accuracies = {name: float(np.ravel(accuracy)[0]) for name, accuracy in targets.items()}
    outcomes = []
    for rule, front in comparison.fronts.items():
        best = comparison.best(rule)
        outcome = Outcome(
            rule,
            comparison.best_accuracy(rule),
            best.median("train_seconds"),
            _selected(best.runs),
            {name: float(front.time_to(accuracy)[0]) for name, accuracy in targets.items()},
            pairs=len(best.runs),
            mistakes=_median(share_of_mistakes(run) for run in best.runs),
        )
        if comparison.baseline_front and rule != comparison.baseline:
            outcome.speedups = {name: comparison.speedup(rule, accuracy) for name, accuracy in targets.items()}
            outcome.missed = {name: front.missed(accuracy) for name, accuracy in targets.items()}
        outcomes.append(outcome)
    name = comparison.name
    return Headline(name, SCHEDULE, comparison.baseline, comparison.settings, outcomes, accuracies, comparison)


def _median(values: Iterable[float]) -> float:
    """NaN (not measured, or undecided) is left out; infinity is kept."""
    known = np.array(sorted(value for value in values if not math.isnan(value)))
    return median(known)


def _selected(runs: list[Run]) -> float:
    """The median share of the presented samples that updated the weights."""
    return interval(run.final("backward_samples") / run.final("samples_seen") for run in runs).median
