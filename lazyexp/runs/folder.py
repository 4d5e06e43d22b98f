"""The files of a run: written so that nothing finished is lost and nothing half-written is read as a result."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from lazyexp.config.schema import Settings
from lazyexp.errors import UserError
from lazyexp.runs.columns import COMPLETE, CONSTANT, CROSSING, MEASURED
from lazyexp.runs.reader import read_json, read_rows
from lazyexp.utils.files import atomic_write, fsync, make_folder

COLUMNS = tuple(column.name for column in (*CONSTANT, *MEASURED))
# What the row of every finished run has, whichever version made it.
EVER = {"status", *(column.name for column in (*CONSTANT, *MEASURED) if not column.later)}
# The newest one first; the other is what a run goes on from if power fails while the newest is written.
CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")
# Files whose checksums stand in summary.csv, and in which column.
CHECKED = {"metrics.csv": "metrics_sha256", "learned.npz": "learned_sha256", "model.pt": "model_sha256"}
# A run that is done again with overwrite=true is done in this folder within its own.
REPLACEMENT = ".replacement"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _csv_line(values: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if value is None else value for value in values])
    # Paths may hold bytes that are no text; they come back as they were.
    return text.getvalue().encode("utf-8", "surrogateescape")


class RunFolder:
    """One run's folder. Use it as a context manager: it is locked against other processes meanwhile."""

    def __init__(self, path: Path, constants: dict[str, Any]) -> None:
        self.path, self.constants = path, constants
        self.metrics, self.summary = path / "metrics.csv", path / "summary.csv"
        self._lock = FileLock(path / ".lock")
        self.notes: list[str] = []
        self.redone = False  # whether a result stands here that `overwrite` asked for and had no time to put in place

    def __enter__(self) -> RunFolder:
        try:
            make_folder(self.path)
            self._lock.acquire(timeout=0)
            for left_over in self.path.glob(".*.tmp"):  # of a process that was killed while writing
                left_over.unlink(missing_ok=True)
        except Timeout:
            raise RunIsBusy(self.path) from None
        except OSError as error:
            raise UserError(
                f"runs_dir: cannot write into {self.path}: {error.strerror or error}; set runs_dir"
            ) from None
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def read_summary(self) -> dict[str, Any]:
        """The row of summary.csv, empty if there is none. Raises UserError if it is damaged."""
        rows = read_rows(self.summary)
        if rows and not set(rows[0]) >= EVER:
            raise UserError(f"{self.summary} is damaged (columns are missing); delete its folder to do the run again")
        return rows[0] if rows else {}

    def finished(self) -> dict[str, Any]:
        """The row of summary.csv if the run was finished, checked against the files it speaks of; else empty.

        Raises UserError if one of them is not as it was written.
        """
        redone = self._complete_replacement()
        summary = self.read_summary()
        if summary.get("status") not in COMPLETE:
            return {}
        for name, column in CHECKED.items():
            path = self.path / name
            if not path.exists() or _sha256(path) != summary.get(column):
                raise UserError(
                    f"{path} is not as {self.summary.name} has seen it; overwrite=true does the run again"
                )
        self.drop_checkpoints()  # left by a run that was killed right after its summary
        self.redone = redone
        return summary

    def replacement(self) -> RunFolder:
        """Where the run is done again while its former result stays; a started one is continued there."""
        beside = RunFolder(self.path / REPLACEMENT, self.constants)
        make_folder(beside.path)
        return beside

    def replace(self) -> None:
        """Puts the finished replacement in the place of the former result; a kill in between loses neither."""
        self._complete_replacement()

    def _complete_replacement(self) -> bool:
        """Puts a complete replacement in its place. Returns whether there was one."""
        beside = RunFolder(self.path / REPLACEMENT, self.constants)
        if not beside.summary.exists() or beside.read_summary().get("status") not in COMPLETE:
            return False
        self.summary.unlink(missing_ok=True)
        self.drop_checkpoints()
        for names in ((*CHECKED, "run.json"), ("summary.csv",)):  # the summary last: it stands for all the others
            for name in names:
                if (beside.path / name).exists():
                    os.replace(beside.path / name, self.path / name)
            fsync(self.path)
        shutil.rmtree(beside.path)
        return True

    def clear(self) -> None:
        """Forgets everything that was here, so that the run starts anew."""
        self.summary.unlink(missing_ok=True)
        for name in (*CHECKPOINTS, "metrics.csv", "run.json", "learned.npz", "model.pt"):
            (self.path / name).unlink(missing_ok=True)

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """The state to continue from, with metrics.csv cut back to the rows written before it.

        The newest checkpoint that can be read and whose rows are still there; `notes` says what was wrong with a
        newer one. Raises UserError if there are checkpoints and none of them is usable.
        """
        found = [self.path / name for name in CHECKPOINTS if (self.path / name).exists()]
        problems = []
        for path in found:
            try:
                state = self._load_checkpoint(path, device)
            except UserError as error:
                problems.append(error)
                continue
            self.notes += [f"{problem}; going on from {path.name}" for problem in problems]
            return state
        if problems:
            raise problems[0]
        return None

    def _load_checkpoint(self, path: Path, device: torch.device) -> dict[str, Any]:
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            rows, crc32 = int(state["progress"]["rows"]), int(state["metrics_crc32"])
        except Exception as error:
            raise UserError(
                f"{path} cannot be read ({' '.join(str(error).split())[:120]}); delete it to start the run anew"
            ) from None
        lines = self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.exists() else []
        if rows and len(lines) < rows + 1:
            raise UserError(f"{self.metrics} has lost rows that {path} has seen; delete {path} to start the run anew")
        kept = lines[: rows + 1] if rows else []
        if zlib.crc32(b"".join(kept)) != crc32:
            raise UserError(f"{self.metrics} is not as {path} has seen it; delete {self.path} to start the run anew")
        if kept and kept[0] != _csv_line(list(COLUMNS)):
            raise UserError(f"{self.metrics} was begun by a version with other columns; delete {self.path}")
        atomic_write(self.metrics, lambda stream: stream.writelines(kept))
        return state

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        rows = self.metrics.read_bytes() if self.metrics.exists() else b""
        state = {**state, "metrics_crc32": zlib.crc32(rows)}
        newest, former = (self.path / name for name in CHECKPOINTS)
        if self.metrics.exists():
            fsync(self.metrics)
        if newest.exists():
            os.replace(newest, former)
        atomic_write(newest, lambda stream: torch.save(state, stream))

    def append(self, row: dict[str, Any]) -> None:
        """Adds an evaluation to metrics.csv; it is in the file when this returns."""
        new = not self.metrics.exists() or self.metrics.stat().st_size == 0
        values = {**self.constants, **row}
        line = _csv_line([values[column] for column in COLUMNS])
        with self.metrics.open("ab", buffering=0) as stream:
            size = stream.tell()
            try:
                content = _csv_line(list(COLUMNS)) + line if new else line
                if stream.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics))
            except OSError:
                stream.truncate(size)  # a full disk may have taken a part of the row
                raise

    def write_summary(self, config: Settings, status: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
        """summary.csv from the rows of metrics.csv, with checksums of the other files, and `more` columns.

        Returns its one row.
        """
        rows = read_rows(self.metrics)
        if self.metrics.exists():
            fsync(self.metrics)
        summary: dict[str, Any] = {**dict.fromkeys(COLUMNS), **self.constants, **(rows[-1] if rows else {})}
        summary.update(settings(config))
        accuracies = [row["test_accuracy"] for row in rows]
        summary["best_test_accuracy"] = max(accuracies, default=None)
        summary["status"] = status
        summary.update(more or {})
        for target in config.targets or []:
            reached = (row for row, value in zip(rows, accuracies, strict=True) if value >= target)
            crossing = next(reached, {})
            for name, column in CROSSING.items():
                summary[f"{name}_to_{target:g}"] = crossing.get(column)
        for name, column in CHECKED.items():
            summary[column] = _sha256(self.path / name) if (self.path / name).exists() else None
        content = _csv_line(list(summary)) + _csv_line(list(summary.values()))
        atomic_write(self.summary, lambda stream: stream.write(content))
        return summary

    def write_json(self, facts: dict[str, Any]) -> None:
        content = json.dumps(facts, indent=2).encode() + b"\n"
        atomic_write(self.path / "run.json", lambda stream: stream.write(content))

    def read_json(self) -> dict[str, Any]:
        """The content of run.json, empty if it is not what a run has written."""
        content = read_json(self.path / "run.json")
        try:
            sessions = [*content.get("sessions", []), content]
            whole = all(isinstance(one.get("versions", {}), dict) for one in sessions)
        except (AttributeError, TypeError):
            return {}
        return content if whole else {}

    def write_learned(self, arrays: dict[str, Any]) -> None:
        atomic_write(self.path / "learned.npz", lambda stream: np.savez_compressed(stream, **arrays))

    def write_model(self, state: dict[str, Any]) -> None:
        atomic_write(self.path / "model.pt", lambda stream: torch.save(state, stream))

    def drop_checkpoints(self) -> None:
        for name in CHECKPOINTS:
            (self.path / name).unlink(missing_ok=True)


class RunIsBusy(Exception):
    """Another process is working on this run."""


def settings(config: Settings) -> dict[str, Any]:
    """The settings of a run that are not among the constant columns, flat, for summary.csv."""
    flat: dict[str, Any] = {}
    for key, value in asdict(config).items():
        if key == "rule":
            options = {name: option for name, option in value.items() if name != "name"}
            flat["rule_options"] = json.dumps(options, sort_keys=True)
        elif isinstance(value, dict):
            for name, entry in value.items():
                flat[f"{key}.{name}"] = json.dumps(entry, sort_keys=True) if isinstance(entry, dict) else entry
        elif key not in ("seed", "batch_size", "device", "runs_dir", "data_dir", "overwrite", "tracker"):
            flat[key] = json.dumps(value) if isinstance(value, list) else value
    return flat
