"""`lazyexp-report --list`: every run with its status, the settings that differ, accuracy and seconds.

Reads the last row of each run instead of all of them, and imports neither pandas nor torch: 500 runs take less than
a second. It never takes the lock of a run on a local disk, so that it can be used while a sweep runs.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazyexp.errors import UserError
from lazyexp.report.folders import run_folders
from lazyexp.report.formatting import setting
from lazyexp.report.select import select, selectable
from lazyexp.report.settings import NOT_COMPARED, flat_settings, summary_settings
from lazyexp.runs.columns import COMPLETE
from lazyexp.runs.reader import read_json, read_rows

TAIL = 8192  # bytes at the end of metrics.csv, more than its last row
REMOTE = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "cifs", "smb", "9p")
NEVER_SHOWN = ("data", "device_type", "hardware")


@dataclass(frozen=True)
class Entry:
    """One run as listed. `progress`: share of the schedule that is done, None if unknown."""

    folder: Path
    status: str
    rule: str
    options: str
    seed: int
    settings: dict[str, Any]
    accuracy: float | None
    seconds: float | None
    progress: float | None

    @property
    def seconds_left(self) -> float | None:
        """Training seconds left at the present speed, for a run that is running."""
        if self.status != "running" or not self.progress or self.seconds is None:
            return None
        return self.seconds * (1 - self.progress) / self.progress


def list_runs(folders: Iterable[Path], where: Iterable[str] = ()) -> str:
    """The table as text. Raises UserError if there is no run or none matches `where`."""
    locks = held_locks()
    found = list(dict.fromkeys(run for top in folders if top.is_dir() for run in run_folders(top)))
    entries = [entry for run in found if (entry := read_entry(run, locks))]
    if not entries:
        raise UserError("no run below the given folders; name the folder that runs were written to (runs_dir)")
    entries = select(
        entries, where, lambda one: selectable(one.rule, one.options, one.seed, one.status, one.settings)
    )
    return _text(entries)


def read_entry(folder: Path, locks: set[tuple[int, int]]) -> Entry | None:
    """Read one run, None if its files are damaged or it has not written any yet."""
    try:
        facts = read_json(folder / "run.json")
        summary = _only_row(folder / "summary.csv")
        last = _last_row(folder / "metrics.csv")
        if facts.get("settings"):
            settings = flat_settings(facts["settings"])
        else:
            settings = summary_settings((read_rows(folder / "summary.csv") or [{}])[0])
        rule = settings.get("rule_label") or last.get("rule") or settings.get("rule")
        if rule is None:
            return None
        epochs = settings.get("epochs")
        progress = float(last["epoch"]) / float(epochs) if last.get("epoch") and epochs else None
        return Entry(
            folder=folder,
            status=_status(folder, summary.get("status", ""), locks),
            rule=str(rule),
            options=str(settings.get("rule_options") or "{}"),
            seed=int(settings.get("seed", last.get("seed", 0))),
            settings={key: value for key, value in settings.items() if key not in NOT_COMPARED},
            accuracy=float(last["test_accuracy"]) if last.get("test_accuracy") else None,
            seconds=float(last["train_seconds"]) if last.get("train_seconds") else None,
            progress=None if progress is None else min(progress, 1.0),
        )
    except (UserError, ValueError, TypeError, KeyError, AttributeError, OSError):
        return None


def _only_row(path: Path) -> dict[str, str]:
    """The row of summary.csv as text, empty without one. Raises ValueError if it is damaged."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        lines = list(csv.reader(stream))
    return dict(zip(lines[0], lines[1], strict=True)) if len(lines) > 1 else {}


def _last_row(path: Path) -> dict[str, str]:
    """The last complete row of metrics.csv, empty without one."""
    try:
        with path.open("rb") as stream:
            head = stream.readline().decode("utf-8", "replace")
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(len(head), size - TAIL))
            lines = stream.read().decode("utf-8", "replace").split("\n")[:-1]
    except OSError:
        return {}
    if not lines:
        return {}
    names, values = next(csv.reader([head])), next(csv.reader([lines[-1]]))
    return dict(zip(names, values, strict=True)) if len(names) == len(values) else {}


def _status(folder: Path, status: str, locks: set[tuple[int, int]]) -> str:
    """`running` (a process works on it), `busy` (it is complete and being repeated), or how it ended."""
    locked = is_locked(folder / ".lock", locks)
    if status in COMPLETE:
        return "busy" if locked else status
    return "running" if locked else "interrupted"


def held_locks() -> set[tuple[int, int]]:
    """(device, inode) of every file locked on this machine, empty where the system does not list them."""
    found = set()
    try:
        for line in Path("/proc/locks").read_text().splitlines():
            major, minor, inode = next(word for word in line.split() if word.count(":") == 2).split(":")
            found.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
    except (OSError, ValueError, StopIteration):
        return set()
    return found


def is_locked(path: Path, locks: set[tuple[int, int]]) -> bool:
    """Whether a process holds the lock file, on this machine or, on a shared disk, on another."""
    try:
        stat = path.stat()
    except OSError:
        return False
    if (stat.st_dev, stat.st_ino) in locks:
        return True
    if Path("/proc/locks").exists() and not _is_remote(path):
        return False
    return _probe(path)


def _probe(path: Path) -> bool:
    """Try to share the lock for an instant: the one way to see locks of other machines."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(stream, fcntl.LOCK_UN)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _is_remote(path: Path) -> bool:
    """Whether the path is on a network file system."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    whole = str(path.resolve())
    under = [(len(point), kind) for point, kind in mounts if whole.startswith(point)]
    return bool(under) and max(under)[1].startswith(REMOTE)


def _text(entries: list[Entry]) -> str:
    """The table, aligned, with a line of totals."""
    settings = [one.settings | {f"rule.{k}": v for k, v in _options(one).items()} for one in entries]
    keys = [
        key
        for key in dict.fromkeys(key for one in settings for key in one)
        if key not in NEVER_SHOWN and len({str(one.get(key)) for one in settings if key in one}) > 1
    ]
    width = shutil.get_terminal_size().columns if os.isatty(1) else 0
    rows = [("status", "rule", "seed", "accuracy", "seconds", "left", "settings that differ")]
    for one, known in zip(entries, settings, strict=True):
        differ = ", ".join(setting(key, known[key]) for key in keys if key in known)
        accuracy = "" if one.accuracy is None else f"{one.accuracy:.2%}"
        seconds = "" if one.seconds is None else f"{one.seconds:.2f}"
        left = _left(one)
        rows.append((one.status, one.rule, str(one.seed), accuracy, seconds, left, differ))
    kept = [i for i in range(7) if i < 5 or any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in kept}
    lines = ["  ".join(row[i].ljust(widths[i]) for i in kept).rstrip() for row in rows]
    counts: dict[str, int] = {}
    for one in entries:
        counts[one.status] = counts.get(one.status, 0) + 1
    lines.append(f"{len(entries)} runs: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    return "\n".join(line if not width or len(line) <= width else f"{line[: width - 1]}…" for line in lines)


def _options(one: Entry) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(one.options or "{}")
    return options


def _left(one: Entry) -> str:
    if one.status == "running" and one.progress is not None:
        left = one.seconds_left
        return f"{one.progress:.0%} done" + ("" if left is None else f", {_duration(left)} left")
    if one.status == "interrupted" and one.progress is not None:
        return f"{one.progress:.0%} done"
    return ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
