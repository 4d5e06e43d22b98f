"""Selective-Backprop: large losses learn with a larger probability. Its authors' rule, and Composer's variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.rules.base import Judged, Rule, RunInfo, drawn
from lazyexp.schema import setting
from lazyexp.seeding import generator


@dataclass
class SelectiveBackprop(Rule):
    """A sample is selected with probability CDF(loss)^beta, the CDF being the share of smaller ones among the last
    `history` losses, its own batch included (Jiang et al. 2019, arXiv 1910.00762, section 3). `beta` 0 is backprop.

    Those selected wait until a full batch has come together, are forwarded once more and learn with their mean; the
    first epoch is backprop's. Both, and `beta` 3, are as in the authors' code. Not as there: who still waits at the
    end of an epoch learns in the next one, and at the end of the run not at all.
    """

    beta: float = setting(3.0, at_least=0)
    history: int = setting(1024, at_least=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        if info.batch_size > 1:  # alone a sample is a full batch
            self.block = info.batch_size  # type: ignore[misc]
        # A ring; places not yet filled hold infinity and count for nothing.
        self.losses = torch.full((self.history,), float("inf"), device=info.device)
        self.count = torch.zeros((), dtype=torch.int64)

    def visit(self, epoch: int) -> Tensor:
        self.epoch = epoch
        draws = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        self.draw = draws.to(self.info.device)
        return super().visit(epoch)

    def weigh(self, judged: Judged) -> Tensor:
        if self.epoch == 0:
            return torch.ones_like(judged.wrong)
        loss, before = judged.loss.float(), int(self.count)
        newest = loss[-self.history :]
        places = (torch.arange(len(newest), device=loss.device) + before) % self.history
        self.losses[places] = newest
        self.count += len(newest)
        filled = min(before + len(newest), self.history)
        smaller = torch.searchsorted(self.losses.sort().values, loss)
        return self.draw[judged.index] < (smaller / filled) ** self.beta

    def state(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "count": self.count}


@dataclass
class ComposerSelectiveBackprop(Rule):
    """Selective-Backprop as Composer (MosaicML) has it: from `begin` to `end` of the run a share `keep` of a batch
    learns, drawn without replacement with odds ((rank + 1/2) / batch size)^(1 / keep - 1), rank 0 being the smallest
    loss; of every `interrupt` batches of an epoch one, the last, is left whole (0: none). `keep` 1 is backprop.

    Not as there: who is drawn is not forwarded again where the judging pass serves, and at least one learns.
    """

    reduction: ClassVar[str] = "selected"
    keep: float = setting(0.5, above=0, at_most=1)
    begin: float = setting(0.5, at_least=0, at_most=1)
    end: float = setting(0.9, at_least=0, at_most=1)
    interrupt: int = setting(2, at_least=0)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.batch = torch.zeros((), dtype=torch.int64)

    def visit(self, epoch: int) -> Tensor:
        self.epoch = epoch
        self.batch.zero_()
        draws = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        self.draw = draws.to(self.info.device)
        return super().visit(epoch)

    def weigh(self, judged: Judged) -> Tensor:
        batch, size = int(self.batch), len(judged.targets)
        self.batch += 1
        elapsed = (self.epoch + batch * self.info.batch_size / self.info.samples) / self.info.epochs
        whole = self.interrupt and (batch + 1) % self.interrupt == 0
        if self.keep == 1 or whole or not self.begin <= elapsed < self.end:
            return torch.ones_like(judged.wrong)
        odds = ((judged.loss.argsort().argsort() + 0.5) / size) ** (1 / self.keep - 1)
        return drawn(self.draw[judged.index], odds, max(int(self.keep * size), 1))

    def state(self) -> dict[str, Tensor]:
        return {"batch": self.batch}
