"""Energy at equal accuracy: which samples learn, times which synapses change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.report.fronts import Estimate, Front, Point, estimate, speedup
from lazyexp.report.groups import CONTROL, collect, name_groups, telling
from lazyexp.report.races import SCHEDULE, Configuration, configurations
from lazyexp.report.read import Run
from lazyexp.report.render import Block, Heading, Table, Text
from lazyexp.report.words import number, shown

MARGIN = 0.5  # percentage points below backprop's best, the accuracy at which energies are compared
ALL = "all"
COSTS = {"m1": ("energy_l1",), "with_upkeep": ("energy_l1", "energy_maintenance")}
EXPLAINED = (
    f"The least M1 (sum of |Δw|) with which a rule and a choice of synapses reach the accuracy of the best {CONTROL} "
    f"with all synapses less {MARGIN:g} points, over all epochs and rates that were tried, the control's as well; "
    "`with upkeep` counts what the transient store costs. Medians over seeds; in brackets 95 % bootstrap intervals."
)


def energy_table(runs: list[Run]) -> pd.DataFrame:
    """energy.csv: a row per race, rule and choice of synapses, cheapest first; empty if no run chose synapses."""
    measured = [run for run in runs if run.status == "finished" and not math.isnan(run.final("energy_l1"))]
    apart = {key for run in measured for key in run.settings if key.startswith(("optimizer.", "plasticity."))}
    labels = {run: f"{run.rule}\n{synapses(run)}" for run in measured}
    groups = [
        group
        for group in name_groups(collect(measured, "energy", labels, (*SCHEDULE, *apart)))
        if f"{CONTROL}\n{ALL}" in group.rules and len({synapses(run) for run in group.runs}) > 1
    ]
    keys, rows = [key for key in telling(groups) if key != "dataset.name"], []
    for group in groups:
        name = ", ".join([str(group.settings["dataset.name"]), *(f"{key}={group.settings.get(key)}" for key in keys)])
        ways = {label: configurations(some) for label, some in group.rules.items()}
        fronts = {cost: _fronts(ways, columns) for cost, columns in COSTS.items()}
        target = fronts["m1"][f"{CONTROL}\n{ALL}"].best_within() - MARGIN / 100
        found = [_row(name, label, ways[label], fronts, target) for label in ways]
        rows += sorted(found, key=lambda row: (row["m1"], -row["accuracy"]))
    return pd.DataFrame(rows)


def synapses(run: Run) -> str:
    """Which synapses change: `all`, `largest`, `cached`, with a threshold and a decay if there are any."""
    name = str(run.settings.get("plasticity.name") or ALL)
    told = {key: run.settings.get(f"plasticity.{key}") for key in ("threshold", "decay") if name == "cached"}
    shown = ", ".join(f"{key}={value:g}" for key, value in told.items() if value)
    return f"{name} ({shown})" if shown else name


def _fronts(ways: dict[str, list[Configuration]], columns: tuple[str, ...]) -> dict[str, Front]:
    def point(one: Configuration) -> Point:
        cost = [sum(np.nan_to_num(run.final(column)) for column in columns) for run in one.runs]
        return Point(np.array(cost), one.point().accuracy)

    return {label: Front([point(one) for one in some], seed) for seed, (label, some) in enumerate(ways.items())}


def _row(
    name: str,
    label: str,
    some: list[Configuration],
    fronts: dict[str, dict[str, Front]],
    target: np.ndarray,
) -> dict[str, Any]:
    rule, chosen = label.split("\n")
    front = fronts["m1"][label]
    best, place = estimate(front.best_within(), front.resampled), front.fastest(float(target[0]))
    row: dict[str, Any] = {"race": name, "rule": rule, "synapses": chosen, "accuracy": best.value}
    row |= {"accuracy_low": best.low, "accuracy_high": best.high, "target": float(target[0])}
    row["runs"] = len(some[front.best() if place is None else place].runs)
    row["configuration"] = "" if place is None else some[place].name
    for cost, all_fronts in fronts.items():
        own, control = all_fronts[label], all_fronts[f"{CONTROL}\n{ALL}"]
        spent = estimate(own.time_to(target), own.resampled)
        row |= {cost: spent.value, f"{cost}_low": spent.low, f"{cost}_high": spent.high}
        ratio = estimate(speedup(own, control, target), own.resampled or control.resampled)
        row |= {f"{cost}_times": ratio.value, f"{cost}_times_low": ratio.low, f"{cost}_times_high": ratio.high}
    return row


def energy_blocks(table: pd.DataFrame) -> list[Block]:
    """The section, empty if no run chose synapses."""
    if table.empty:
        return []
    rows = []
    for _, row in table.iterrows():

        def told(name: str, factor: float = 1.0, digits: int = 3, row: pd.Series = row) -> str:
            return shown(Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]), factor, digits)

        control = row["rule"] == CONTROL and row["synapses"] == ALL
        spent = "never" if math.isinf(row["m1"]) else number(row["m1"])
        ratios = ["", ""] if control or spent == "never" else [told(f"{cost}_times") for cost in COSTS]
        cells = [row["race"], row["rule"], row["synapses"], spent, *ratios]
        rows.append([*cells, told("accuracy", 100, 4), row["configuration"], str(row["runs"])])
    columns = ["race", "rule", "synapses", "M1", "times lower", "with upkeep", "best test accuracy (%)", "by", "runs"]
    return [Heading("Energy at equal accuracy: samples and synapses"), Text(EXPLAINED), Table(columns, rows)]
