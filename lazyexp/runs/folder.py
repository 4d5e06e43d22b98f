"""The folder of a run: locked while a process works on it, complete or not read as a result."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from lazyexp.errors import UserError
from lazyexp.runs import checkpoints, tables
from lazyexp.runs.columns import COMPLETE, REQUIRED
from lazyexp.runs.reader import read_json, read_rows
from lazyexp.runs.tables import CHECKED, REQUIRED_CHECKSUMS, sha256
from lazyexp.utils.files import atomic_write, fsync, make_folder

# Inside a run's folder: the folder in which overwrite=true repeats the run.
REPLACEMENT = ".replacement"
# No right to write. A full disk (ENOSPC) is not among them.
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class RunIsBusy(Exception):
    """Another process is working on this run."""


class RunFolder:
    """One run's folder. As a context manager it is locked against other processes.

    Args:
        path: The folder; its parent is `runs_dir`.
        constants: The constant columns of metrics.csv. Their `run_id` is the folder's name.

    Attributes:
        replaced: Whether `finished` has just completed a replacement that an earlier process had finished.
        notes: What was wrong with checkpoints that were not used.
    """

    def __init__(self, path: Path, constants: Mapping[str, Any]) -> None:
        run_id = constants.get("run_id", path.name)
        if path.name != run_id or run_id in ("", ".", "..") or any(sign in run_id for sign in "/\\\0"):
            raise UserError(f"run id {run_id!r}: must be the name of one folder; check the names of rule and dataset")
        self.path, self.constants = path, constants
        self.metrics, self.summary = path / "metrics.csv", path / "summary.csv"
        self._lock = FileLock(path / ".lock")
        self._read_only = False
        self.notes: list[str] = []
        self.replaced = False

    def __enter__(self) -> RunFolder:
        try:
            make_folder(self.path)
            self._lock.acquire(timeout=0)
            for leftover in self.path.glob(".*.tmp"):  # of a process that was killed while writing
                if leftover.is_file():
                    leftover.unlink(missing_ok=True)
        except Timeout:
            raise RunIsBusy(self.path) from None
        except (OSError, NotImplementedError) as error:  # filelock's word for file systems without locks
            number = error.errno if isinstance(error, OSError) else None
            self._read_only = number in READ_ONLY and self.read_summary().get("status") in COMPLETE
            if not self._read_only:
                self._lock.release()
                reason = getattr(error, "strerror", None) or error
                raise UserError(f"runs_dir: cannot write to {self.path}: {reason}; set runs_dir") from None
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def read_summary(self) -> dict[str, Any]:
        """Return the row of summary.csv, empty if there is none.

        Raises:
            UserError: It is damaged.
        """
        rows = read_rows(self.summary)
        if rows and not set(rows[0]) >= REQUIRED:
            raise UserError(f"{self.summary} is damaged (columns are missing); delete its folder to repeat the run")
        return rows[0] if rows else {}

    def finished(self) -> dict[str, Any]:
        """Return the row of summary.csv if the run is complete, after checking its files; else an empty dictionary.

        Raises:
            UserError: A file does not match its checksum.
        """
        replaced = not self._read_only and self.replace()
        summary = self.read_summary()
        if summary.get("status") not in COMPLETE:
            return {}
        for name, column in CHECKED.items():
            path = self.path / name
            if column not in summary and column not in REQUIRED_CHECKSUMS:
                continue  # of an older version
            if not path.exists() or sha256(path) != summary.get(column):
                raise UserError(
                    f"{path} does not match its checksum in {self.summary.name}; overwrite=true repeats the run"
                )
        if not self._read_only:
            self.drop_checkpoints()  # of a process that was killed right after its summary
        self.replaced = replaced
        return summary

    def replacement(self) -> RunFolder:
        """Return the folder in which the run is repeated, and resumed, while its former result stays.

        A folder inside this one: it is covered by this one's lock, and moving files one by one, the summary last,
        leaves the former or the new result after a kill. Renaming whole folders would leave neither for a moment.
        """
        if self._read_only:
            raise UserError(f"overwrite=true: cannot write to {self.path}; set runs_dir")
        inner = self._replacement()
        make_folder(inner.path)
        return inner

    def replace(self) -> bool:
        """Move a complete replacement over the former result. Returns whether there was one."""
        inner = self._replacement()
        if not self._is_complete(inner):
            return False
        self.summary.unlink(missing_ok=True)
        self.drop_checkpoints()
        for names in ((*CHECKED, "run.json"), ("summary.csv",)):  # a run with a summary has everything else
            for name in names:
                if (inner.path / name).exists():
                    os.replace(inner.path / name, self.path / name)
            fsync(self.path)
        shutil.rmtree(inner.path)
        return True

    def _is_complete(self, inner: RunFolder) -> bool:
        """Return whether all files of a replacement match their checksums, some of them perhaps moved already."""
        try:
            summary = inner.read_summary() if inner.summary.exists() else {}
            if summary.get("status") not in COMPLETE:
                return False
            paths = {name: inner.path / name for name in CHECKED}
            moved = {name: path if path.exists() else self.path / name for name, path in paths.items()}
            return all(
                sha256(moved[name]) == summary.get(column) for name, column in CHECKED.items() if column in summary
            )
        except (OSError, UserError):
            return False

    def _replacement(self) -> RunFolder:
        inner = RunFolder(self.path / REPLACEMENT, {})
        inner.constants = self.constants
        return inner

    def clear(self) -> None:
        """Delete all files of the run, so that it starts from the beginning."""
        self.summary.unlink(missing_ok=True)
        self.drop_checkpoints()
        for name in ("run.json", *CHECKED):
            (self.path / name).unlink(missing_ok=True)

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """As `checkpoints.load_checkpoint`; notes are kept in `notes`."""
        state, self.notes = checkpoints.load_checkpoint(self.path, device)
        return state

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """As `checkpoints.save_checkpoint`."""
        checkpoints.save_checkpoint(self.path, state)

    def drop_checkpoints(self) -> None:
        """Delete the checkpoints."""
        checkpoints.drop_checkpoints(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Append an evaluation to metrics.csv."""
        tables.append_row(self.metrics, {**self.constants, **row})

    def write_summary(
        self,
        settings: Mapping[str, Any],
        targets: Sequence[float],
        status: str,
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """As `tables.write_summary`."""
        return tables.write_summary(self.path, self.constants, settings, targets, status, more)

    def write_json(self, facts: Mapping[str, Any]) -> None:
        """Write run.json."""
        content = json.dumps(facts, indent=2).encode() + b"\n"
        atomic_write(self.path / "run.json", lambda stream: stream.write(content))

    def read_json(self) -> dict[str, Any]:
        """Return the content of run.json, empty if no run can have written it."""
        content = read_json(self.path / "run.json")
        try:
            sessions = [*content.get("sessions", []), content]
            valid = all(isinstance(one.get("versions", {}), dict) for one in sessions)
        except (AttributeError, TypeError):
            return {}
        return content if valid else {}

    def write_learned(self, arrays: Mapping[str, Any]) -> None:
        """Write learned.npz."""
        atomic_write(self.path / "learned.npz", lambda stream: np.savez_compressed(stream, **arrays))

    def write_predictions(self, arrays: Mapping[str, Any]) -> None:
        """Write predictions.npz."""
        atomic_write(self.path / "predictions.npz", lambda stream: np.savez_compressed(stream, **arrays))

    def write_model(self, state: Mapping[str, Any]) -> None:
        """Write model.pt."""
        atomic_write(self.path / "model.pt", lambda stream: torch.save(dict(state), stream))
