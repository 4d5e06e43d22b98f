"""Writing metrics.csv and summary.csv."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lazyexp.runs.columns import COLUMNS, CROSSING
from lazyexp.runs.reader import read_rows
from lazyexp.utils.files import atomic_write, fsync

# Files with a checksum in summary.csv, and the column that holds it.
CHECKED = {
    "metrics.csv": "metrics_sha256",
    "learned.npz": "learned_sha256",
    "model.pt": "model_sha256",
    "predictions.npz": "predictions_sha256",
}
# Those that every version has written.
REQUIRED_CHECKSUMS = ("metrics_sha256", "learned_sha256", "model_sha256")
# Settings that are constant columns, or do not belong to a result.
NOT_IN_SUMMARY = ("seed", "batch_size", "device", "runs_dir", "data_dir", "overwrite", "tracker")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def csv_line(values: Iterable[Any]) -> bytes:
    """Return one line of a CSV file; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if value is None else value for value in values])
    # Paths may hold bytes that are not valid text; they are written as they were.
    return text.getvalue().encode("utf-8", "surrogateescape")


def append_row(path: Path, values: Mapping[str, Any]) -> None:
    """Append an evaluation to metrics.csv, with one write.

    Raises:
        OSError: The row could not be written as a whole; the file is as before.
    """
    new = not path.exists() or path.stat().st_size == 0
    line = csv_line(values[column] for column in COLUMNS)
    content = csv_line(COLUMNS) + line if new else line
    with path.open("ab", buffering=0) as stream:
        size = stream.tell()
        try:
            if stream.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError as error:
            stream.truncate(size)  # a full disk may have accepted a part of the row
            error.filename = error.filename or str(path)
            raise


def write_summary(
    folder: Path,
    constants: Mapping[str, Any],
    settings: Mapping[str, Any],
    targets: Sequence[float],
    status: str,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write summary.csv from the rows of metrics.csv.

    Args:
        folder: The run's folder, with the other files in it, whose checksums are taken.
        constants: The constant columns.
        settings: All settings of the run, nested.
        targets: Test accuracies whose first crossing is looked up.
        status: How the run ended.
        more: Further columns.

    Returns:
        The one row of summary.csv.
    """
    metrics = folder / "metrics.csv"
    rows = read_rows(metrics)
    if metrics.exists():
        fsync(metrics)
    summary: dict[str, Any] = {**dict.fromkeys(COLUMNS), **constants, **(rows[-1] if rows else {})}
    summary.update(flat_settings(settings))
    rows = [row for row in rows if row.get("samples_seen")]  # an untrained network reaches no target
    accuracies = [row["test_accuracy"] for row in rows]
    summary["best_test_accuracy"] = max(accuracies, default=None)
    summary["status"] = status
    summary.update(more or {})
    for target in targets:
        reached = (row for row, value in zip(rows, accuracies, strict=True) if value >= target)
        crossing = next(reached, {})
        for name, column in CROSSING.items():
            summary[f"{name}_to_{target:g}"] = crossing.get(column)
    for name, column in CHECKED.items():
        summary[column] = sha256(folder / name) if (folder / name).exists() else None
    content = csv_line(summary) + csv_line(summary.values())
    atomic_write(folder / "summary.csv", lambda stream: stream.write(content))
    return summary


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are not constant columns, with dotted names, as summary.csv has them."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "rule":
            options = {name: option for name, option in value.items() if name != "name"}
            flat["rule_options"] = json.dumps(options, sort_keys=True)
        elif isinstance(value, dict):
            for name, entry in value.items():
                flat[f"{key}.{name}"] = (
                    json.dumps(entry, sort_keys=True) if isinstance(entry, (dict, list)) else entry
                )
        elif key not in NOT_IN_SUMMARY:
            flat[key] = json.dumps(value) if isinstance(value, list) else value
    return flat
