"""Comparisons at the end of a schedule: all configurations of all rules on one data set, model and machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.report import BASELINE
from lazyexp.report.formatting import relative, setting
from lazyexp.report.groups import collect, name_groups, rule_order, varying_keys
from lazyexp.report.intervals import Interval, interval, resampled_interval
from lazyexp.report.pareto import ParetoFront, Point, speedup
from lazyexp.report.read import MEASURES, Run

# Settings, besides all of the optimizer's, that distinguish a rule's configurations within one comparison.
SCHEDULE = ("epochs", "batch_size", "eval_every")
MARGINS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)  # percentage points below the baseline's best accuracy
LIMITS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # seconds
TIME_COLUMNS = ["comparison", "target", "accuracy", "rule", "n_runs", "seconds", "seconds_low", "seconds_high"]
TIME_COLUMNS += ["control_seconds", "speedup", "speedup_low", "speedup_high", "missed", "behind", "behind_low"]
TIME_COLUMNS += ["behind_high", "configuration", *MEASURES[1:]]


@dataclass(eq=False)
class Configuration:
    """Runs that differ in the seed alone. `name`: the settings that differ between a rule's configurations."""

    name: str
    runs: list[Run]

    def point(self) -> Point:
        # A diverged run counts as accuracy 0: left out, it would raise the median.
        ends = [0.0 if run.status == "diverged" else np.nan_to_num(run.final("test_accuracy")) for run in self.runs]
        return Point(np.array([run.final("train_seconds") for run in self.runs]), np.array(ends))

    def median(self, column: str) -> float:
        """The median final value of a column."""
        return interval(run.final(column) for run in self.runs).median


@dataclass(eq=False)
class Comparison:
    """The configurations of every rule, and the rule's Pareto front over them, in the same order."""

    name: str
    data: str
    settings: dict[str, Any]
    rules: dict[str, list[Configuration]]
    fronts: dict[str, ParetoFront]
    baseline: str = BASELINE

    @property
    def baseline_front(self) -> ParetoFront | None:
        return self.fronts.get(self.baseline)

    @property
    def runs(self) -> list[Run]:
        return [run for some in self.rules.values() for configuration in some for run in configuration.runs]

    @property
    def scheduled(self) -> bool:
        """Whether any rule was run at several schedules, so that its best one can be chosen."""
        return any(len(some) > 1 for some in self.rules.values())

    def competitors(self) -> list[str]:
        """All rules except the baseline."""
        return [rule for rule in self.rules if rule != self.baseline]

    def best(self, rule: str) -> Configuration:
        """The configuration with the best median accuracy."""
        return self.rules[rule][self.fronts[rule].best()]

    def best_accuracy(self, rule: str) -> Interval:
        front = self.fronts[rule]
        return resampled_interval(front.best_within(), front.resampled)

    def behind(self, rule: str) -> Interval:
        """Percentage points by which the rule's best configuration ends below the baseline's, paired by seed."""
        ends = [
            {run.seed: accuracy for run, accuracy in zip(best.runs, best.point().accuracy, strict=True)}
            for best in (self.best(self.baseline), self.best(rule))
        ]
        return interval(100 * (ends[0][seed] - ends[1][seed]) for seed in ends[0] if seed in ends[1])

    def speedup(self, rule: str, target: float | np.ndarray) -> Interval:
        front, baseline = self.fronts[rule], self.fronts[self.baseline]
        return resampled_interval(speedup(front, baseline, target), front.resampled or baseline.resampled)

    def below_baseline(self, points: float) -> np.ndarray:
        """(1 + RESAMPLES,) the baseline's best accuracy minus so many percentage points."""
        accuracy: np.ndarray = self.fronts[self.baseline].best_within() - points / 100
        return accuracy

    def targets(self) -> dict[str, float | np.ndarray]:
        """The runs' own targets, then those relative to the baseline's best accuracy."""
        fixed = sorted({target for run in self.runs for target in run.targets})
        targets: dict[str, float | np.ndarray] = {f"{target:g}": target for target in fixed}
        if self.baseline_front:
            targets |= {relative(self.baseline, margin): self.below_baseline(margin) for margin in MARGINS}
        return targets


def comparisons(runs: list[Run], baseline: str = BASELINE) -> list[Comparison]:
    """The comparisons among runs that trained to their end; runs that `stop_at` ended are left out."""
    ended = [run for run in runs if run.status in ("finished", "diverged")]
    schedule = (*SCHEDULE, *{key for run in ended for key in run.settings if key.startswith("optimizer.")})
    groups = name_groups(collect(ended, "end of schedule", {run: run.rule for run in ended}, schedule, baseline))
    keys = [key for key in varying_keys([group.settings for group in groups]) if key != "dataset.name"]
    compared = []
    for group in groups:
        rules = {rule: configurations(group.rules[rule]) for rule in rule_order(group.rules, baseline)}
        fronts = {
            rule: ParetoFront([one.point() for one in some], seed) for seed, (rule, some) in enumerate(rules.items())
        }
        data = str(group.settings["dataset.name"])
        name = ", ".join([data, *(setting(key, group.settings.get(key)) for key in keys)])
        compared.append(Comparison(name, data, group.settings, rules, fronts, baseline))
    return compared


def configurations(runs: list[Run]) -> list[Configuration]:
    """One rule's runs, grouped by all settings except the seed."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((*run.settings.items(), run.options), []).append(run)
    settings = [_short_settings(some[0]) for some in groups.values()]
    differ = [key for key in settings[0] if len({str(one.get(key)) for one in settings}) > 1] if settings else []
    names = [", ".join(setting(key, one[key]) for key in differ if key in one) for one in settings]
    return [Configuration(name, some) for name, some in zip(names, groups.values(), strict=True)]


def _short_settings(run: Run) -> dict[str, Any]:
    """Settings and options of the rule; the optimizer's without their prefix."""
    options = json.loads(run.options)
    named = {
        "optimizer" if key == "optimizer.name" else key.removeprefix("optimizer."): value
        for key, value in run.settings.items()
    }
    return {key: value for key, value in {**named, **options}.items() if key != "eval_every"}


def time_table(compared: list[Comparison]) -> pd.DataFrame:
    """pareto.csv: for every comparison, target and rule the time along its Pareto front, and the speedup.

    `missed`: the share of resamples of the seeds in which the rule does not reach the target. `behind`: percentage
    points by which its best configuration ends below the baseline's best, paired by seed.
    """
    rows = []
    for comparison in compared:
        behind = {rule: comparison.behind(rule) for rule in comparison.competitors() if comparison.baseline_front}
        for target, accuracy in comparison.targets().items():
            wanted = float(np.ravel(accuracy)[0])
            for rule, front in comparison.fronts.items():
                row: dict[str, Any] = {"comparison": comparison.name, "target": target, "accuracy": wanted}
                row |= {"rule": rule, "missed": front.missed(accuracy)}
                row |= _columns("seconds", resampled_interval(front.time_to(accuracy), front.resampled))
                fastest = front.fastest(wanted)
                if fastest is not None:
                    one = comparison.rules[rule][fastest]
                    row |= {"configuration": one.name, **{name: one.median(name) for name in MEASURES[1:]}}
                row["n_runs"] = len((comparison.best(rule) if fastest is None else one).runs)
                if comparison.baseline_front:
                    row["control_seconds"] = float(comparison.baseline_front.time_to(accuracy)[0])
                if rule in behind:
                    row |= _columns("speedup", comparison.speedup(rule, accuracy))
                    row |= _columns("behind", behind[rule])
                rows.append(row)
    return pd.DataFrame(rows, columns=TIME_COLUMNS)


def limits_of(comparison: Comparison) -> list[float]:
    """The time limits that distinguish configurations of a comparison."""
    seconds = [float(value) for front in comparison.fronts.values() for value in front.seconds[0]]
    last = next((limit for limit in LIMITS if limit >= max(seconds)), LIMITS[-1])
    return [limit for limit in LIMITS if min(seconds) <= limit <= last] or [last]


def within_table(compared: list[Comparison]) -> pd.DataFrame:
    """within.csv: the best median accuracy of every rule in at most so many seconds."""
    rows = []
    for comparison in compared:
        for rule, front in comparison.fronts.items():
            for limit in limits_of(comparison):
                best = resampled_interval(front.best_within(limit), front.resampled)
                rows.append(
                    {"comparison": comparison.name, "rule": rule, "limit": limit} | _columns("accuracy", best)
                )
    return pd.DataFrame(rows)


def _columns(name: str, stat: Interval) -> dict[str, float]:
    return {name: stat.median, f"{name}_low": stat.low, f"{name}_high": stat.high}
