"""Which runs are compared with which: groups of runs that differ in rule and seed alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lazyexp.report import BASELINE
from lazyexp.report.formatting import setting, setting_value
from lazyexp.report.read import Run

# Settings that sweeps usually vary, in the order in which they are preferred as the axis of a figure.
SWEPT = ("model.width", "dataset.train_size", "dataset.name", "batch_size", "optimizer.lr", "dataset.augment")
# Settings that follow from others.
IMPLIED = ("data", "eval_every", "device", "hardware")
TUNED = ("optimizer.lr", "epochs", "batch_size")


@dataclass(eq=False)
class Group:
    """Runs that are compared, by rule (as labelled). `choice`: the tuned settings of every rule."""

    protocol: str
    settings: dict[str, Any]
    rules: dict[str, list[Run]]
    baseline: str = BASELINE
    choice: dict[str, str] = field(default_factory=dict)
    label: str = "all runs"

    @property
    def runs(self) -> list[Run]:
        return [run for runs in self.rules.values() for run in runs]

    @property
    def title(self) -> str:
        """The title of the group's figures: its name where there are several groups, else empty."""
        return "" if self.label == "all runs" else self.label

    @property
    def baselines(self) -> list[Run]:
        """The runs of the baseline rule."""
        return self.rules.get(self.baseline, [])

    @property
    def targets(self) -> list[float]:
        """Every test accuracy that is a target of any of the runs."""
        return sorted({target for run in self.runs for target in run.targets})


def label_rules(runs: list[Run]) -> dict[Run, str]:
    """The rule's name with those of its options that differ between its runs: `confidence (threshold=0.5)`."""
    variants: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        variants.setdefault(run.rule, {})[run.options] = json.loads(run.options)
    labels = {}
    for run in runs:
        others = variants[run.rule].values()
        options = variants[run.rule][run.options]
        differ = [key for key in sorted(options) if any(other.get(key) != options[key] for other in others)]
        shown = ", ".join(f"{key}={setting_value(options[key])}" for key in differ)
        labels[run] = f"{run.rule} ({shown})" if shown and run.rule != BASELINE else run.rule
    return labels


def matched_groups(runs: list[Run], baseline: str = BASELINE) -> list[Group]:
    """Runs with the same settings, apart from rule and seed."""
    return name_groups(collect(runs, "matched", label_rules(runs), leave_out=(), baseline=baseline))


def tuned_groups(runs: list[Run], baseline: str = BASELINE) -> list[Group]:
    """Every rule at the learning rate, epochs and batch size with the best median final validation accuracy.

    The choice never uses test accuracy. Candidates are complete runs with a validation accuracy, in groups where the
    learning rate or the epochs vary. Ties go to fewer epochs, then to the lower learning rate, then to the smaller
    batch size.
    """
    candidates = [run for run in runs if run.complete and run.rows["val_accuracy"].notna().any()]
    chosen = []
    for group in collect(candidates, "tuned", label_rules(runs), leave_out=TUNED, baseline=baseline):
        if not any(len({run.settings[key] for run in group.runs}) > 1 for key in TUNED[:2]):
            continue
        for rule, members in group.rules.items():
            points: dict[tuple[Any, ...], list[Run]] = {}
            for run in members:
                points.setdefault(tuple(run.settings[key] for key in TUNED), []).append(run)
            best = min(points, key=lambda point: (-_validation(points[point]), point[1], point[0], point[2]))
            shown = ", ".join(setting(key, value) for key, value in zip(TUNED, best, strict=True))
            group.rules[rule] = points[best]
            group.choice[rule] = f"{shown} (best of {len(points)})"
        chosen.append(group)
    return name_groups(chosen)


def _validation(runs: list[Run]) -> float:
    # A diverged run counts as accuracy 0: left out, it would raise the median.
    values = [0.0 if run.status == "diverged" else run.final("val_accuracy") for run in runs]
    return float(np.median(np.nan_to_num(values)))


def collect(
    runs: list[Run], protocol: str, labels: dict[Run, str], leave_out: Iterable[str], baseline: str = BASELINE
) -> list[Group]:
    """Groups of runs with the same settings, except those in `leave_out`; within each group by the rule's label."""
    groups: dict[tuple[Any, ...], Group] = {}
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if key not in leave_out}
        group = groups.setdefault(tuple(settings.items()), Group(protocol, settings, {}, baseline))
        group.rules.setdefault(labels[run], []).append(run)
    for group in groups.values():
        order = rule_order(group.rules, baseline)
        group.rules = {rule: sorted(group.rules[rule], key=lambda run: run.seed) for rule in order}
    return list(groups.values())


def rule_order(rules: Iterable[str], baseline: str = BASELINE) -> list[str]:
    """The baseline first, then lazy, then the others by name."""
    return sorted(set(rules), key=lambda rule: (rule != baseline, not rule.startswith("lazy"), rule))


def name_groups(groups: list[Group]) -> list[Group]:
    """Sort the groups and name them by the settings that differ between them."""
    settings = [group.settings for group in groups]
    keys = varying_keys(settings)
    groups.sort(key=lambda group: [sortable(group.settings.get(key)) for key in keys])
    for group in groups:
        group.label = ", ".join(setting(key, group.settings.get(key)) for key in keys) or "all runs"
    return groups


def varying(groups: list[Group]) -> list[str]:
    """The settings that are not the same in all groups, the usual axes of a sweep first."""
    return _varying([group.settings for group in groups])


def _varying(settings: list[dict[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys([*SWEPT, *(key for one in settings for key in one)]))
    return [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]


def varying_keys(settings: list[dict[str, Any]]) -> list[str]:
    """The settings that differ, those first that distinguish groups which the ones before do not.

    The fingerprint of the data is left out where other settings distinguish the groups as well.
    """
    first = distinguishing(settings)
    return first + [key for key in _varying(settings) if key not in (*first, *IMPLIED)]


def distinguishing(settings: list[dict[str, Any]]) -> list[str]:
    """The varying settings without those that follow from the ones before them."""
    kept: list[str] = []
    parts = 1
    for key in _varying(settings):
        finer = len({tuple(str(one.get(name)) for name in [*kept, key]) for one in settings})
        if finer > parts:
            kept, parts = [*kept, key], finer
    return kept


def sortable(value: Any) -> tuple[bool, bool, float | str]:
    """A sort key for values of mixed types: numbers, then text, then None."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (value is None, not number, value if number else str(value))
