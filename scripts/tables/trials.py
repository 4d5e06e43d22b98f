"""Tables of a comparison with equal trials.

A folder holds the searches of every rule (FOLDER/RULE/trials.csv, or FOLDER/RULE-1 and so on for several of them)
and FOLDER/finals: the chosen settings with fresh seeds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from lazyexp.rules import make_rule
from lazyexp.tune.lines import PRIMARY
from lazyexp.tune.speedups import cells, explained
from tables.report import (
    Comparison,
    Configuration,
    comparisons,
    markdown,
    read_runs,
    within_table,
)

# Columns of finals.csv: the settings that differ between finals, and the final figures.
COLUMNS = ["run_id", "rule", "rule_options", "seed", "epochs", "batch_size"]
COLUMNS += [
    "packing.block_size",
    "packing.precision",
    "optimizer.name",
    "lr",
    "optimizer.momentum",
    "optimizer.schedule",
    "optimizer.reduction",
]
COLUMNS += ["train_seconds", "test_accuracy", "forward_samples", "backward_samples", "updates"]
# Entries of run.json in about.json.
MADE_WITH = ("versions", "device", "threads", "git_commit")


def trials(folder: Path, output: Path) -> dict[str, str]:
    """Write finals.csv, speedups.csv, chosen.csv, within.csv, about.json and the trials of every search;
    return the tables."""
    runs = read_runs([folder / "finals"]).runs
    (comparison,) = comparisons(runs)
    rows = [pd.read_csv(run.folder / "summary.csv").iloc[0] for run in runs]
    table = pd.DataFrame(rows).assign(rule=[run.rule for run in runs])
    table = table[[name for name in COLUMNS if name in table]]
    table.sort_values(["rule", "run_id"]).to_csv(output / "finals.csv", index=False)
    within_table([comparison]).to_csv(output / "within.csv", index=False)
    searches = sorted(path.parent for path in folder.glob("*/trials.csv"))
    for search in searches:
        shutil.copyfile(search / "trials.csv", output / f"{search.name}.csv")
    facts = json.loads((runs[0].folder / "run.json").read_text())
    about = {
        "finals": {key: facts[key] for key in MADE_WITH if key in facts},
        "searches": {search.name: json.loads((search / "about.json").read_text()) for search in searches},
    }
    (output / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    for name in ("chosen.csv", "speedups.csv"):
        shutil.copyfile(folder / "finals" / name, output / name)
    found = {"speedups": speedups(pd.read_csv(output / "speedups.csv"))}
    return found | {"finals": finals(comparison)}


def speedups(table: pd.DataFrame) -> str:
    """Speedups at lines below backprop's best validation accuracy: the primary one, then the exploratory ones."""
    rows, columns = [], ["points below"]
    for margin, at_line in table.groupby("margin", sort=False):
        kind = "primary" if margin == PRIMARY else "exploratory"
        for _, row in at_line.sort_values("seconds").iterrows():
            texts = cells(row)
            columns = ["points below", *texts]
            rows.append([f"{margin:g} ({kind})", f"`{texts.pop('rule')}`", *texts.values()])
    return "\n\n".join([markdown(columns, rows), *(f"{text[0].upper()}{text[1:]}." for text in explained(table))])


def finals(comparison: Comparison) -> str:
    """All finals, fastest first: medians (and ranges) over seeds."""
    columns = ["rule", "settings", "test accuracy %", "seconds", "forward passes", "selected", "updates"]
    rows = []
    for rule, some in comparison.rules.items():
        for final in some:
            counts = [f"{final.median(name):,.0f}" for name in ("forward_samples", "backward_samples", "updates")]
            cells = [f"`{rule}`", settings(final), accuracy(final), seconds(final), *counts]
            rows.append((final.median("train_seconds"), cells))
    return markdown(columns, [cells for _, cells in sorted(rows)])


def accuracy(final: Configuration) -> str:
    return _range(100 * np.array([run.final("test_accuracy") for run in final.runs]))


def seconds(final: Configuration) -> str:
    return _range(np.array([run.final("train_seconds") for run in final.runs]))


def _range(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


def settings(final: Configuration) -> str:
    """The chosen settings as a phrase."""
    run = final.runs[0]
    known = run.settings
    name, momentum = known["optimizer.name"], known.get("optimizer.momentum")
    optimizer = {"sgd": f"momentum {momentum:g}" if momentum else "SGD", "adam": "Adam"}.get(name, name)
    parts = [f"{known['epochs']} epochs", f"batch {known['batch_size']}", optimizer]
    parts.append(f"lr {known['optimizer.lr']:g} {known['optimizer.schedule']}")
    if known.get("optimizer.reduction") == "selected":
        parts.append("reduction selected")
    rule = json.loads((run.folder / "run.json").read_text())["settings"]["rule"]["name"]  # run.rule may be a label
    defaults = make_rule({"name": rule})
    for key, value in json.loads(run.options).items():
        if key.startswith("packing.") or value != getattr(defaults, key):
            parts.append(f"{key.removeprefix('packing.')} {value}")
    return ", ".join(parts)
