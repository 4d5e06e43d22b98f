"""The final comparison: the chosen settings of several searches on all training samples, with fresh seeds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lazyexp.config.quoting import override
from lazyexp.report import BASELINE
from lazyexp.settings import settings_of
from lazyexp.tune.degenerate import selects_all
from lazyexp.tune.fronts import degenerate
from lazyexp.tune.lines import PRIMARY, Searched, choose_by_lines, read_searches
from lazyexp.tune.seeds import fresh_seeds, record_seeds
from lazyexp.tune.speedups import speedup_lines, speedups
from lazyexp.tune.trial import attempt
from lazyexp.utils.files import write_text

COLUMNS = ["point", "seed", "rule", "run_id", "status", "test_accuracy", "train_seconds", "selects_all"]


def finals(sources: Sequence[Path], folder: Path, seeds: int, margins: Sequence[float]) -> int:
    """Train the chosen settings of the searches `sources` with `seeds` seeds. Returns 1 if a run failed, else 0.

    The seeds are the outer loop and the order changes from seed to seed, so that all settings see the same machine.
    Writes chosen.csv (a row per search and line), finals.csv (a row per run) and speedups.csv.
    """
    searches = read_searches(sources)
    chosen = choose_by_lines(searches, margins)
    points = chosen.dropna(subset="point").drop_duplicates("point").sort_values("point")
    for words in points["words"]:
        settings_of(words)  # an error of the settings is reported before anything is trained
    fresh, skipped = fresh_seeds(sources, folder, seeds)
    texts = [shlex.join(words) if isinstance(words, list) else "" for words in chosen["words"]]
    write_text(folder / "chosen.csv", chosen.drop(columns="words").assign(overrides=texts).to_csv(index=False))
    record_seeds(sources, folder, fresh)
    print("\n".join(opening(searches, chosen, fresh, skipped)), flush=True)
    rows: list[dict[str, Any]] = []
    failed = False
    for seed in fresh:
        for number in range(len(points)):
            point = points.iloc[(number + seed) % len(points)]
            title = f"[{point['search']}, trial {point['trial']}, seed {seed}]"
            settings = {"seed": seed, "dataset.val_size": 0, "runs_dir": folder / "runs"}
            outcome = attempt([*point["words"], *(override(key, value) for key, value in settings.items())])
            if outcome.result is None:
                failed = True
                print(f"lazyexp-tune: {title}: failed: {outcome.error}", file=sys.stderr)
                continue
            row = {"point": point["point"], "seed": seed, "rule": point["rule"]}
            row |= {"run_id": outcome.result.folder.name, "status": outcome.result.status}
            summary = outcome.result.summary
            row |= {name: float(summary[name]) for name in ("test_accuracy", "train_seconds")}
            rows.append(row | {"selects_all": selects_all(summary)})
            print(f"{title}: {outcome.result.status}, {show(row)}", flush=True)
            write_text(folder / "finals.csv", pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False))
    if rows:
        table = speedups(chosen, pd.DataFrame(rows, columns=COLUMNS))
        write_text(folder / "speedups.csv", table.to_csv(index=False))
        print(summary_table(points, pd.DataFrame(rows)))
        print("\n".join(speedup_lines(table)))
        print(f"settings in {folder / 'chosen.csv'}, speedups in {folder / 'speedups.csv'}")
        print(f"for figures and test accuracy against seconds: lazyexp-report {folder / 'runs'}")
    return int(failed)


def opening(
    searches: Sequence[Searched], chosen: pd.DataFrame, seeds: Sequence[int], skipped: Sequence[int]
) -> list[str]:
    """What is compared: the credited trials, the lines and the seeds."""
    lines = [
        f"{search.name}: {number} of {search.number} trials selected all samples and count as {BASELINE}'s"
        for search in searches
        if (number := int(degenerate(search.trials).sum()))
    ]
    for margin, line in chosen[["margin", "line"]].drop_duplicates().itertuples(index=False):
        kind = "primary" if margin == PRIMARY else "exploratory"
        lines.append(
            f"line {margin:g} percentage points below {BASELINE}'s best: validation accuracy {line:.2%} ({kind})"
        )
    used = f"; not {', '.join(map(str, skipped))}, which trials or other finals used" if skipped else ""
    return [*lines, f"fresh seeds: {', '.join(map(str, seeds))}{used}"]


def show(measured: dict[str, Any]) -> str:
    """The figures of one run in a line."""
    return f"test accuracy {measured['test_accuracy']:.2%}, {measured['train_seconds']:.2f} s"


def summary_table(points: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Mean, lowest and highest test accuracy and the median seconds of every setting, most accurate first."""
    rows = rows.merge(points[["point", "search", "trial"]], on="point")
    groups = rows.groupby(["search", "trial"], sort=False)
    table = pd.DataFrame(
        {
            "runs": groups.size(),
            "test accuracy": groups["test_accuracy"].mean(),
            "lowest": groups["test_accuracy"].min(),
            "highest": groups["test_accuracy"].max(),
            "median seconds": groups["train_seconds"].median(),
        }
    ).sort_values("test accuracy", ascending=False)
    for name in ("test accuracy", "lowest", "highest"):
        table[name] = table[name].map("{:.2%}".format)
    table["median seconds"] = table["median seconds"].map("{:.2f}".format)
    return str(table.reset_index().to_string(index=False))
