"""Batch Loss Score, BLS (Zhou et al., CVPR 2026, arXiv 2604.04681)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch
from lazyexp.rules.infobatch import InfoBatch
from lazyexp.rules.seta import RATIO, SeTa


@dataclass
class BatchLossScore(Rule):
    """`infobatch` or `seta`, with a score in place of a sample's loss: the moving average of the mean losses of the
    batches it was in, s = `alpha` s + (1 - `alpha`) L, initially 0.

    The gradient of a batch is that of its mean loss times the mean of its samples' weights, as in the authors' code.
    `groups` and `window` are those of seta.
    """

    method: str = setting("infobatch", "rule that uses the score", choices=("infobatch", "seta"))
    alpha: float = setting(0.9, "memory of the score", at_least=0, below=1)
    ratio: float = setting(0.5, "share that is dropped: of the samples below the mean, or of all", **RATIO)
    anneal: float = setting(0.875, "share of the run after which the rule ends", at_least=0, at_most=1)
    groups: int = setting(5, "seta: clusters of the scores", at_least=1)
    window: float = setting(0.9, "seta: share of the groups that is presented", above=0, at_most=1)

    def check(self) -> None:
        self._inner().check()

    def _inner(self) -> InfoBatch | SeTa:
        if self.method == "infobatch":
            return InfoBatch(self.ratio, self.anneal)
        return SeTa(self.ratio, self.groups, self.window, self.anneal)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.inner = self._inner()
        self.inner.start(info)
        self.inner.last_loss.zero_()

    def epoch_indices(self, epoch: int) -> Tensor:
        order = self.inner.epoch_indices(epoch)
        self.weight = torch.ones(self.info.samples, device=order.device)
        if isinstance(self.inner, InfoBatch):
            self.weight[order] = batch_means(self.inner.weight[order], self.info.batch_size)
        return order

    def preselect(self, index: Tensor) -> Tensor:
        return self.weight[index]

    def update(self, batch: ScoredBatch) -> None:
        score, means = self.inner.last_loss, batch_means(batch.loss.float(), self.info.batch_size)
        score[batch.index] = self.alpha * score[batch.index] + (1 - self.alpha) * means

    def state(self) -> dict[str, Tensor]:
        return {"score": self.inner.last_loss}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.inner.last_loss.copy_(state["score"])


def batch_means(values: Tensor, batch_size: int) -> Tensor:
    """(n,) for every value the mean of its batch, `batch_size` neighbours."""
    return torch.cat([part.mean().expand(len(part)) for part in values.split(batch_size)])
