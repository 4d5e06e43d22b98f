"""The final comparison: the chosen points of several searches on all training samples, with fresh seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lazyexp.config.quoting import override
from lazyexp.errors import UserError
from lazyexp.settings import settings_of
from lazyexp.tune.fronts import COLUMNS, choose, read_trials, split_overrides
from lazyexp.tune.trial import attempt
from lazyexp.utils.files import write_text

# Seeds that no search uses for its trials.
FIRST_SEED = 100


def finals(sources: Sequence[Path], folder: Path, seeds: int, slack: Sequence[float]) -> int:
    """Train the chosen points of the searches `sources` with `seeds` seeds. Returns 1 if a run failed, else 0.

    The seeds are the outer loop and the order changes from seed to seed, so that all points see the same machine.
    """
    table = chosen_points(sources, slack)
    write_text(folder / "chosen.csv", table.drop(columns="words").to_csv(index=False))
    for words in table["words"]:
        settings_of(words)  # an error of the settings is reported before anything is trained
    rows: list[dict[str, Any]] = []
    failed = False
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for number in range(len(table)):
            row = table.iloc[(number + seed) % len(table)]
            settings = {"seed": seed, "dataset.val_size": 0, "runs_dir": folder / "runs"}
            words = [*row["words"], *(override(key, value) for key, value in settings.items())]
            title = f"[{row['search']}, trial {row['trial']}, seed {seed}]"
            outcome = attempt(words)
            if outcome.result is None:
                failed = True
                print(f"lazyexp-tune: {title}: failed: {outcome.error}", file=sys.stderr)
                continue
            summary = outcome.result.summary
            measured = {name: float(summary[name]) for name in ("test_accuracy", "train_seconds")}
            print(f"{title}: {outcome.result.status}, {show(measured)}", flush=True)
            rows.append({"search": row["search"], "trial": row["trial"], **measured})
    if rows:
        print(summary_table(pd.DataFrame(rows)))
        print(f"settings in {folder / 'chosen.csv'}; for figures and intervals: lazyexp-report {folder / 'runs'}")
    return int(failed)


def show(measured: dict[str, float]) -> str:
    """The figures of one run in a line."""
    return f"test accuracy {measured['test_accuracy']:.2%}, {measured['train_seconds']:.2f} s"


def chosen_points(sources: Sequence[Path], slack: Sequence[float]) -> pd.DataFrame:
    """The chosen trials of all searches, with their overrides as a list in the column `words`. Raises UserError."""
    if not sources:
        raise UserError("--finals: name the folders of at least one search")
    names = [source.name for source in sources]
    chosen = []
    for source, name in zip(sources, names, strict=True):
        trials = read_trials(source, COLUMNS)
        points = choose(trials, slack)
        if not len(points):
            raise UserError(f"{source}: no trial was completed")
        name = name if names.count(name) == 1 else str(source)
        complete = int((trials["state"] == "complete").sum())
        chosen.append(points.assign(search=name, trials=complete))
    table = pd.concat(chosen, ignore_index=True)
    where = table["search"].tolist()
    table["words"] = [split_overrides(text, name) for text, name in zip(table["overrides"], where, strict=True)]
    return table


def summary_table(rows: pd.DataFrame) -> str:
    """Mean, lowest and highest test accuracy and the median seconds of every point, most accurate first."""
    points = rows.groupby(["search", "trial"], sort=False)
    table = pd.DataFrame(
        {
            "runs": points.size(),
            "test accuracy": points["test_accuracy"].mean(),
            "lowest": points["test_accuracy"].min(),
            "highest": points["test_accuracy"].max(),
            "median seconds": points["train_seconds"].median(),
        }
    ).sort_values("test accuracy", ascending=False)
    for name in ("test accuracy", "lowest", "highest"):
        table[name] = table[name].map("{:.2%}".format)
    table["median seconds"] = table["median seconds"].map("{:.2f}".format)
    return str(table.reset_index().to_string(index=False))
