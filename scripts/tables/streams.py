"""Tables of runs in phases, with a store, and across sizes of the data set or of the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tables.report import (
    Group,
    Run,
    ends,
    exponent,
    interval,
    markdown,
    matched_groups,
    phase_table,
    read_runs,
    short,
    stores,
    write_summary,
)

# Settings that name a row, and their column heads.
NAMED = {
    "stream.phases": "phases",
    "stream.present": "presented",
    "memory.name": "store",
    "memory.capacity": "capacity",
    "dataset.name": "data",
    "dataset.augment": "augment",
    "batch_size": "batch size",
}


# Heads of the columns of each kind of table, by the measure that they show.
PHASES = {
    "old_class_accuracy": "old classes %",
    "new_class_accuracy": "new classes %",
    "average_accuracy": "average %",
    "backward_transfer": "backward transfer %",
    "updates": "updates",
    "updates_of_backprop": "of backprop %",
    "energy_l1": "M1",
    "energy_l1_of_backprop": "M1 of backprop %",
}
STORED = {
    "stored": "stored",
    "replay_accuracy": "replay %",
    "store_alone_accuracy": "store alone %",
    "updates": "updates in the stream",
    "energy_l1": "M1 in the stream",
}
SAVED = {
    "test_accuracy": "test accuracy %",
    "updates_of_backprop": "updates, % of backprop",
    "crossing": "at the first crossing, %",
    "crossing_of_backprop": "against backprop's crossing, %",
    "selected": "selected %",
    "energy_l1_of_backprop": "M1, %",
}


def streams(folder: Path, output: Path) -> dict[str, str]:
    """Write summary.csv, a CSV file for each table and, for phases and stores, phases.csv; return the tables."""
    groups = matched_groups([run for run in read_runs([folder]).runs if run.complete])
    write_summary(groups, output)
    phases = phase_table(groups)
    if len(phases):
        phases.to_csv(output / "phases.csv", index=False)
    return {
        "phases": rows_of(groups, PHASES, phase_measures, output / "phases_table.csv"),
        "stored": rows_of(groups, STORED, stored_measures, output / "stored_table.csv"),
        "saved": rows_of(groups, SAVED, saved_measures, output / "saved_table.csv"),
        "exponents": exponents(groups, output / "exponents_table.csv"),
    }


def rows_of(
    groups: list[Group],
    heads: dict[str, str],
    measures: Callable[[Run, Group], dict[str, float]],
    path: Path,
) -> str:
    """A row per group and rule with medians and ranges of what `measures` returns of a run.

    The first columns have the settings that differ between the groups. What the runs gave goes to `path`, a row per
    run. A run that `measures` returns nothing for is left out.
    """
    keys = [key for key in NAMED if len({str(group.settings.get(key)) for group in groups}) > 1]
    rows, found = [], []
    for group in groups:
        names = [_shown(group.settings.get(key)) for key in keys]
        for rule, runs in group.rules.items():
            values = pd.DataFrame([{"seed": run.seed, **row} for run in runs if (row := measures(run, group))])
            if values.empty:
                continue
            cells = [
                short(interval(values[name].dropna()), digits=4 if name == "test_accuracy" else 3) for name in heads
            ]
            if reached := last_target(group) if "crossing" in heads else None:
                cells[list(heads).index("crossing")] += f" ({100 * reached:g} %)"
            rows.append([*names, f"`{rule}`", *cells])
            found.append(values.assign(group=group.label, rule=rule))
    if found:
        table = pd.concat(found, ignore_index=True)
        first = ["group", "rule", "seed"]
        table[[*first, *(name for name in table if name not in first)]].to_csv(path, index=False)
    return markdown([*(NAMED[key] for key in keys), "rule", *heads.values()], rows)


def _shown(value: object) -> str:
    return "none" if value is None or value == "[]" else str(value).replace(" ", "").replace('"', "")


def phase_measures(run: Run, group: Group) -> dict[str, float]:
    """Accuracies after the last phase of classes in percent, and the costs from the second phase on."""
    end = ends(run)[0]
    accuracies = {name: 100 * end[name] for name in list(PHASES)[:4]}
    return {**accuracies, **_costs(end, run, group)}


def _costs(end: dict[str, float], run: Run, group: Group) -> dict[str, float]:
    """Updates and M1, also in percent of the baseline's with the same seed."""
    base = next((ends(other)[0] for other in group.baselines if other.seed == run.seed), None)
    costs = {}
    for name in ("updates", "energy_l1"):
        costs[name] = end[name]
        costs[f"{name}_of_backprop"] = 100 * end[name] / base[name] if base else math.nan
    return costs


def stored_measures(run: Run, group: Group) -> dict[str, float]:
    """Accuracy in percent with replays and from the store alone, and the costs of the stream."""
    if not stores(run):
        return {}
    end, restart = ends(run)
    return {
        "stored": float(run.rows["memory_samples"].max()),
        "replay_accuracy": 100 * end["test_accuracy"],
        "store_alone_accuracy": 100 * restart["test_accuracy"] if restart else math.nan,
        "updates": end["updates"],
        "energy_l1": end["energy_l1"],
    }


def saved_measures(run: Run, group: Group) -> dict[str, float]:
    """Accuracy, and updates and M1 in percent of backprop's: of the whole run, and up to the first evaluation with
    `last_target`, there in percent of the presented samples and of backprop's updates up to its own."""
    reached, crossing, of_backprop = last_target(group), math.nan, math.nan
    base = next((other for other in group.baselines if other.seed == run.seed), None)
    if reached:
        row = _first(run, reached)
        crossing = 100 * row["updates"] / row["updates_possible"]
        if base:
            of_backprop = 100 * row["updates"] / _first(base, reached)["updates"]
    return {
        "target": math.nan if reached is None else 100 * reached,
        "test_accuracy": 100 * run.final("test_accuracy"),
        "updates_of_backprop": 100 * run.final("updates") / run.final("updates_possible"),
        "crossing": crossing,
        "crossing_of_backprop": of_backprop,
        "selected": 100 * run.final("backward_samples") / run.final("samples_seen"),
        "energy_l1_of_backprop": _costs(ends(run)[0], run, group)["energy_l1_of_backprop"],
    }


def _first(run: Run, accuracy: float) -> pd.Series:
    """The first row of a run with this test accuracy."""
    return run.rows[run.rows["test_accuracy"] >= accuracy].iloc[0]


def last_target(group: Group) -> float | None:
    """The last target that is reached by all runs of the group."""
    reached = [t for t in group.targets if all((run.rows["test_accuracy"] >= t).any() for run in group.runs)]
    return reached[-1] if reached else None


def exponents(groups: list[Group], path: Path) -> str:
    """Distinct samples selected at every size of the data set, and the exponent of a power law, which `path` gets."""
    sizes = sorted({run.train_size for group in groups for run in group.runs})
    kinds: dict[tuple[str, str], list[Run]] = {}
    for group in groups:
        for rule, runs in group.rules.items():
            kinds.setdefault((_shown(group.settings.get("dataset.augment")), rule), []).extend(runs)
    rows, found = [], []
    for (augment, rule), runs in kinds.items():
        cells = [
            short(interval(run.final("distinct_learned") for run in runs if run.train_size == size)) for size in sizes
        ]
        power = exponent(runs)
        rows.append([augment, f"`{rule}`", *cells, short(power, 1, 2)])
        found.append((augment, rule, power.median, power.low, power.high))
    if len(sizes) > 1:
        pd.DataFrame(found, columns=["augment", "rule", "exponent", "low", "high"]).to_csv(path, index=False)
    return markdown(["augment", "rule", *(f"{size:,.0f}" for size in sizes), "exponent"], rows)
