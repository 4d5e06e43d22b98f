"""OrderDP (Jin et al., ICLR 2026, arXiv 2606.08574)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, mask_of
from lazyexp.utils.seeding import generator


@dataclass
class OrderDP(Rule):
    """Present, each epoch, the share `top` with the largest last losses of a random share `subset` of the samples.

    Both 1 is backprop. The defaults are those of the authors' sampler, which prunes to the end of training. Initially
    all losses count as equal.
    """

    subset: float = setting(0.75, "random share of the samples that is considered", above=0, at_most=1)
    top: float = setting(0.85, "share of them, largest losses first, that is presented", above=0, at_most=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.full((info.samples,), 3.0, device=info.device)

    def epoch_indices(self, epoch: int) -> Tensor:
        order = super().epoch_indices(epoch).to(self.info.device)
        number = max(int(self.subset * len(order)), 1)
        shuffled = torch.randperm(len(order), generator=generator(self.info.seed, "rule", epoch))
        considered = shuffled.to(self.info.device)[:number]
        largest = considered[self.last_loss[considered].topk(max(int(self.top * number), 1)).indices]
        return order[mask_of(largest, self.last_loss)[order]]

    def update(self, batch: ScoredBatch) -> None:
        self.last_loss[batch.index] = batch.loss.float()

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss}
