"""Find run folders. Imports neither pandas nor torch, so that `lazyexp-report --list` is quick."""

from __future__ import annotations

import os
from pathlib import Path


def run_folders(top: Path) -> list[Path]:
    """List the run folders at or below `top`, sorted."""
    runs = []
    for folder, below, _ in os.walk(top):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if is_run(Path(folder)):
            runs.append(Path(folder))
    return runs


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / "metrics.csv").is_file() or (folder / "run.json").is_file()
