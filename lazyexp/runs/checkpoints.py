"""Checkpoints: the newest one, and the one before in case that power fails while the newest is written."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import torch

from lazyexp.errors import UserError
from lazyexp.runs.columns import COLUMNS
from lazyexp.runs.tables import csv_line
from lazyexp.utils.files import atomic_write, fsync

CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")  # the newest one first


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Save a state together with a checksum of the rows so far, which are forced to disk before."""
    metrics = folder / "metrics.csv"
    rows = metrics.read_bytes() if metrics.exists() else b""
    state = {**state, "metrics_crc32": zlib.crc32(rows)}
    newest, former = (folder / name for name in CHECKPOINTS)
    if metrics.exists():
        fsync(metrics)
    if newest.exists():
        os.replace(newest, former)
    atomic_write(newest, lambda stream: torch.save(state, stream))


def load_checkpoint(folder: Path, device: torch.device) -> tuple[dict[str, Any] | None, list[str]]:
    """Load the newest usable checkpoint, and truncate metrics.csv to the rows written before it.

    Returns:
        The state, None if there is no checkpoint; and what was wrong with newer checkpoints.

    Raises:
        UserError: There are checkpoints and none of them is usable.
    """
    problems: list[UserError] = []
    for path in (folder / name for name in CHECKPOINTS):
        if not path.exists():
            continue
        try:
            state = _load(path, folder / "metrics.csv", device)
        except UserError as error:
            problems.append(error)
        else:
            return state, [f"{problem}; continuing from {path.name}" for problem in problems]
    if problems:
        raise problems[0]
    return None, []


def drop_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a folder."""
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)


def _load(path: Path, metrics: Path, device: torch.device) -> dict[str, Any]:
    folder = path.parent
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        rows, crc32 = int(state["progress"]["rows"]), int(state["metrics_crc32"])
        lines = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
    except Exception as error:  # torch.load raises all kinds of exceptions for damaged files
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} cannot be read ({reason}); delete it to start the run again") from None
    if rows and len(lines) < rows + 1:
        raise UserError(f"{metrics} has fewer rows than {path} counts; delete {path} to start the run again")
    kept = lines[: rows + 1] if rows else []
    if zlib.crc32(b"".join(kept)) != crc32:
        raise UserError(f"{metrics} does not match its checksum in {path}; delete {folder} to start the run again")
    if kept and kept[0] != csv_line(COLUMNS):
        raise UserError(f"{metrics} has the columns of another version; delete {folder} to start the run again")
    atomic_write(metrics, lambda stream: stream.writelines(kept))
    return state
