"""Controls: what would have happened had the choice of samples not mattered?"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyexp.columns import COMPLETE
from lazyexp.errors import UserError
from lazyexp.reader import read_rows
from lazyexp.rules.base import Judged, Rule, RunInfo
from lazyexp.schema import setting
from lazyexp.seeding import generator


@dataclass
class Random(Rule):
    """As many samples learn as lazy would have taken, but chosen at random.

    In a batch with k mistakes k random members learn. At batch size 1 every mistake books one random place
    among the next `window` samples, and whoever stands there learns; a booked place passes on to the next
    free one, so every mistake is answered exactly once (but for those booked beyond the run's end).

    With `replay`, the folder of a finished run, as many learn between two of its evaluations as did there, at
    random places.
    """

    window: int = setting(1000, at_least=1)
    replay: str = ""

    def check(self) -> None:
        if self.replay:
            learners_of(Path(self.replay).expanduser())

    def identity(self) -> dict[str, Any]:
        options = super().identity()
        if self.replay:  # what is replayed counts, wherever it lies
            counts = json.dumps(learners_of(Path(self.replay).expanduser()))
            options["replay"] = hashlib.sha256(counts.encode()).hexdigest()
        return options

    def start(self, info: RunInfo) -> None:
        super().start(info)
        # A ring of bookings for the coming samples; twice the window leaves room for passing on.
        self.booked = torch.zeros(2 * self.window, dtype=torch.bool)
        self.place = torch.zeros((), dtype=torch.int64)
        if self.replay:
            counts = learners_of(Path(self.replay).expanduser())
            self.plan = scatter(counts, generator(info.seed, "replay")).to(info.device)

    def visit(self, epoch: int) -> Tensor:
        self.draw = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        if self.info.batch_size > 1:
            self.draw = self.draw.to(self.info.device)
        return super().visit(epoch)

    def weigh(self, judged: Judged) -> Tensor:
        if self.replay:
            return self._weigh_as_planned(judged)
        if self.info.batch_size == 1:
            return self._weigh_one(judged)
        rank = self.draw[judged.index].argsort().argsort()
        return rank < judged.wrong.sum()

    def _weigh_as_planned(self, judged: Judged) -> Tensor:
        here, size = int(self.place), len(judged.index)
        self.place += size
        planned = torch.zeros_like(judged.wrong)
        part = self.plan[here : here + size]
        planned[: len(part)] = part
        return planned

    def _weigh_one(self, judged: Judged) -> Tensor:
        size, here = len(self.booked), int(self.place)
        learns = bool(self.booked[here])
        self.booked[here] = False
        if judged.wrong.item():
            step = 1 + int(self.draw[int(judged.index)] * self.window)
            while step < size and self.booked[(here + step) % size]:
                step += 1
            self.booked[(here + step) % size] = True
        self.place.fill_((here + 1) % size)
        return torch.full_like(judged.wrong, learns)

    def state(self) -> dict[str, Tensor]:
        return {"booked": self.booked, "place": self.place}


def learners_of(folder: Path) -> list[tuple[int, int]]:
    """(samples presented, samples learned from) between the evaluations of the finished run in `folder`."""
    status = (read_rows(folder / "summary.csv") or [{}])[0].get("status")
    if status not in COMPLETE:
        raise UserError(f"rule.replay={folder}: is not the folder of a finished run ({status or 'no summary.csv'})")
    try:
        ends = [(row["samples_seen"], row["backward_samples"]) for row in read_rows(folder / "metrics.csv")]
    except (ValueError, KeyError) as error:
        raise UserError(f"rule.replay={folder}: no readable metrics.csv ({error})") from None
    starts = [(0, 0), *ends][:-1]
    counts = [(seen - before[0], learned - before[1]) for (seen, learned), before in zip(ends, starts, strict=True)]
    if not counts or any(not 0 <= learned <= presented for presented, learned in counts):
        raise UserError(f"rule.replay={folder}: its counts are not those of a run")
    return counts


def scatter(counts: list[tuple[int, int]], draws: torch.Generator) -> Tensor:
    """(sum of presented,) bool: in every interval as many as learned, at random places."""
    parts = []
    for presented, learned in counts:
        part = torch.zeros(presented, dtype=torch.bool)
        part[torch.randperm(presented, generator=draws)[:learned]] = True
        parts.append(part)
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)
