"""Ordered SGD (Kawaguchi & Lu 2020, arXiv 1907.04371)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, mask_of


@dataclass
class TopLoss(Rule):
    """Select the `q` largest losses of the batch and divide their gradient by q: Ordered SGD.

    `q` 0 is the authors' schedule: the whole batch, then 1/2, 1/4, 1/8 and 1/16 of it once the training accuracy of
    an epoch has reached 80, 90, 95 and 99.5 %; it never grows again. `q` of at least the batch size is backprop.
    Differences from the authors' code: training accuracy is that of the samples as they were scored while training,
    not of a separate pass at the end of the epoch; and at 99.5 % the learning rate still follows
    optimizer.schedule (they divide it by ten).
    """

    reduction: ClassVar[str] = "selected"
    q: int = setting(0, "samples selected per batch; 0: the authors' schedule", at_least=0)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.right, self.seen = (torch.zeros((), dtype=torch.int64, device=info.device) for _ in range(2))
        self.halvings = torch.zeros((), dtype=torch.int64)

    def epoch_indices(self, epoch: int) -> Tensor:
        accuracy = int(self.right) / max(int(self.seen), 1)
        self.halvings.clamp_(min=sum(accuracy >= step for step in (0.8, 0.9, 0.95, 0.995)))
        self.number = self.q or max(self.info.batch_size >> int(self.halvings), 1)
        self.right.zero_()
        self.seen.zero_()
        return super().epoch_indices(epoch)

    def select(self, batch: ScoredBatch) -> Tensor:
        return mask_of(batch.loss.topk(min(self.number, len(batch.targets))).indices, batch.wrong)

    def update(self, batch: ScoredBatch) -> None:
        self.right += (~batch.wrong).sum()
        self.seen += len(batch.targets)

    def state(self) -> dict[str, Tensor]:
        return {"right": self.right, "seen": self.seen, "halvings": self.halvings}
