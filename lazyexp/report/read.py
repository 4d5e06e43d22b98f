"""Finding runs below folders and reading them, whatever state they are in.

A run is a folder with metrics.csv (one row per evaluation), summary.csv and run.json, as docs/csv.md says.
All figures are taken from metrics.csv; the other two tell the settings and how the run ended.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.config.run_id import NOT_IN_RUN_ID
from lazyexp.errors import UserError
from lazyexp.report.settings import flat_settings, plain_value, summary_settings
from lazyexp.runs.columns import COMPLETE, MEASURED
from lazyexp.runs.reader import read_columns, read_json, read_rows

# The cost of training, as in metrics.csv: seconds, three counts, and M1 (in units of weight).
MEASURES = ("train_seconds", "forward_samples", "backward_samples", "updates", "energy_l1")
REQUIRED = ("samples_seen", "test_accuracy", "train_seconds", "backward_samples", "updates", "forward_samples")
# Not settings of a comparison: who learns, the seed, places, and which crossings were noted down.
APART = (*NOT_IN_RUN_ID, "seed", "rule", "rule_options", "dataset.path", "dataset.mirror", "targets")


@dataclass(eq=False)
class Run:
    """One run. `settings` are flat and without rule, seed and places; `rows` are its evaluations, all numbers.

    `rule` is what the run calls its rule: `rule_label` if it has one.
    """

    folder: Path
    run_id: str
    rule: str
    options: str
    seed: int
    status: str
    settings: dict[str, Any]
    targets: tuple[float, ...]
    rows: pd.DataFrame
    versions: dict[str, str]
    concurrent: bool = False  # beside other runs on its machine
    train_size: float = math.nan  # training samples in use

    @property
    def complete(self) -> bool:
        """False if the run is going on or was cut off, so that a target not reached may still be reached."""
        return self.status in COMPLETE

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns of `rows`, ready to be looked up often."""
        return {name: self.rows[name].to_numpy() for name in self.rows}

    def final(self, column: str) -> float:
        """The last row's value, NaN if it was not measured."""
        return float(self.columns[column][-1])


@dataclass
class Found:
    """What there is below the given folders: usable runs, and the others with the reason."""

    runs: list[Run]
    broken: list[tuple[Path, str]]


def read_runs(folders: Iterable[Path]) -> Found:
    """All runs below `folders`, nested ones too, hidden folders apart. Never raises because of a bad run."""
    found = Found([], [])
    seen: set[Path] = set()
    for top in folders:
        if not top.is_dir():
            found.broken.append((top, "no such folder" if not top.exists() else "not a folder"))
            continue
        for folder in run_folders(top):
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            try:
                found.runs.append(read_run(folder))
            except UserError as error:
                found.broken.append((folder, str(error)))
            except Exception as error:  # a broken file can break any of the readers, and must not end the report
                found.broken.append((folder, f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"))
    _same_machine(found.runs)
    found.runs = _without_repetitions(found)
    return found


def run_folders(top: Path) -> list[Path]:
    """The folders of runs at or below `top`, sorted."""
    runs = []
    for folder, below, _ in os.walk(top):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if is_run(Path(folder)):
            runs.append(Path(folder))
    return runs


def is_run(folder: Path) -> bool:
    """True for a run's folder; a report's own folder has a summary.csv, but neither of these."""
    return (folder / "metrics.csv").is_file() or (folder / "run.json").is_file()


def read_run(folder: Path) -> Run:
    """One run from its files. Raises UserError if they are not those of a run."""
    columns = read_columns(folder / "metrics.csv")
    if not columns:
        raise UserError("no evaluation yet (metrics.csv is missing or empty)")
    rows = _numbers(columns)
    summary = (read_rows(folder / "summary.csv") or [{}])[0]
    facts = read_json(folder / "run.json")
    settings = flat_settings(facts["settings"]) if facts.get("settings") else summary_settings(summary)
    if "optimizer.lr" not in settings:
        raise UserError("neither run.json nor summary.csv tells the settings")
    constants = {key: values[0] for key, values in columns.items()}
    settings.update(
        device=re.sub(r":\d+$", "", constants.get("device") or "") or facts.get("device_type"),
        hardware=facts.get("device"),
        threads=facts.get("threads"),
        data=str((facts.get("data") or {}).get("sha256") or "")[:10] or None,
        batch_size=plain_value(constants.get("batch_size", settings.get("batch_size"))),
    )
    if settings.get("dataset.subset") not in (None, "", "matched", "random"):
        # A per-seed path of a run; what the seeds share is the name without its seed and hash.
        source = Path(str(settings["dataset.subset"])).parent.name
        settings["dataset.subset"] = re.sub(r"-s\d+-[0-9a-f]+$", "", source)
    return Run(
        folder=folder,
        run_id=constants.get("run_id") or folder.name,
        rule=str(settings.get("rule_label") or constants.get("rule") or settings["rule"]),
        options=str(settings.get("rule_options") or "{}"),
        seed=int(settings["seed"] if constants.get("seed") is None else constants["seed"]),
        status=summary.get("status") or "running",
        settings={key: value for key, value in sorted(settings.items()) if key not in APART},
        targets=tuple(json.loads(settings.get("targets") or "[]")),
        rows=rows,
        versions={**(facts.get("versions") or {}), "commit": str(facts.get("git_commit") or "unknown")[:10]},
        concurrent=bool(facts.get("concurrent")),
        train_size=float(constants.get("train_size") or math.nan),
    )


def _numbers(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """The measured columns as floats, NaN where nothing was measured. Raises UserError."""
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise UserError(f"metrics.csv lacks the columns {', '.join(missing)}")
    length = len(columns["samples_seen"])
    table = {c.name: np.array(columns.get(c.name, [math.nan] * length), dtype=float) for c in MEASURED}
    if any(np.isnan(table[column]).any() for column in ("samples_seen", "train_seconds")):
        raise UserError("metrics.csv has rows that are not numbers")
    return pd.DataFrame(table)


def _same_machine(runs: list[Run]) -> None:
    """Where run.json is lost, the machine is unknown; if all others ran on one, it is taken to be that one."""
    for key in ("hardware", "threads", "data"):
        for run in runs:
            if run.settings[key] is None:
                place = "dataset.name" if key == "data" else "device"
                like = [r for r in runs if r.settings.get(place) == run.settings.get(place)]
                known = {r.settings[key] for r in like} - {None}
                run.settings[key] = known.pop() if len(known) == 1 else None


def _without_repetitions(found: Found) -> list[Run]:
    """One run per settings, rule and seed: the one that got furthest. The others are named among the broken."""
    best: dict[tuple, Run] = {}
    for run in found.runs:
        key = (tuple(run.settings.items()), run.rule, run.options, run.seed)
        former = best.setdefault(key, run)
        if former is not run:
            better = max((former, run), key=lambda r: (r.complete, r.final("samples_seen")))
            worse = run if better is former else former
            best[key] = better
            found.broken.append((worse.folder, f"repeats {better.folder}; only one of them is used"))
    return list(best.values())
