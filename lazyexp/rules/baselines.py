"""Baselines: all samples, and as many samples as lazy learning would select, chosen at random."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.errors import UserError
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, random_members
from lazyexp.utils.seeding import generator


@dataclass
class Backprop(Rule):
    """Select all samples."""


@dataclass
class Random(Rule):
    """Select as many samples as `lazy` would have selected, at random.

    In a batch with k mistakes, k random samples are selected. At batch size 1 every mistake reserves one random
    position among the next `window` samples, and the sample that comes there is selected; if the position is
    reserved already, the next free one is taken. So every mistake is answered exactly once, except those whose
    position lies beyond the end of the run.

    With `replay`, the folder of a finished run: as many samples as that run selected between two of its evaluations,
    at random positions.
    """

    window: int = setting(1000, "at batch size 1: a mistake selects one of so many coming samples", at_least=1)
    replay: str = setting("", "folder of a finished run whose numbers of selected samples are repeated")

    def check(self) -> None:
        if self.replay:
            selected_counts(Path(self.replay).expanduser())

    def identity(self) -> dict[str, Any]:
        options = super().identity()
        if self.replay:  # the counts identify the run, not the folder's location
            counts = json.dumps(selected_counts(Path(self.replay).expanduser()))
            options["replay"] = hashlib.sha256(counts.encode()).hexdigest()
        return options

    def start(self, info: RunInfo) -> None:
        super().start(info)
        # Ring of reserved positions among the coming samples; twice the window leaves room for moving on.
        self.reserved = torch.zeros(2 * self.window, dtype=torch.bool)
        self.position = torch.zeros((), dtype=torch.int64)
        if self.replay:
            counts = selected_counts(Path(self.replay).expanduser())
            self.planned = scatter(counts, generator(info.seed, "replay")).to(info.device)

    def epoch_indices(self, epoch: int) -> Tensor:
        draws = self.draws(epoch)
        self.draw = draws if self.info.batch_size > 1 else draws.cpu()
        return super().epoch_indices(epoch)

    def select(self, batch: ScoredBatch) -> Tensor:
        if self.replay:
            return self._planned(batch)
        if self.info.batch_size == 1:
            return self._online(batch)
        return random_members(self.draw[batch.index], batch.wrong.sum())

    def _planned(self, batch: ScoredBatch) -> Tensor:
        start, size = int(self.position), len(batch.index)
        self.position += size
        selected = torch.zeros_like(batch.wrong)
        part = self.planned[start : start + size]
        selected[: len(part)] = part
        return selected

    def _online(self, batch: ScoredBatch) -> Tensor:
        size, here = len(self.reserved), int(self.position)
        selected = bool(self.reserved[here])
        self.reserved[here] = False
        if batch.wrong.item():
            step = 1 + int(self.draw[int(batch.index)] * self.window)
            while step < size and self.reserved[(here + step) % size]:
                step += 1
            self.reserved[(here + step) % size] = True
        self.position.fill_((here + 1) % size)
        return torch.full_like(batch.wrong, selected)

    def state(self) -> dict[str, Tensor]:
        return {"reserved": self.reserved, "position": self.position}


def selected_counts(folder: Path) -> list[tuple[int, int]]:
    """(samples presented, samples selected) between evaluations of the finished run in `folder`. Raises UserError."""
    try:
        with (folder / "summary.csv").open(encoding="utf-8") as stream:
            status = next(csv.DictReader(stream), {}).get("status")
    except OSError:
        status = "no summary.csv"
    if status not in ("finished", "stopped"):
        raise UserError(f"rule.replay={folder}: not the folder of a finished run ({status})")
    try:
        with (folder / "metrics.csv").open(encoding="utf-8") as stream:
            ends = [(int(row["samples_seen"]), int(row["backward_samples"])) for row in csv.DictReader(stream)]
        ends = [(seen, chosen) for seen, chosen in ends if seen or chosen]  # without the row before training
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"rule.replay={folder}: no readable metrics.csv ({error})") from None
    starts = [(0, 0), *ends][:-1]
    counts = [(seen - before[0], chosen - before[1]) for (seen, chosen), before in zip(ends, starts, strict=True)]
    if not counts or any(not 0 <= chosen <= presented for presented, chosen in counts):
        raise UserError(f"rule.replay={folder}: metrics.csv has counts that no run can have")
    return counts


def scatter(counts: list[tuple[int, int]], draws: torch.Generator) -> Tensor:
    """(sum of presented,) bool: in every interval as many True as were selected, at random positions."""
    parts = []
    for presented, selected in counts:
        part = torch.zeros(presented, dtype=torch.bool)
        part[torch.randperm(presented, generator=draws)[:selected]] = True
        parts.append(part)
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)
