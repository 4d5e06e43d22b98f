"""KAKURENBO (Nguyen et al., NeurIPS 2023, arXiv 2310.10102)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, mask_of


@dataclass
class Kakurenbo(Rule):
    """Hide, each epoch, those of the share F with the lowest losses that were right with a confidence of at least
    `confidence_threshold`; the other samples train at 1 / (1 - F) times the learning rate.

    Hidden samples are forwarded at the end of the epoch to refresh their losses. F is `fraction`, times 0.8, 0.6 and
    0.4 from 30, 60 and 80 % of the epochs on: the authors' steps at epochs 60, 120 and 160 of 200, which are also
    those of their learning rate. The first epoch, their warm-up, hides nothing. `fraction` 0 is backprop. The factor
    depends on F alone, however many samples are hidden. Difference from the authors' code: the softmax is over
    classes, as in the paper (theirs is over the samples of the batch).
    """

    # The batch in which shown and hidden samples meet is divided by the number of shown ones.
    reduction: ClassVar[str] = "selected"
    fraction: float = setting(0.3, "largest share of samples to hide", at_least=0, below=1)
    confidence_threshold: float = setting(0.7, "least confidence of a hidden sample", at_least=0, at_most=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.full((info.samples,), float("inf"), device=info.device)
        self.confident = torch.zeros(info.samples, dtype=torch.bool, device=info.device)

    def epoch_indices(self, epoch: int) -> Tensor:
        order = super().epoch_indices(epoch).to(self.info.device)
        lowest = self.last_loss.topk(int(self._share(epoch) * len(order)), largest=False).indices
        self.shown = ~(mask_of(lowest, self.confident) & self.confident)
        shown = self.shown[order]
        return torch.cat([order[shown], order[~shown]])

    def rate_factor(self, epoch: int) -> float:
        return 1 / (1 - self._share(epoch))

    def _share(self, epoch: int) -> float:
        """F of an epoch."""
        steps = sum(10 * epoch >= tenths * self.info.epochs for tenths in (3, 6, 8))
        return self.fraction * (1.0, 0.8, 0.6, 0.4)[steps] if epoch else 0.0

    def preselect(self, index: Tensor) -> Tensor:
        return self.shown[index]

    def update(self, batch: ScoredBatch) -> None:
        self.last_loss[batch.index] = batch.loss.float()
        self.confident[batch.index] = ~batch.wrong & (batch.confidence >= self.confidence_threshold)

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss, "confident": self.confident}
