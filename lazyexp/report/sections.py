"""The tables of the folded sections."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from lazyexp.report.blocks import Block, Table, Text
from lazyexp.report.comparisons import Comparison, limits_of
from lazyexp.report.formatting import DASH, number, target_name, with_interval
from lazyexp.report.groups import Group
from lazyexp.report.intervals import Interval, resampled_interval
from lazyexp.report.read import MEASURES
from lazyexp.report.tables import final_table

SHORT = ("seconds", "forward samples", "backward samples", "updates", "energy M1")
ABOUT_SCHEDULES = (
    "Every configuration (all settings but the seed) is one point: the median seconds and the median final test "
    "accuracy of its runs. The time to an accuracy is that of the rule's fastest configuration whose median reaches "
    "it, so its schedule was made for that time; nothing is read off the middle of a longer run. Speedup is the "
    "baseline's time divided by the rule's, each by its own fastest configuration. In brackets: 95 % bootstrap "
    "interval, with the seeds resampled within each configuration; inf and 0 in it are resamples in which the "
    "baseline or the rule misses the target. A dash is a target that is never reached."
)


def final(groups: list[Group]) -> Table:
    """Measurements at the end of training, a row per group and rule."""
    columns = ["group", "rule", "runs", "status", "test accuracy (%)", "points below baseline", "seconds"]
    columns += ["forward samples", "backward samples", "selected (%)", "updates", "energy M1", "settings chosen"]
    rows = []
    for row in final_table(groups):
        group: Group = row["group"]
        cells = [group.label, row["rule"], str(row["n"]), row["statuses"]]
        cells += [with_interval(row["test_accuracy"], 100, 4)]
        cells += ["" if row["rule"] == group.baseline else with_interval(row["behind"], 1, 2)]
        cells += [with_interval(row[name]) for name in ("train_seconds", "forward_samples", "backward_samples")]
        cells += [with_interval(row["learned"], 100), with_interval(row["updates"]), with_interval(row["energy_l1"])]
        rows.append([*cells, group.choice.get(row["rule"], "")])
    return Table(columns, rows)


def speedup(table: pd.DataFrame) -> Table:
    """One row per group, rule and target; the measures side by side."""
    columns = ["group", "rule", "target", *SHORT, "pairs", "rule missed", "baseline missed", "undecided"]
    grouped: dict[tuple[str, str, str], list[dict[Any, Any]]] = {}
    for row in table.to_dict("records"):
        grouped.setdefault((row["group"], row["rule_label"], row["target"]), []).append(row)
    rows = []
    for (group, rule, target), part in grouped.items():
        first = part[0]
        if first["note"]:
            rows.append([group, rule, str(first["note"]), *[""] * (len(columns) - 3)])
            continue
        cells = {row["measure"]: row for row in part}
        pairs = f"{first['n_pairs']}" + ("" if first["paired"] else " (unpaired)")
        ratios = [_ratio(cells[name]) if name in cells else "" for name in MEASURES]
        counts = [str(first[name]) for name in ("n_rule_missed", "n_control_missed", "n_undecided")]
        rows.append([group, rule, target_name(target), *ratios, pairs, *counts])
    return Table(columns, rows)


def _ratio(row: dict[Any, Any]) -> str:
    """The speedup in a row of speedup.csv, or why there is none."""
    if math.isnan(row["median"]):
        return "undecided" if row["n_pairs"] == 0 else "both missed" if row["n_rule_missed"] else "baseline missed"
    return with_interval(Interval(row["median"], row["ci_low"], row["ci_high"]))


def schedule_blocks(compared: list[Comparison], times: pd.DataFrame) -> list[Block]:
    """Times to targets and accuracies within time limits."""
    return [
        Text(ABOUT_SCHEDULES),
        *time_block(times).compact(),
        Text("Best median test accuracy (%) in at most so many seconds of training:"),
        *within_block(compared).compact(),
    ]


def time_block(times: pd.DataFrame) -> Table:
    """pareto.csv for reading: a row per comparison, target and rule."""
    columns = ["comparison", "target", "rule", "seconds", "speedup", "configuration", "runs"]
    rows = []
    for row in times.to_dict("records"):
        ratio = Interval(row["speedup"], row["speedup_low"], row["speedup_high"])
        seconds = Interval(row["seconds"], row["seconds_low"], row["seconds_high"])
        target = target_name(row["target"])
        target = target if target.endswith("%") else f"{target} ({100 * row['accuracy']:.4g} %)"
        faster = (
            DASH if ratio.median == 0 else "baseline missed" if math.isinf(ratio.median) else with_interval(ratio)
        )
        cells = [DASH if math.isinf(seconds.median) else with_interval(seconds), faster]
        configuration = row["configuration"] if isinstance(row["configuration"], str) else ""
        rows.append([row["comparison"], target, row["rule"], *cells, configuration, str(row["n_runs"])])
    return Table(columns, rows)


def within_block(compared: list[Comparison]) -> Table:
    """The best accuracy of every rule within each time limit."""
    limits = sorted({limit for comparison in compared for limit in limits_of(comparison)})
    rows = []
    for comparison in compared:
        for rule, front in comparison.fronts.items():
            best = [resampled_interval(front.best_within(limit), front.resampled) for limit in limits]
            rows.append([comparison.name, rule, *(with_interval(one, 100, 4) or DASH for one in best)])
    return Table(["comparison", "rule", *(f"{number(limit)} s" for limit in limits)], rows)
