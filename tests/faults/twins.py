"""Small runs of every kind, and the comparison of a disturbed run with its undisturbed twin."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lazyexp.config.schema import Config, Settings
from lazyexp.config.validation import check
from lazyexp.runs.checkpoints import CHECKPOINTS
from lazyexp.runs.columns import COMPLETE
from lazyexp.runs.tables import CHECKED

# (rule, its options or packing.block_size, engine, batch size, optimizer, momentum): all rules, engines, optimizers.
CASES = [
    ("backprop", {}, "autograd", 8, "adam", 0.0),
    ("lazy", {}, "fast", 1, "sgd", 0.0),
    ("confidence", {"threshold": 0.8}, "auto", 8, "sgd", 0.0),
    ("backprop", {}, "fast", 1, "sgd", 0.0),
    ("random", {"window": 100}, "auto", 1, "sgd", 0.0),
    ("mistake_gated", {}, "fast", 64, "sgd", 0.9),
    ("progressive", {}, "auto", 8, "adamw", 0.0),
    ("spaced", {"max_interval": 2}, "auto", 8, "sgd", 0.0),
    ("lazy", {"block_size": 64}, "auto", 8, "sgd", 0.0),
    ("top_loss", {}, "autograd", 16, "sgd", 0.9),
    ("selective_backprop", {}, "auto", 8, "sgd", 0.0),
    ("infobatch", {}, "fast", 16, "sgd", 0.0),
    ("kakurenbo", {}, "auto", 16, "sgd", 0.0),
    ("composer_selective_backprop", {"begin": 0.0}, "auto", 8, "sgd", 0.0),
    ("early_stopping", {"threshold": 0.1, "average": 1}, "auto", 16, "sgd", 0.0),
    ("evolved_sampling", {"anneal": 0.0}, "auto", 16, "sgd", 0.0),
    ("order_dp", {}, "auto", 8, "sgd", 0.0),
    ("smrd", {}, "auto", 8, "sgd", 0.0),
    ("srd", {"decay": 0.8}, "auto", 8, "sgd", 0.0),
    ("seta", {}, "auto", 8, "sgd", 0.0),
    ("bls", {}, "auto", 16, "sgd", 0.0),
    ("repb", {}, "auto", 8, "sgd", 0.0),
    ("rho_loss", {"keep": 0.5}, "auto", 16, "sgd", 0.0),
]


def settings(case: tuple, runs_dir: Path, overwrite: bool = False) -> Settings:
    rule, options, engine, batch_size, optimizer, momentum = case
    options = dict(options)
    block_size = options.pop("block_size", 0)
    config = Config(
        epochs=3, eval_every=150, batch_size=batch_size, engine=engine, device="cpu", checkpoint_every=0,
        runs_dir=str(runs_dir), rule={"name": rule, **options}, overwrite=overwrite,
    )  # fmt: skip
    config.model.width, config.dataset.train_size, config.packing.block_size = 24, 700, block_size
    config.optimizer.name, config.optimizer.momentum, config.optimizer.schedule = optimizer, momentum, "linear"
    return check(config)


def only(folder: Path) -> Path | None:
    """The only run in `folder`, None if it has not been started."""
    runs = [path for path in folder.iterdir() if path.is_dir()] if folder.exists() else []
    return runs[0] if runs else None


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def timeless(path: Path) -> list[dict[str, str]]:
    clocked = ("seconds", "metrics_sha256")  # the checksum covers seconds
    return [{k: v for k, v in row.items() if not any(word in k for word in clocked)} for row in rows(path)]


def status(folder: Path | None) -> str:
    """The status in summary.csv, empty if there is none."""
    path = folder / "summary.csv" if folder else None
    return rows(path)[0]["status"] if path and path.exists() else ""


def saved_rows(folder: Path | None) -> int:
    """The rows before the newest checkpoint of the run in `folder`; more than any number if it is complete."""
    if folder is None:
        return 0
    if status(folder) in COMPLETE:
        return sys.maxsize
    for path in (folder / name for name in CHECKPOINTS):
        if path.exists():
            return int(torch.load(path, weights_only=True)["progress"]["rows"])
    return 0


def torn(folder: Path, twin: Path) -> Iterator[str]:
    """Yield what is torn or wrong in the folder of a disturbed run, and whether it is wrongly called complete."""
    if (folder / "metrics.csv").exists():
        text = (folder / "metrics.csv").read_text()
        if text and not text.endswith("\n"):
            yield "metrics.csv ends in a torn line"
        found, right = timeless(folder / "metrics.csv"), timeless(twin / "metrics.csv")
        if found != right[: len(found)]:
            yield "metrics.csv has rows that differ from the twin's"
    readers = {
        "summary.csv": rows,
        "run.json": lambda path: json.loads(path.read_text()),
        "learned.npz": lambda path: dict(np.load(path, allow_pickle=False)),
        "model.pt": lambda path: torch.load(path, weights_only=True),
        **dict.fromkeys(CHECKPOINTS, lambda path: torch.load(path, weights_only=True)),
    }
    for name, read in readers.items():
        if (folder / name).exists():
            try:
                read(folder / name)
            except Exception as error:
                yield f"{name} is torn: {error}"
    if status(folder) in COMPLETE:
        yield from (f"falsely complete: {difference}" for difference in different(folder, twin))


def different(folder: Path, twin: Path) -> Iterator[str]:
    """Yield how the files of a finished run differ from its twin's."""
    for name in ("metrics.csv", "summary.csv"):
        if timeless(folder / name) != timeless(twin / name):
            yield f"{name} differs"
    seconds = [float(row["train_seconds"]) for row in rows(folder / "metrics.csv")]
    if seconds != sorted(seconds) or not math.isfinite(sum(seconds)):
        yield "train_seconds decreases"
    for name, read in (("learned.npz", np.load), ("model.pt", torch.load)):
        one, other = read(folder / name), read(twin / name)
        if set(one) != set(other) or not all(np.array_equal(one[key], other[key]) for key in one):
            yield f"{name} differs"
    (summary,) = rows(folder / "summary.csv")
    for name, column in CHECKED.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != summary[column]:
            yield f"{name} does not match its checksum in summary.csv"


def differences(folder: Path, twin: Path) -> Iterator[str]:
    """As `different`, and files that a finished run should not have."""
    yield from different(folder, twin)
    left = [name for name in (*CHECKPOINTS, ".replacement") if (folder / name).exists()]
    for name in (*left, *(path.name for path in folder.glob(".*.tmp"))):
        yield f"{name} is left over"
