"""Tables of runs in phases, with a store, and across sizes of the data set or of the batch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tables.report import (
    BASELINE,
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


def streams(folder: Path, output: Path) -> dict[str, str]:
    """Write summary.csv and, for phases and stores, phases.csv; return the tables."""
    groups = matched_groups([run for run in read_runs([folder]).runs if run.complete])
    write_summary(groups, output)
    phases = phase_table(groups)
    if len(phases):
        phases.to_csv(output / "phases.csv", index=False)
    return {
        "phases": with_names(groups, phase_columns, phase_cells),
        "stored": with_names(groups, stored_columns, stored_cells),
        "saved": with_names(groups, saved_columns, saved_cells),
        "exponents": exponents(groups),
    }


def with_names(groups: list[Group], columns: list[str], cells) -> str:
    """A row per group and rule; the first columns have the settings that differ between the groups."""
    keys = [key for key in NAMED if len({str(group.settings.get(key)) for group in groups}) > 1]
    rows = []
    for group in groups:
        names = [_shown(group.settings.get(key)) for key in keys]
        rows += [[*names, f"`{rule}`", *found] for rule, runs in group.rules.items() if (found := cells(runs, group))]
    return markdown([*(NAMED[key] for key in keys), "rule", *columns], rows)


def _shown(value: object) -> str:
    return "none" if value is None or value == "[]" else str(value).replace(" ", "").replace('"', "")


phase_columns = ["old classes %", "new classes %", "average %", "backward transfer %", "updates", "of backprop %"]
phase_columns += ["M1", "M1 of backprop %"]


def phase_cells(runs: list[Run], group: Group) -> list[str]:
    """Accuracies after the last phase of classes, and the costs from the second phase on."""
    found = [ends(run)[0] for run in runs]
    names = ("old_class_accuracy", "new_class_accuracy", "average_accuracy", "backward_transfer")
    cells = [short(interval(100 * end[name] for end in found)) for name in names]
    for name in ("updates", "energy_l1"):
        cells += [short(interval(end[name] for end in found)), short(interval(_of_baseline(runs, group, name)))]
    return cells


def _of_baseline(runs: list[Run], group: Group, name: str) -> Iterable[float]:
    """A cost in percent of the baseline's with the same seed."""
    spent = {run.seed: ends(run)[0][name] for run in group.baselines}
    return [100 * ends(run)[0][name] / spent[run.seed] for run in runs if run.seed in spent]


stored_columns = ["stored", "replay %", "store alone %", "updates in the stream", "M1 in the stream"]


def stored_cells(runs: list[Run], group: Group) -> list[str]:
    """Accuracy with replays and from the store alone, and the costs of the stream."""
    some = [run for run in runs if stores(run)]
    if not some:
        return []
    found = [ends(run) for run in some]
    alone = [100 * restart["test_accuracy"] for _, restart in found if restart]
    return [
        short(interval(float(run.rows["memory_samples"].max()) for run in some)),
        short(interval(100 * end["test_accuracy"] for end, _ in found)),
        short(interval(alone)) if alone else "",
        *(short(interval(end[name] for end, _ in found)) for name in ("updates", "energy_l1")),
    ]


saved_columns = ["test accuracy %", "updates, % of backprop", "at the first crossing, %", "selected %", "M1, %"]


def saved_cells(runs: list[Run], group: Group) -> list[str]:
    """Accuracy, and updates and M1 in percent of backprop's: of the whole run, and up to the last target that is
    reached by all runs of the group."""
    reached = [t for t in group.targets if all((run.rows["test_accuracy"] >= t).any() for run in group.runs)]
    first = [float("nan")]
    if reached:
        rows = [run.rows[run.rows["test_accuracy"] >= reached[-1]].iloc[0] for run in runs]
        first = [100 * row["updates"] / row["updates_possible"] for row in rows]
    crossing = short(interval(first)) + (f" ({100 * reached[-1]:g} %)" if reached else "never")
    return [
        short(interval(100 * run.final("test_accuracy") for run in runs)),
        short(interval(100 * run.final("updates") / run.final("updates_possible") for run in runs)),
        crossing,
        short(interval(100 * run.final("backward_samples") / run.final("samples_seen") for run in runs)),
        short(interval(_of_baseline(runs, group, "energy_l1"))) if BASELINE in group.rules else "",
    ]


def exponents(groups: list[Group]) -> str:
    """Distinct samples selected at every size of the data set, and the exponent of a power law."""
    sizes = sorted({run.train_size for group in groups for run in group.runs})
    kinds: dict[tuple[str, str], list[Run]] = {}
    for group in groups:
        for rule, runs in group.rules.items():
            kinds.setdefault((_shown(group.settings.get("dataset.augment")), rule), []).extend(runs)
    rows = []
    for (augment, rule), runs in kinds.items():
        cells = [
            short(interval(run.final("distinct_learned") for run in runs if run.train_size == size)) for size in sizes
        ]
        rows.append([augment, f"`{rule}`", *cells, short(exponent(runs), 1, 2)])
    return markdown(["augment", "rule", *(f"{size:,.0f}" for size in sizes), "exponent"], rows)
