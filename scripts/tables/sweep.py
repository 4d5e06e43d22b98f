"""Tables of a sweep: final figures and costs of every rule, or times to given accuracies."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tables.report import (
    BASELINE,
    Group,
    Run,
    crossing,
    final_table,
    interval,
    markdown,
    matched_groups,
    ratio,
    read_runs,
    short,
    speedup_table,
    tuned_groups,
    with_interval,
    write_summary,
)

# Column heads and cells in place of a swept key and its values.
HEADS = {
    "batch_size": "batch size",
    "dataset.augment": "augment",
    "dataset.name": "data",
    "dataset.subset": "trained on",
    "model.width": "width",
    "optimizer.lr": "learning rate",
}
CELLS = {"dataset.subset": {"matched": "samples lazy selected", "random": "as many random ones", "None": "all"}}
TARGETS = {"backprop-0.2": "speedup at −0.2", "backprop-0.5": "speedup at −0.5"}


def sweep(folder: Path, output: Path) -> dict[str, str]:
    """Write summary.csv and speedup.csv; return the tables."""
    runs = read_runs([folder]).runs
    matched = matched_groups(runs)
    groups = matched + tuned_groups(runs)
    speedups = speedup_table(groups)
    write_summary(groups, output)
    speedups.drop(columns="rule_label").to_csv(output / "speedup.csv", index=False)
    return {
        "final": final(matched),
        "costs": costs(matched, speedups),
        "times": times(runs),
        "targets": targets(runs),
    }


def final(groups: list[Group]) -> str:
    """Accuracy, time and selected samples at the end of training, per setting and rule."""
    columns = ["rule", "test accuracy %", "points below", "seconds", "selected"]
    rows = []
    for row in final_table(groups):
        cells = [f"`{row['rule']}`", with_interval(row["test_accuracy"], 100, 4)]
        cells.append("" if row["rule"] == BASELINE else with_interval(row["behind"], 1, 2))  # paired by seed
        rows.append([*cells, short(row["train_seconds"]), short(row["backward_samples"])])
    return with_settings(groups, columns, rows)


def costs(groups: list[Group], speedups: pd.DataFrame) -> str:
    """Forward passes, updates, energy and speedups in seconds, per setting and rule."""
    columns = ["rule", "forward passes", "updates", "M1", *TARGETS.values()]
    rows = []
    for row in final_table(groups):
        cells = [short(row[key]) for key in ("forward_samples", "updates", "energy_l1")]
        cells += [speedup(speedups, row["group"], row["rule"], target) for target in TARGETS]
        rows.append([f"`{row['rule']}`", *cells])
    return with_settings(groups, columns, rows)


def speedup(table: pd.DataFrame, group: Group, rule: str, target: str) -> str:
    here = (table["protocol"] == group.protocol) & (table["group"] == group.label) & (table["rule_label"] == rule)
    rows = table[here & (table["target"] == target) & (table["measure"] == "train_seconds")]
    return "" if rows.empty else ratio(rows.iloc[0])


def with_settings(groups: list[Group], columns: list[str], rows: list[list[str]]) -> str:
    """The table with a first column for what differs between the groups, if there are several."""
    if len(groups) == 1:
        return markdown(columns, rows)
    labels = [row["group"].label for row in final_table(groups)]
    key = labels[0].partition("=")[0]
    if all(label.count("=") == 1 and label.startswith(f"{key}=") for label in labels):
        values = [label.partition("=")[2] for label in labels]
        head = HEADS.get(key, key.rpartition(".")[2])
        cells = [CELLS.get(key, {}).get(value, value) for value in values]
    else:
        head, cells = "setting", labels
    return markdown([head, *columns], [[cell, *row] for cell, row in zip(cells, rows, strict=True)])


def times(runs: list[Run]) -> str:
    """Accuracy, time and counts at the end of training, fastest rule first."""
    columns = ["rule", "test accuracy %", "seconds", "forward passes", "selected"]
    rows = []
    for rule, some in by_speed(runs).items():
        accuracy, *others = (
            interval([run.final(name) for run in some])
            for name in ("test_accuracy", "train_seconds", "forward_samples", "backward_samples")
        )
        rows.append([f"`{rule}`", with_interval(accuracy, 100, 4), *map(short, others)])
    return markdown(columns, rows)


def targets(runs: list[Run]) -> str:
    """Seconds to every target: the median over the runs that reach it, and how many do."""
    known = sorted({target for run in runs for target in run.targets})
    rows = []
    for rule, some in by_speed(runs).items():
        cells = []
        for target in known:
            ends = [(run, crossing(run, target)) for run in some]
            found = [run.columns["train_seconds"][row] for run, row in ends if row is not None]
            reached = f"{len(found)} of {len(some)}"
            cells.append(short(interval(found)) + f" ({reached})" * (len(found) < len(some)) if found else reached)
        rows.append([f"`{rule}`", *cells])
    return markdown(["rule", *(f"seconds to {100 * target:.3g} %" for target in known)], rows)


def by_speed(runs: list[Run]) -> dict[str, list[Run]]:
    """The runs of every rule, by the rule's median training time."""
    rules: dict[str, list[Run]] = {}
    for run in runs:
        rules.setdefault(run.rule, []).append(run)
    return dict(sorted(rules.items(), key=lambda item: interval([r.final("train_seconds") for r in item[1]]).median))
