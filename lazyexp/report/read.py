"""Find runs below folders and read them, whatever their state.

A run is a folder with metrics.csv (one row per evaluation), summary.csv and run.json. All measurements come from
metrics.csv; the other two files contain the settings and how the run ended.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.errors import UserError
from lazyexp.report.folders import run_folders
from lazyexp.report.settings import NOT_COMPARED, flat_settings, plain_value, summary_settings
from lazyexp.runs.columns import COMPLETE, MEASURED
from lazyexp.runs.reader import read_columns, read_json, read_rows

# The cost of training, as in metrics.csv: seconds, three counts, and M1 (in units of weight).
MEASURES = ("train_seconds", "forward_samples", "backward_samples", "updates", "energy_l1")
FIGURES = tuple(column for column in MEASURED if column.kind is not str)
REQUIRED = ("samples_seen", "test_accuracy", "train_seconds", "backward_samples", "updates", "forward_samples")


@dataclass(eq=False)
class Run:
    """One run. `settings` are flat, without rule, seed and directories; `rows` are its evaluations, all numbers.

    `rule` is the name of the rule, or the run's `rule_label` if it has one. `options` is a JSON object of the rule's
    options, and of `packing.*` if samples are packed.
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
    concurrent: bool = False  # shared its machine with other runs
    train_size: float = math.nan  # training samples in use

    @property
    def complete(self) -> bool:
        """False while the run continues or if it was interrupted: a target not reached may still be reached."""
        return self.status in COMPLETE

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns of `rows` as arrays, for repeated access."""
        return dict(zip(self.rows.columns, np.ascontiguousarray(self.rows.to_numpy().T), strict=True))

    def final(self, column: str) -> float:
        """The last row's value, NaN if it was not measured."""
        return float(self.columns[column][-1])


@dataclass
class RunSet:
    """The runs below the given folders: readable ones, and the others with the reason."""

    runs: list[Run]
    broken: list[tuple[Path, str]]


def read_runs(folders: Iterable[Path]) -> RunSet:
    """Read all runs below `folders`, at any depth, without hidden folders. A damaged run never raises."""
    found = RunSet([], [])
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
            except Exception as error:  # a damaged file can break any reader and must not end the report
                found.broken.append((folder, f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"))
    _same_machine(found.runs)
    found.runs = _without_repetitions(found)
    return found


def read_run(folder: Path) -> Run:
    """Read one run. Raises UserError if the files are not those of a run."""
    columns = _trained(read_columns(folder / "metrics.csv"))
    if not columns:
        raise UserError("no evaluation yet (metrics.csv is missing or empty)")
    rows = _numbers(columns)
    summary = (read_rows(folder / "summary.csv") or [{}])[0]
    facts = read_json(folder / "run.json")
    settings = flat_settings(facts["settings"]) if facts.get("settings") else summary_settings(summary)
    if "optimizer.lr" not in settings:
        raise UserError("neither run.json nor summary.csv contains the settings")
    constants = {key: values[0] for key, values in columns.items()}
    settings.update(
        device=re.sub(r":\d+$", "", constants.get("device") or "") or facts.get("device_type"),
        hardware=facts.get("device"),
        threads=facts.get("threads"),
        data=str((facts.get("data") or {}).get("sha256") or "")[:10] or None,
        batch_size=plain_value(constants.get("batch_size", settings.get("batch_size"))),
    )
    if settings.get("dataset.subset") not in (None, "", "matched", "random"):
        # The path of a run of the same seed; seeds share its name without seed and hash.
        source = Path(str(settings["dataset.subset"])).parent.name
        settings["dataset.subset"] = re.sub(r"-s\d+-[0-9a-f]+$", "", source)
    if settings.get("model.features"):
        settings["model.features"] = re.sub(r"-s\d+-[0-9a-f]+$", "", Path(str(settings["model.features"])).name)
    # A rule is compared with its packing, as with its options: neither makes another setting for the other rules.
    packing = {key: settings.pop(key) for key in sorted(settings) if key.startswith("packing.")}
    options = json.loads(settings.get("rule_options") or "{}")
    if packing.get("packing.block_size"):
        options |= packing
    return Run(
        folder=folder,
        run_id=constants.get("run_id") or folder.name,
        rule=str(settings.get("rule_label") or constants.get("rule") or settings["rule"]),
        options=json.dumps(options),
        seed=int(settings["seed"] if constants.get("seed") is None else constants["seed"]),
        status=summary.get("status") or "running",
        settings={key: value for key, value in sorted(settings.items()) if key not in NOT_COMPARED},
        targets=tuple(json.loads(settings.get("targets") or "[]")),
        rows=rows,
        versions={**(facts.get("versions") or {}), "commit": str(facts.get("git_commit") or "unknown")[:10]},
        concurrent=bool(facts.get("concurrent")),
        train_size=float(constants.get("train_size") or math.nan),
    )


def _trained(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns without the row before training; none if there is no other row."""
    seen = columns.get("samples_seen")
    if seen is None or seen[0] != 0:
        return columns
    return {name: values[1:] for name, values in columns.items()} if len(seen) > 1 else {}


def _numbers(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """Convert the measured columns to floats, NaN where nothing was measured. Raises UserError."""
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise UserError(f"metrics.csv lacks the columns {', '.join(missing)}")
    length = len(columns["samples_seen"])
    table = {c.name: np.array(columns.get(c.name, [math.nan] * length), dtype=float) for c in FIGURES}
    if any(np.isnan(table[column]).any() for column in ("samples_seen", "train_seconds")):
        raise UserError("metrics.csv has rows that are not numbers")
    return pd.DataFrame(table)


def _same_machine(runs: list[Run]) -> None:
    """Without run.json the machine of a run is unknown: assume the one of the others if they share one."""
    for key in ("hardware", "threads", "data"):
        for run in runs:
            if run.settings[key] is None:
                same = "dataset.name" if key == "data" else "device"
                like = [r for r in runs if r.settings.get(same) == run.settings.get(same)]
                known = {r.settings[key] for r in like} - {None}
                run.settings[key] = known.pop() if len(known) == 1 else None


def _without_repetitions(found: RunSet) -> list[Run]:
    """Keep one run per settings, rule and seed: the one with the most samples. List the others as unused."""
    best: dict[tuple[Any, ...], Run] = {}
    for run in found.runs:
        key = (tuple(run.settings.items()), run.rule, run.options, run.seed)
        former = best.setdefault(key, run)
        if former is not run:
            better = max((former, run), key=lambda r: (r.complete, r.final("samples_seen")))
            worse = run if better is former else former
            best[key] = better
            found.broken.append((worse.folder, f"repeats {better.folder}; only one of the two is used"))
    return list(best.values())
