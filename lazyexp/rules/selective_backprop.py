"""Selective-Backprop (Jiang et al. 2019, arXiv 1910.00762): the authors' rule and Composer's variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, weighted_sample


@dataclass
class SelectiveBackprop(Rule):
    """Select a sample with probability CDF(loss)^beta, where CDF is the share of smaller losses among the last
    `history` ones, its own batch included (arXiv 1910.00762, section 3). `beta` 0 is backprop.

    Selected samples queue until a full batch of them is complete, are forwarded once more, and train with their mean
    gradient; the first epoch selects all samples. Both, and `beta` 3, are as in the authors' code. Difference:
    samples still queued at the end of an epoch train in the next one, and at the end of the run not at all.
    """

    reduction: ClassVar[str] = "full_batch"
    beta: float = setting(3.0, "exponent of the probability", at_least=0)
    history: int = setting(1024, "losses that define the distribution", at_least=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        # Ring buffer; unused entries are infinite and not counted.
        self.losses = torch.full((self.history,), float("inf"), device=info.device)
        self.count = torch.zeros((), dtype=torch.int64)

    def epoch_indices(self, epoch: int) -> Tensor:
        self.epoch, self.draw = epoch, self.draws(epoch)
        return super().epoch_indices(epoch)

    def select(self, batch: ScoredBatch) -> Tensor:
        if self.epoch == 0:
            return torch.ones_like(batch.wrong)
        loss, before = batch.loss.float(), int(self.count)
        newest = loss[-self.history :]
        positions = (torch.arange(len(newest), device=loss.device) + before) % self.history
        self.losses[positions] = newest
        self.count += len(newest)
        filled = min(before + len(newest), self.history)
        smaller = torch.searchsorted(self.losses.sort().values, loss)
        return self.draw[batch.index] < (smaller / filled) ** self.beta

    def state(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "count": self.count}


@dataclass
class ComposerSelectiveBackprop(Rule):
    """Selective-Backprop as in Composer (MosaicML): from share `begin` to `end` of the run select a share `keep` of a
    batch, drawn without replacement with odds ((rank + 1/2) / batch size)^(1 / keep - 1); rank 0: smallest loss.

    Of every `interrupt` batches of an epoch the last one stays whole (0: none). `keep` 1 is backprop. The part of the
    run begins and ends at a batch, as in Composer with a `max_duration` in batches or samples. Differences: with a
    `max_duration` in epochs Composer counts finished epochs, so that its part begins and ends with an epoch; selected
    samples are not forwarded again where the scoring pass suffices; at least one sample is selected.
    """

    reduction: ClassVar[str] = "selected"
    keep: float = setting(0.5, "share of a batch that is selected", above=0, at_most=1)
    begin: float = setting(0.5, "share of the run at which selection begins", at_least=0, at_most=1)
    end: float = setting(0.9, "share of the run at which selection ends", at_least=0, at_most=1)
    interrupt: int = setting(2, "every so many batches one stays whole; 0: none", at_least=0)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.batch = torch.zeros((), dtype=torch.int64)

    def epoch_indices(self, epoch: int) -> Tensor:
        self.epoch, self.draw = epoch, self.draws(epoch)
        self.batch.zero_()
        return super().epoch_indices(epoch)

    def select(self, batch: ScoredBatch) -> Tensor:
        number, size = int(self.batch), len(batch.targets)
        self.batch += 1
        elapsed = self.elapsed(self.epoch, number)
        whole = self.interrupt and (number + 1) % self.interrupt == 0
        if self.keep == 1 or whole or not self.begin <= elapsed < self.end:
            return torch.ones_like(batch.wrong)
        odds = ((batch.loss.argsort().argsort() + 0.5) / size) ** (1 / self.keep - 1)
        return weighted_sample(self.draw[batch.index], odds, max(int(self.keep * size), 1))

    def state(self) -> dict[str, Tensor]:
        return {"batch": self.batch}
