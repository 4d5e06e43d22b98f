"""Which runs are compared with which: groups of runs that differ in rule and seed alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lazyexp.report.read import Run

CONTROL = "backprop"
# What a sweep is usually about, in the order in which it is preferred as the axis of a figure.
SWEPT = ("model.width", "dataset.train_size", "dataset.name", "batch_size", "optimizer.lr", "dataset.augment")
TUNED = ("optimizer.lr", "epochs", "batch_size")


@dataclass(eq=False)
class Group:
    """Runs that are compared, per rule (as labelled). `choice` says what was tuned, per rule."""

    protocol: str
    settings: dict[str, Any]
    rules: dict[str, list[Run]]
    choice: dict[str, str] = field(default_factory=dict)
    label: str = "all runs"

    @property
    def runs(self) -> list[Run]:
        return [run for runs in self.rules.values() for run in runs]

    @property
    def controls(self) -> list[Run]:
        return self.rules.get(CONTROL, [])

    @property
    def targets(self) -> list[float]:
        """Every test accuracy that any of the runs has as a target."""
        return sorted({target for run in self.runs for target in run.targets})


def label_rules(runs: list[Run]) -> dict[Run, str]:
    """The rule's name, with those of its options that are not the same in all runs: `confidence (threshold=0.5)`."""
    variants: dict[str, dict[str, dict]] = {}
    for run in runs:
        variants.setdefault(run.rule, {})[run.options] = json.loads(run.options)
    labels = {}
    for run in runs:
        others = variants[run.rule].values()
        options = variants[run.rule][run.options]
        differ = [key for key in sorted(options) if any(other.get(key) != options[key] for other in others)]
        shown = ", ".join(f"{key}={options[key]}" for key in differ)
        labels[run] = f"{run.rule} ({shown})" if shown and run.rule != CONTROL else run.rule
    return labels


def matched_groups(runs: list[Run]) -> list[Group]:
    """Runs with the same settings, rule and seed apart."""
    return name_groups(collect(runs, "matched", label_rules(runs), leave_out=()))


def tuned_groups(runs: list[Run]) -> list[Group]:
    """Every rule at the learning rate, epochs and batch size with the best median final validation accuracy.

    Test accuracy plays no part in the choice. Only finished runs with val_accuracy are candidates, and only groups
    in which the learning rate or the epochs vary. Ties go to fewer epochs, lower learning rate, smaller batches.
    """
    candidates = [run for run in runs if run.complete and run.rows["val_accuracy"].notna().any()]
    chosen = []
    for group in collect(candidates, "tuned", label_rules(runs), leave_out=TUNED):
        if not any(len({run.settings[key] for run in group.runs}) > 1 for key in TUNED[:2]):
            continue
        for rule, members in group.rules.items():
            points: dict[tuple, list[Run]] = {}
            for run in members:
                points.setdefault(tuple(run.settings[key] for key in TUNED), []).append(run)
            best = min(points, key=lambda point: (-_validation(points[point]), point[1], point[0], point[2]))
            shown = ", ".join(f"{key}={value}" for key, value in zip(TUNED, best, strict=True))
            group.rules[rule] = points[best]
            group.choice[rule] = f"{shown} (best of {len(points)})"
        chosen.append(group)
    return name_groups(chosen)


def _validation(runs: list[Run]) -> float:
    # A diverged run has no final accuracy worth the name, and must not vanish from the median.
    values = [0.0 if run.status == "diverged" else run.final("val_accuracy") for run in runs]
    return float(np.median(np.nan_to_num(values)))


def collect(runs: list[Run], protocol: str, labels: dict[Run, str], leave_out: Iterable[str]) -> list[Group]:
    """Groups of runs with the same settings, those in `leave_out` apart; within each, by the rule's label."""
    groups: dict[tuple, Group] = {}
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if key not in leave_out}
        group = groups.setdefault(tuple(settings.items()), Group(protocol, settings, {}))
        group.rules.setdefault(labels[run], []).append(run)
    for group in groups.values():
        group.rules = {rule: sorted(group.rules[rule], key=lambda run: run.seed) for rule in rule_order(group.rules)}
    return list(groups.values())


def rule_order(rules: Iterable[str]) -> list[str]:
    """The control first, then lazy, then the others by name."""
    return sorted(set(rules), key=lambda rule: (rule != CONTROL, not rule.startswith("lazy"), rule))


def name_groups(groups: list[Group]) -> list[Group]:
    """Sorts and names the groups by the fewest settings that tell them apart."""
    keys = telling(groups)
    groups.sort(key=lambda group: [_sortable(group.settings.get(key)) for key in keys])
    for group in groups:
        group.label = ", ".join(f"{key}={group.settings.get(key)}" for key in keys) or "all runs"
    return groups


def varying(groups: list[Group]) -> list[str]:
    """The settings that are not the same in all groups, the usual axes of a sweep first."""
    keys = list(dict.fromkeys([*SWEPT, *(key for group in groups for key in group.settings)]))
    return [key for key in keys if len({str(group.settings.get(key)) for group in groups}) > 1]


def telling(groups: list[Group]) -> list[str]:
    """Those of the varying settings that tell groups apart which the ones before do not."""
    kept: list[str] = []
    parts = 1
    for key in varying(groups):
        finer = len({tuple(str(group.settings.get(name)) for name in [*kept, key]) for group in groups})
        if finer > parts:
            kept, parts = [*kept, key], finer
    return kept


def _sortable(value: Any) -> tuple:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (value is None, not number, value if number else str(value))
