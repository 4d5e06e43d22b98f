"""Races: the rules on one data set, with one model, on one machine, each with all settings it was tried at."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.report.fronts import Estimate, Front, Point, estimate, speedup
from lazyexp.report.groups import CONTROL, collect, name_groups, rule_order, telling
from lazyexp.report.read import MEASURES, Run
from lazyexp.report.statistics import Interval, interval

# Settings that make other points of a rule's front, and no other race; with them, all of the optimizer's.
SCHEDULE = ("epochs", "batch_size", "eval_every")
BELOW = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)  # percentage points below backprop's best
LIMITS = (2, 4, 8, 16, 32, 64)  # seconds
TIMES = ["race", "target", "accuracy", "rule", "n_runs", "seconds", "seconds_low", "seconds_high", "control_seconds"]
TIMES += ["speedup", "speedup_low", "speedup_high", "missed", "behind", "behind_low", "behind_high"]
TIMES += ["configuration", *MEASURES[1:]]


@dataclass(eq=False)
class Configuration:
    """Runs that differ in the seed alone; `name` has the settings that the rule's other configurations have not."""

    name: str
    runs: list[Run]

    def point(self) -> Point:
        # A diverged run has no final accuracy worth the name, and must not vanish from the median.
        ends = [0.0 if run.status == "diverged" else np.nan_to_num(run.final("test_accuracy")) for run in self.runs]
        return Point(np.array([run.final("train_seconds") for run in self.runs]), np.array(ends))

    def median(self, column: str) -> float:
        return interval([run.final(column) for run in self.runs]).median


@dataclass(eq=False)
class Race:
    """All that competes: per rule its configurations, and its front over them, in the same order."""

    name: str
    data: str
    rules: dict[str, list[Configuration]]
    fronts: dict[str, Front]

    @property
    def control(self) -> Front | None:
        return self.fronts.get(CONTROL)

    def rivals(self) -> list[str]:
        return [rule for rule in self.rules if rule != CONTROL]

    def best(self, rule: str) -> Configuration:
        return self.rules[rule][self.fronts[rule].best()]

    def best_accuracy(self, rule: str) -> Estimate:
        front = self.fronts[rule]
        return estimate(front.best_within(), front.resampled)

    def behind(self, rule: str) -> Interval:
        """Percentage points by which the rule's best configuration ends below backprop's, paired by seed."""
        ends = [
            {run.seed: accuracy for run, accuracy in zip(best.runs, best.point().accuracy, strict=True)}
            for best in (self.best(CONTROL), self.best(rule))
        ]
        return interval([100 * (ends[0][seed] - ends[1][seed]) for seed in ends[0] if seed in ends[1]])

    def speedup(self, rule: str, target: float | np.ndarray) -> Estimate:
        front, control = self.fronts[rule], self.fronts[CONTROL]
        return estimate(speedup(front, control, target), front.resampled or control.resampled)

    def below_control(self, points: float) -> np.ndarray:
        """Backprop's best accuracy less so many percentage points, in every resample."""
        return self.fronts[CONTROL].best_within() - points / 100

    def targets(self) -> dict[str, float | np.ndarray]:
        """The accuracies that are asked for: the runs' own targets, and those below backprop's best."""
        own = {target for some in self.rules.values() for one in some for run in one.runs for target in run.targets}
        asked: dict[str, float | np.ndarray] = {f"{target:g}": target for target in sorted(own)}
        if self.control:
            asked |= {f"{CONTROL}'s best" + (f" less {b:g}" if b else ""): self.below_control(b) for b in BELOW}
        return asked


def races(runs: list[Run]) -> list[Race]:
    """The races among runs that came to their own end; those ended by `stop_at` chose it by test accuracy."""
    ended = [run for run in runs if run.status in ("finished", "diverged")]
    optimizer = {key for run in ended for key in run.settings if key.startswith("optimizer.")}
    groups = name_groups(collect(ended, "race", {run: run.rule for run in ended}, (*SCHEDULE, *optimizer)))
    keys = [key for key in telling(groups) if key != "dataset.name"]
    found = []
    for group in groups:
        rules = {rule: configurations(group.rules[rule]) for rule in rule_order(group.rules)}
        # Every rule draws for itself: equal draws would pair runs that have nothing to do with one another.
        fronts = {rule: Front([c.point() for c in some], seed) for seed, (rule, some) in enumerate(rules.items())}
        data = str(group.settings["dataset.name"])
        found.append(
            Race(", ".join([data, *(f"{key}={group.settings.get(key)}" for key in keys)]), data, rules, fronts)
        )
    return found


def configurations(runs: list[Run]) -> list[Configuration]:
    """One rule's runs by everything but the seed."""
    apart: dict[tuple, list[Run]] = {}
    for run in runs:
        apart.setdefault((*run.settings.items(), run.options), []).append(run)
    full = [_settings(some[0]) for some in apart.values()]
    differ = [key for key in full[0] if len({str(one.get(key)) for one in full}) > 1] if full else []
    names = [", ".join(f"{key}={one[key]}" for key in differ if key in one) for one in full]
    return [Configuration(name, some) for name, some in zip(names, apart.values(), strict=True)]


def _settings(run: Run) -> dict[str, Any]:
    options = json.loads(run.options)
    # A rule's options go by their own names; of the optimizer, only its name needs the word.
    named = {
        key.removeprefix("optimizer.") if key != "optimizer.name" else "optimizer": v
        for key, v in run.settings.items()
    }
    return {key: value for key, value in {**named, **options}.items() if key != "eval_every"}


def time_table(found: list[Race]) -> pd.DataFrame:
    """fronts.csv: for every race, target and rule the time along its front, and the speedup over backprop's.

    `missed`: the share of resamples of the seeds in which the rule does not reach the target. `behind`: by how many
    points its best configuration ends below backprop's best, paired by seed.
    """
    rows = []
    for race in found:
        for target, accuracy in race.targets().items():
            asked = float(np.ravel(accuracy)[0])
            for rule, front in race.fronts.items():
                seconds = estimate(front.time_to(accuracy), front.resampled)
                row = {"race": race.name, "target": target, "accuracy": asked, "rule": rule}
                row |= _columns("seconds", seconds)
                row["missed"] = front.missed(accuracy)
                place = front.fastest(asked)
                if place is not None:
                    one = race.rules[rule][place]
                    row |= {"configuration": one.name, **{name: one.median(name) for name in MEASURES[1:]}}
                row["n_runs"] = len(race.best(rule).runs if place is None else one.runs)
                if race.control:
                    row["control_seconds"] = float(race.control.time_to(accuracy)[0])
                    if rule != CONTROL:
                        row |= _columns("speedup", race.speedup(rule, accuracy))
                        behind = race.behind(rule)
                        row |= {"behind": behind.median, "behind_low": behind.low, "behind_high": behind.high}
                rows.append(row)
    return pd.DataFrame(rows, columns=TIMES)


def within_table(found: list[Race]) -> pd.DataFrame:
    """within.csv: the best median accuracy of every rule in at most so many seconds."""
    rows = []
    for race in found:
        for rule, front in race.fronts.items():
            for limit in LIMITS:
                best = estimate(front.best_within(limit), front.resampled)
                rows.append({"race": race.name, "rule": rule, "limit": limit, **_columns("accuracy", best)})
    return pd.DataFrame(rows)


def _columns(name: str, known: Estimate) -> dict[str, float]:
    return {name: known.value, f"{name}_low": known.low, f"{name}_high": known.high}
