"""SeTa (Zhou et al., CVPR 2025, arXiv 2503.13385)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.errors import UserError
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, mask_of
from lazyexp.utils.seeding import generator

RATIO: dict[str, Any] = {"at_least": 0, "at_most": 0.9}


@dataclass
class SeTa(Rule):
    """Take a random share 1 - `ratio` of the samples, sort them by their last losses into `groups` by k-means, and
    present a window of round(`window` * groups) neighbouring groups, which slides from easy to hard, one group per
    epoch, and starts again at the easiest.

    Epoch 0 presents all groups. Epoch e = 0, 1, ... of E with e + 1 > `anneal` * E presents a random share
    1 - `ratio` of all samples. Initially all losses count as equal, and the groups are parts of equal size. The
    defaults are those of the authors' script for CIFAR; their class has ratio 0, 10 groups, window 0.5. Difference:
    samples keep the order of the epoch, as in the other rules.
    """

    ratio: float = setting(0.2, "random share of the samples that is dropped", **RATIO)
    groups: int = setting(5, "clusters of the losses", at_least=1)
    window: float = setting(0.9, "share of the groups that is presented", above=0, at_most=1)
    anneal: float = setting(0.875, "share of the run after which no group is left out", at_least=0, at_most=1)

    def check(self) -> None:
        if round(self.window * self.groups) < 1:
            raise UserError(f"rule.window={self.window}: must be at least one of rule.groups={self.groups} groups")

    def start(self, info: RunInfo) -> None:
        super().start(info)
        if int((1 - self.ratio) * info.samples) <= self.groups:
            raise UserError(f"rule.groups={self.groups}: must be fewer than the samples that rule.ratio leaves")
        self.last_loss = torch.full((info.samples,), 3.0, device=info.device)
        import sklearn.cluster  # noqa: F401  before the clock runs

    def epoch_indices(self, epoch: int) -> Tensor:
        order = super().epoch_indices(epoch).to(self.info.device)
        shuffled = torch.randperm(len(order), generator=generator(self.info.seed, "rule", epoch))
        chosen = shuffled[: int((1 - self.ratio) * len(order))]
        if epoch + 1 <= self.anneal * self.info.epochs and epoch > 0:
            size = round(self.window * self.groups)
            start = epoch % (self.groups - size + 1)
            parts = clusters(self.last_loss.cpu()[chosen], self.groups)[start : start + size]
            chosen = chosen[torch.cat(parts)] if parts else chosen[:1]
        return order[mask_of(chosen.to(order.device), self.last_loss)[order]]

    def update(self, batch: ScoredBatch) -> None:
        self.last_loss[batch.index] = batch.loss.float()

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss}


def clusters(losses: Tensor, number: int) -> list[Tensor]:
    """Positions of `losses` (n,) in clusters by k-means, lowest mean first; parts of equal size if all are equal.

    Fewer clusters than `number` if there are fewer different losses.
    """
    if number == 1 or losses.min() == losses.max():
        return list(torch.arange(len(losses)).chunk(number))
    from sklearn.cluster import KMeans

    found = KMeans(min(number, len(losses.unique())), random_state=0).fit(losses.double().unsqueeze(1).numpy())
    labels = torch.from_numpy(found.labels_)
    order = torch.from_numpy(found.cluster_centers_[:, 0]).argsort().tolist()
    return [(labels == label).nonzero().squeeze(1) for label in order]
