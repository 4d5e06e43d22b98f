"""Evolved Sampling (Cheng, Li & Bian 2025, arXiv 2509.23461)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, weighted_sample


@dataclass
class EvolvedSampling(Rule):
    """Select a share `keep` of every batch, drawn without replacement with odds w.

    With a sample's loss l, at every time it is scored,

        w = beta1 s + (1 - beta1) l,  then  s = beta2 s + (1 - beta2) l,  s = 1 / samples initially,

    so w follows the losses and their differences. In the first and the last share `anneal` of the run batches are
    whole; w and s are still updated. `keep` 1 is backprop. No code of the authors is known to us, and the
    defaults of keep, beta1, beta2 and anneal could not be compared with their paper: they are our choice.
    """

    reduction: ClassVar[str] = "selected"
    keep: float = setting(0.25, "share of a batch that is selected", above=0, at_most=1)
    beta1: float = setting(0.2, "weight of the past in the odds", at_least=0, at_most=1)
    beta2: float = setting(0.9, "memory of the score", at_least=0, at_most=1)
    anneal: float = setting(0.05, "share of the run with whole batches, at both ends", at_least=0, at_most=0.5)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.score = torch.full((info.samples,), 1 / info.samples, device=info.device)
        self.batch = torch.zeros((), dtype=torch.int64)

    def epoch_indices(self, epoch: int) -> Tensor:
        self.epoch, self.draw = epoch, self.draws(epoch)
        self.batch.zero_()
        return super().epoch_indices(epoch)

    def select(self, batch: ScoredBatch) -> Tensor:
        score, loss = self.score[batch.index], batch.loss.float()
        odds = self.beta1 * score + (1 - self.beta1) * loss
        self.score[batch.index] = self.beta2 * score + (1 - self.beta2) * loss
        elapsed = self.elapsed(self.epoch, int(self.batch))
        self.batch += 1
        if self.keep == 1 or not self.anneal <= elapsed < 1 - self.anneal:
            return torch.ones_like(batch.wrong)
        return weighted_sample(self.draw[batch.index], odds, max(int(self.keep * len(odds)), 1))

    def state(self) -> dict[str, Tensor]:
        return {"score": self.score, "batch": self.batch}
