"""InfoBatch (Qin et al., ICLR 2024, arXiv 2303.04947)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, mask_of


@dataclass
class InfoBatch(Rule):
    """Drop, each epoch and at random, a share `ratio` of the samples whose last loss is below the mean, and multiply
    the gradients of the remaining ones among them by 1 / (1 - ratio), which keeps the expected gradient.

    `ratio` 0 is backprop. Epoch e = 0, 1, … of E drops nothing if e + 1 > `anneal` * E: at 0.875 the last E / 8
    epochs, rounded up, present all samples. Difference from the authors' code: if `anneal` * E is not a whole number,
    their weights of the last pruned epoch persist in the unpruned ones; here they are 1, as in the paper.
    """

    ratio: float = setting(0.5, "share of the samples below the mean loss that is dropped", at_least=0, at_most=0.9)
    anneal: float = setting(0.875, "share of the run after which nothing is dropped", at_least=0, at_most=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.full((info.samples,), 3.0, device=info.device)  # all equal: none is below the mean

    def epoch_indices(self, epoch: int) -> Tensor:
        order = super().epoch_indices(epoch).to(self.info.device)
        self.weight = torch.ones_like(self.last_loss)
        if epoch + 1 > self.anneal * self.info.epochs:
            return order
        easy = (self.last_loss < self.last_loss.mean()).nonzero().squeeze(1)
        shuffled = easy[self.draws(epoch)[easy].argsort()]
        kept = int((1 - self.ratio) * len(easy))
        self.weight[shuffled[:kept]] = 1 / (1 - self.ratio)
        dropped = mask_of(shuffled[kept:], self.weight)
        return order[~dropped[order]]

    def preselect(self, index: Tensor) -> Tensor:
        return self.weight[index]

    def update(self, batch: ScoredBatch) -> None:
        self.last_loss[batch.index] = batch.loss.float()

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss}
