"""Energy at equal accuracy: which samples are selected, times which synapses change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.report import BASELINE
from lazyexp.report.blocks import Block, Table, Text
from lazyexp.report.comparisons import SCHEDULE, Configuration, configurations
from lazyexp.report.formatting import DASH, number, setting, with_interval
from lazyexp.report.groups import collect, name_groups, varying_keys
from lazyexp.report.intervals import Interval, resampled_interval
from lazyexp.report.pareto import ParetoFront, Point, speedup
from lazyexp.report.read import Run

MARGIN = 0.5  # percentage points below the baseline's best, the accuracy at which energies are compared
ALL = "all"
COSTS = {"m1": ("energy_l1",), "with_upkeep": ("energy_l1", "energy_maintenance")}
EXPLAINED = (
    "The least M1 (sum of |Δw|) with which a rule and a choice of synapses reach the best accuracy of the baseline "
    f"with all synapses minus {MARGIN:g} percentage points, over all epochs and learning rates that were run; the "
    "baseline's M1 is minimised in the same way. `with upkeep` adds the cost of the transient store. Medians over "
    "seeds; in brackets 95 % bootstrap intervals."
)


def energy_table(runs: list[Run], baseline: str = BASELINE) -> pd.DataFrame:
    """energy.csv: a row per comparison, rule and choice of synapses, cheapest first; empty without such a choice."""
    measured = [run for run in runs if run.status == "finished" and not math.isnan(run.final("energy_l1"))]
    schedule = {key for run in measured for key in run.settings if key.startswith(("optimizer.", "plasticity."))}
    labels = {run: f"{run.rule}\n{synapses(run)}" for run in measured}
    reference = f"{baseline}\n{ALL}"
    groups = [
        group
        for group in name_groups(collect(measured, "energy", labels, (*SCHEDULE, *schedule), baseline))
        if reference in group.rules and len({synapses(run) for run in group.runs}) > 1
    ]
    keys, rows = [key for key in varying_keys([group.settings for group in groups]) if key != "dataset.name"], []
    for group in groups:
        data = str(group.settings["dataset.name"])
        name = ", ".join([data, *(setting(key, group.settings.get(key)) for key in keys)])
        methods = {label: configurations(some) for label, some in group.rules.items()}
        fronts = {cost: _fronts(methods, columns) for cost, columns in COSTS.items()}
        target = fronts["m1"][reference].best_within() - MARGIN / 100
        found = [_row(name, label, methods[label], fronts, target, reference) for label in methods]
        rows += sorted(found, key=lambda row: (row["m1"], -row["accuracy"]))
    return pd.DataFrame(rows)


def synapses(run: Run) -> str:
    """Which synapses change: `all`, `largest`, `cached`, with a threshold and a decay if there are any."""
    name = str(run.settings.get("plasticity.name") or ALL)
    options = {key: run.settings.get(f"plasticity.{key}") for key in ("threshold", "decay") if name == "cached"}
    shown = ", ".join(setting(key, value) for key, value in options.items() if value)
    return f"{name} ({shown})" if shown else name


def _fronts(methods: dict[str, list[Configuration]], columns: tuple[str, ...]) -> dict[str, ParetoFront]:
    """Pareto fronts with an energy in place of the seconds."""

    def point(one: Configuration) -> Point:
        costs = [sum(np.nan_to_num(run.final(column)) for column in columns) for run in one.runs]
        return Point(np.array(costs), one.point().accuracy)

    return {
        label: ParetoFront([point(one) for one in some], seed) for seed, (label, some) in enumerate(methods.items())
    }


def _row(
    name: str,
    label: str,
    some: list[Configuration],
    fronts: dict[str, dict[str, ParetoFront]],
    target: np.ndarray,
    reference: str,
) -> dict[str, Any]:
    rule, chosen = label.split("\n")
    front = fronts["m1"][label]
    best, cheapest = resampled_interval(front.best_within(), front.resampled), front.fastest(float(target[0]))
    row: dict[str, Any] = {"comparison": name, "rule": rule, "synapses": chosen, "accuracy": best.median}
    row |= {"accuracy_low": best.low, "accuracy_high": best.high, "target": float(target[0])}
    row["runs"] = len(some[front.best() if cheapest is None else cheapest].runs)
    row["configuration"] = "" if cheapest is None else some[cheapest].name
    for cost, all_fronts in fronts.items():
        front, baseline = all_fronts[label], all_fronts[reference]
        spent = resampled_interval(front.time_to(target), front.resampled)
        row |= {cost: spent.median, f"{cost}_low": spent.low, f"{cost}_high": spent.high}
        ratio = resampled_interval(speedup(front, baseline, target), front.resampled or baseline.resampled)
        row |= {f"{cost}_times": ratio.median, f"{cost}_times_low": ratio.low, f"{cost}_times_high": ratio.high}
    return row


def energy_blocks(table: pd.DataFrame, baseline: str = BASELINE) -> list[Block]:
    """The section, empty if no run chose synapses."""
    rows = []
    for row in table.to_dict("records"):

        def shown(name: str, factor: float = 1.0, digits: int = 3, row: dict[Any, Any] = row) -> str:
            return with_interval(Interval(row[name], row[f"{name}_low"], row[f"{name}_high"]), factor, digits)

        reference = row["rule"] == baseline and row["synapses"] == ALL
        missed = math.isinf(row["m1"])
        ratios = ["", ""] if reference or missed else [shown(f"{cost}_times") for cost in COSTS]
        cells = [row["comparison"], row["rule"], row["synapses"], DASH if missed else number(row["m1"]), *ratios]
        rows.append([*cells, shown("accuracy", 100, 4), row["configuration"], str(row["runs"])])
    columns = ["comparison", "rule", "synapses", "M1", "times lower", "with upkeep", "best test accuracy (%)"]
    return [Text(EXPLAINED), Table([*columns, "configuration", "runs"], rows)] if rows else []
