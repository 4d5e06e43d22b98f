"""Instance-dependent early stopping, IES (Yuan et al., ICLR 2025, arXiv 2502.07547)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch


@dataclass
class EarlyStopping(Rule):
    """Stop training on mastered samples, one by one: a sample is mastered if the mean of the last `average` absolute
    second differences |l(t) - 2 l(t-1) + l(t-2)| of its losses, one per epoch, is below `threshold`.

    Mastered samples are forwarded at the end of the epoch and selected again when their loss moves again.
    `threshold` 0 is backprop. As in the authors' code a sample needs `average` + 3 losses before it can be mastered,
    so with the defaults none is before the seventh epoch; that code uses 1e-3 for 10 classes and 2e-3 for 100.
    Difference: when no sample is mastered any more all are selected (there, former ones stay excluded).
    `skip_forwards`: mastered samples are not forwarded either, so they stop for good; this is our reading of the
    variant that saves the forward pass, of which no code is known to us.
    """

    # The batch in which selected and mastered samples meet is divided by the number of selected ones.
    reduction: ClassVar[str] = "selected"
    threshold: float = setting(0.001, "mean second difference below which a sample is mastered", at_least=0)
    average: int = setting(3, "second differences in the mean", at_least=1)
    skip_forwards: bool = setting(False, "do not present mastered samples at all")

    def start(self, info: RunInfo) -> None:
        super().start(info)
        # The last losses, oldest first, and how many there have been.
        self.losses = torch.zeros(self.average + 2, info.samples, device=info.device)
        self.count = torch.zeros(info.samples, dtype=torch.int32, device=info.device)

    def epoch_indices(self, epoch: int) -> Tensor:
        order = super().epoch_indices(epoch).to(self.info.device)
        second = self.losses[2:] - 2 * self.losses[1:-1] + self.losses[:-2]
        self.mastered = (second.abs().mean(0) < self.threshold) & (self.count >= self.average + 3)
        shown, stopped = order[~self.mastered[order]], order[self.mastered[order]]
        return shown if self.skip_forwards else torch.cat([shown, stopped])

    def preselect(self, index: Tensor) -> Tensor:
        return ~self.mastered[index]

    def update(self, batch: ScoredBatch) -> None:
        self.losses[:-1, batch.index] = self.losses[1:, batch.index]
        self.losses[-1, batch.index] = batch.loss.float()
        self.count[batch.index] += 1

    def state(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "count": self.count}
