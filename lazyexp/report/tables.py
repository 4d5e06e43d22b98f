"""The tables of a report as data."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.report.groups import TUNED, Group, varying
from lazyexp.report.intervals import interval
from lazyexp.report.read import MEASURES, Run
from lazyexp.report.speedups import Speedup, crossing, speedups
from lazyexp.runs.columns import CROSSING


def speedup_table(groups: list[Group]) -> pd.DataFrame:
    """speedup.csv: the settings that vary between groups, then the fields of Speedup."""
    keys = varying([group for group in groups if group.protocol == "matched"])
    rows = []
    for group in groups:
        settings = {key: group.settings.get(key, "tuned" if key in TUNED else None) for key in keys}
        rows += [{**settings, "group": group.label, **vars(row)} for row in speedups(group)]
    return pd.DataFrame(rows, columns=[*keys, "group", *(entry.name for entry in fields(Speedup))])


def final_table(groups: list[Group]) -> list[dict[str, Any]]:
    """Measurements at the end of training per group and rule, and the statuses of all its runs.

    They are `Interval`s over the complete runs, or over all runs if none is complete. `behind`: percentage points of
    test accuracy below the baseline run of the same seed.
    """
    columns = ("test_accuracy", "samples_seen", *MEASURES)
    rows = []
    for group in groups:
        partner = {run.seed: run.final("test_accuracy") for run in group.baselines if run.complete}
        for rule, runs in group.rules.items():
            ended = [run for run in runs if run.complete] or runs
            values = {column: interval(run.final(column) for run in ended) for column in columns}
            values["learned"] = interval(run.final("backward_samples") / run.final("samples_seen") for run in ended)
            values["behind"] = interval(
                100 * (partner[run.seed] - run.final("test_accuracy")) for run in ended if run.seed in partner
            )
            statuses = ", ".join(
                f"{sum(run.status == status for run in runs)} {status}" for status in sorted({r.status for r in runs})
            )
            rows.append({"group": group, "rule": rule, "n": len(ended), "statuses": statuses, **values})
    return rows


def run_table(groups: list[Group]) -> pd.DataFrame:
    """runs.csv: one row per run with settings, final measurements and crossings; empty where never reached."""
    protocols: dict[Run, list[str]] = {}
    labels: dict[Run, str] = {}
    for group in groups:
        for run in group.runs:
            protocols.setdefault(run, []).append(group.protocol)
            labels.setdefault(run, group.label)
    targets = sorted({target for group in groups for target in group.targets})
    rows = []
    for run, names in protocols.items():
        row: dict[str, Any] = {"run_id": run.run_id, "folder": run.folder.as_posix(), "group": labels[run]}
        row |= {"protocol": "+".join(names), "rule": run.rule, "rule_options": run.options}
        row |= {"seed": run.seed, "status": run.status, **run.settings}
        row |= {column: run.final(column) for column in run.columns}
        row["best_test_accuracy"] = np.nanmax(run.columns["test_accuracy"], initial=0.0)
        for target in targets:
            reached = crossing(run, target)
            for name, column in CROSSING.items():
                row[f"{name}_to_{target:g}"] = None if reached is None else run.columns[column][reached]
        rows.append(row)
    return pd.DataFrame(rows)
