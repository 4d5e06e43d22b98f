"""Resolving Pruning Biases, RePB (Zhou et al., ICLR 2026, openreview Zw1Uw7u6Su)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch


@dataclass
class RePB(Rule):
    """Drop a sample from the next epoch with probability `ratio` if its loss is below the mean of its window of
    `window` batches; present a dropped sample again with probability 1 - `ratio` per epoch.

    The gradient of a sample in epoch E = 1, 2, ... has the weight E / N, where N counts the epochs up to E that
    presented it. `ratio` 0 is backprop. The authors' code could not be read; the formulas are those of a published
    summary of the paper. It has no value for `ratio`, which is our choice, and no whole epochs at the end.
    """

    ratio: float = setting(0.5, "probability of dropping a sample below the mean", at_least=0, below=1)
    window: int = setting(1, "batches whose losses are compared", at_least=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.zeros(info.samples, device=info.device)
        self.present = torch.ones(info.samples, dtype=torch.bool, device=info.device)
        self.count = torch.zeros(info.samples, dtype=torch.int32, device=info.device)

    def epoch_indices(self, epoch: int) -> Tensor:
        order = super().epoch_indices(epoch).to(self.info.device)
        if epoch:
            self.present = self._next(epoch)
        self.count = self.count + self.present.int()
        self.weight = (epoch + 1) / self.count.clamp_min(1)
        return order[self.present[order]]

    def _next(self, epoch: int) -> Tensor:
        """(samples,) bool: the samples of `epoch`, given the losses of the epoch before."""
        before = super().epoch_indices(epoch - 1).to(self.info.device)
        before = before[self.present[before]]
        draws = self.draws(epoch)
        kept = ~self.present & (draws < 1 - self.ratio)
        for index in before.split(self.window * self.info.batch_size):
            loss = self.last_loss[index]
            kept[index] = (loss >= loss.mean()) | (draws[index] >= self.ratio)
        return kept if bool(kept.any()) else torch.ones_like(kept)

    def preselect(self, index: Tensor) -> Tensor:
        return self.weight[index]

    def update(self, batch: ScoredBatch) -> None:
        self.last_loss[batch.index] = batch.loss.float()

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss, "present": self.present, "count": self.count}
