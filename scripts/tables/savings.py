"""The table of what every rule saves on the same network and schedule, and of shorter schedules of backprop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from tables.report import Run, markdown, matched_groups, read_runs, write_summary

# Costs in which a run is compared with backprop of the same seed, and the heads of their columns.
COSTS = {
    "samples_seen": "presented",
    "forward_samples": "forward passes",
    "backward_samples": "backward passes",
    "train_seconds": "seconds",
}


def savings(folder: Path, output: Path) -> dict[str, str]:
    """Write summary.csv and savings.csv, a row per run; return the table, the most accurate rule first."""
    groups = matched_groups([run for run in read_runs([folder]).runs if run.complete])
    write_summary(groups, output)
    main = max(groups, key=lambda group: len(group.rules))
    base = {run.seed: run for run in main.baselines}
    baselines = [run for group in groups for run in group.baselines]
    found = []
    for group in groups:
        for rule, runs in group.rules.items():
            for run in runs:
                other, accuracy = base[run.seed], 100 * run.final("test_accuracy")
                saved = {f"{name}_saved": 100 - 100 * run.final(name) / other.final(name) for name in COSTS}
                above = accuracy - 100 * other.final("test_accuracy")
                schedules = [one for one in baselines if one.seed == run.seed]
                equal = accuracy - 100 * _accuracy_at(run.final("train_seconds"), schedules)
                epochs = int(run.final("epoch"))
                found.append({"rule": rule, "epochs": epochs, "seed": run.seed, "test_accuracy": accuracy,
                              "above_backprop": above, "above_same_seconds": equal, **saved})  # fmt: skip
    table = pd.DataFrame(found)
    table.to_csv(output / "savings.csv", index=False)
    longest = table["epochs"].max()
    rows = []
    for (rule, epochs), part in table.groupby(["rule", "epochs"]):
        name = f"`{rule}`" if epochs == longest else f"`{rule}`, {epochs} epochs"
        cells = [_spread(part[column], 1) for column in ("test_accuracy", "above_backprop", "above_same_seconds")]
        cells += [_spread(part[f"{column}_saved"], 0) for column in COSTS]
        rows.append((part["test_accuracy"].mean(), [name, *cells]))
    rows.sort(key=lambda row: -row[0])
    columns = ["rule", "test accuracy %", "points above backprop", "above it in as many seconds", *COSTS.values()]
    return {"savings": markdown(columns, [cells for _, cells in rows])}


def _accuracy_at(seconds: float, schedules: list[Run]) -> float:
    """Backprop's accuracy in so many seconds, between those of its schedules; beyond the longest, that of this one.

    NaN for less than the shortest takes.
    """
    schedules = sorted(schedules, key=lambda run: run.final("train_seconds"))
    times, accuracies = ([run.final(name) for run in schedules] for name in ("train_seconds", "test_accuracy"))
    return float(np.interp(seconds, times, accuracies, left=math.nan))


def _spread(values: pd.Series, decimals: int) -> str:
    """`mean (least to greatest)`, only the mean if they are all the same as shown; nothing if any is missing."""
    if values.isna().any():
        return ""
    shown = [f"{value:.{decimals}f}".replace("-0.0", "0.0") for value in (values.mean(), values.min(), values.max())]
    shown = ["0" if text == "-0" else text for text in shown]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"
