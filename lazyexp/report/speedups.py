"""Speedups along the curve: costs up to the first evaluation that reaches a target, paired by seed.

A run that never reaches a target stays in every median: as 0 if only the rule misses it, as infinity if only the
baseline misses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lazyexp.report.formatting import relative
from lazyexp.report.groups import Group
from lazyexp.report.intervals import interval, unpaired_interval
from lazyexp.report.pareto import TOLERANCE
from lazyexp.report.read import MEASURES, Run

MARGINS = (0.1, 0.2, 0.5, 1.0)  # percentage points below the baseline's final accuracy


def crossing(run: Run, target: float) -> int | None:
    """Position of the first evaluation with a test accuracy of at least `target` (0 to 1), None if there is none."""
    reached = run.columns["test_accuracy"] >= target - TOLERANCE
    first = int(reached.argmax())
    return first if reached[first] else None


def seconds_to(run: Run, target: float) -> float:
    """Training seconds to a target along the curve; infinite if missed, NaN if the run did not end."""
    reached = crossing(run, target)
    if reached is not None:
        return float(run.columns["train_seconds"][reached])
    return math.inf if run.status in ("finished", "diverged") else math.nan


@dataclass
class Speedup:
    """One row of speedup.csv: cost of the baseline divided by that of the rule. Counts are over pairs of runs."""

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
    """The result of one pair of runs at one target. `ratio` is NaN if both missed it or it is undecided."""

    ratio: float = math.nan
    rule_missed: bool = False
    baseline_missed: bool = False
    undecided: bool = False


@dataclass(frozen=True)
class Target:
    """A test accuracy (`accuracy`, 0 to 1), or `margin` percentage points below the final one of the baseline."""

    name: str
    accuracy: float | None = None
    margin: float = 0.0


def targets_of(group: Group) -> list[Target]:
    """The group's own targets, then those relative to the baseline."""
    fixed = [Target(f"{accuracy:g}", accuracy) for accuracy in group.targets]
    return fixed + [Target(relative(group.baseline, margin), None, margin) for margin in MARGINS]


def compare(rule: Run, baseline: Run, target: Target, measure: str) -> Pair | None:
    """Compare the costs of two runs up to the first evaluation that reaches a target; None if not measured.

    Only a run that ended can miss a target. One that is still running, was interrupted, or was ended by `stop_at`
    leaves the pair undecided.
    """
    accuracy = target.accuracy
    if accuracy is None:
        if not baseline.complete:
            return Pair(undecided=True)
        final = baseline.final("test_accuracy")
        if baseline.status == "diverged" or math.isnan(final):
            # There is no final accuracy that the rule could be compared with.
            return Pair(baseline_missed=True, rule_missed=rule.status == "diverged")
        accuracy = final - target.margin / 100
    costs = []
    for run in (rule, baseline):
        reached = crossing(run, accuracy)
        cost = math.inf if reached is None else float(run.columns[measure][reached])
        if math.isnan(cost):
            return None
        costs.append(cost)
    missed = [math.isinf(cost) for cost in costs]
    ended = [run.status in ("finished", "diverged") for run in (rule, baseline)]
    if any(miss and not end for miss, end in zip(missed, ended, strict=True)):
        return Pair(undecided=True)
    if all(missed):
        return Pair(math.nan, True, True)
    if costs[0] == costs[1]:
        return Pair(1.0)
    ratio = math.inf if costs[0] == 0 else 0.0 if missed[0] else costs[1] / costs[0]
    return Pair(ratio, *missed)


def speedups(group: Group) -> list[Speedup]:
    """All rows of a group: every rule against the baseline, at every target, for every measure."""
    rows = []
    for rule, runs in group.rules.items():
        if rule == group.baseline:
            continue
        if not group.baselines:
            rows.append(_labelled(Speedup(runs[0].rule, note="no baseline"), group, rule))
            continue
        for target in targets_of(group):
            for measure in MEASURES:
                row = _speedup(runs, group.baselines, target, measure)
                if row:
                    rows.append(_labelled(row, group, rule))
    return rows


def _labelled(row: Speedup, group: Group, rule: str) -> Speedup:
    row.protocol, row.rule_label, row.rule_options = group.protocol, rule, group.rules[rule][0].options
    row.rule_choice = group.choice.get(rule, "")
    row.control_choice = group.choice.get(group.baseline, "") if group.baselines else ""
    return row


def _speedup(rules: list[Run], baselines: list[Run], target: Target, measure: str) -> Speedup | None:
    """The statistics of one row; None if the measure was measured in no pair."""
    partner = {run.seed: run for run in baselines}
    paired = any(run.seed in partner for run in rules)
    if paired:
        table = [[compare(run, partner[run.seed], target, measure)] for run in rules if run.seed in partner]
    else:
        table = [[compare(run, baseline, target, measure) for baseline in baselines] for run in rules]
    pairs = [pair for row in table for pair in row if pair]
    if not pairs:
        return None
    ratios = np.array([[pair.ratio if pair else math.nan for pair in row] for row in table])
    # Without a common seed every run of the rule is compared with every run of the baseline.
    stat = interval(ratios) if paired else unpaired_interval(ratios)
    return Speedup(
        rules[0].rule,
        target=target.name,
        measure=measure,
        n_pairs=len(pairs) - sum(pair.undecided for pair in pairs),
        n_rule_missed=sum(pair.rule_missed for pair in pairs),
        n_control_missed=sum(pair.baseline_missed for pair in pairs),
        n_undecided=sum(pair.undecided for pair in pairs),
        n_unpaired=sum(run.seed not in partner for run in rules),
        paired=paired,
        median=stat.median,
        iqm=stat.iqm,
        ci_low=stat.low,
        ci_high=stat.high,
    )
