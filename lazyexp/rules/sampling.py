"""Samples are drawn, with odds or ranks that follow their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.rules.base import Judged, Rule, RunInfo, drawn
from lazyexp.schema import setting
from lazyexp.seeding import generator


@dataclass
class EvolvedSampling(Rule):
    """Of every batch a share `keep` learns, drawn without replacement with odds w (Evolved Sampling; Cheng, Li & Bian
    2025, arXiv 2509.23461). With a sample's losses l, each time that it is judged

        w = beta1 s + (1 - beta1) l,  then  s = beta2 s + (1 - beta2) l,  s = 1 / samples at first,

    so that w follows the losses and their differences. In the first and the last share `anneal` of the epochs, if it
    is less than one at least in part, batches are whole while w and s are kept. `keep` 1 is backprop.

    We know no code of the authors, and could not hold the defaults of keep, beta1, beta2 and anneal against their
    paper: they are ours.
    """

    reduction: ClassVar[str] = "selected"
    keep: float = setting(0.25, above=0, at_most=1)
    beta1: float = setting(0.2, at_least=0, at_most=1)
    beta2: float = setting(0.9, at_least=0, at_most=1)
    anneal: float = setting(0.05, at_least=0, at_most=0.5)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.score = torch.full((info.samples,), 1 / info.samples, device=info.device)
        self.batch = torch.zeros((), dtype=torch.int64)

    def visit(self, epoch: int) -> Tensor:
        self.epoch = epoch
        self.batch.zero_()
        draws = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        self.draw = draws.to(self.info.device)
        return super().visit(epoch)

    def weigh(self, judged: Judged) -> Tensor:
        score, loss = self.score[judged.index], judged.loss.float()
        odds = self.beta1 * score + (1 - self.beta1) * loss
        self.score[judged.index] = self.beta2 * score + (1 - self.beta2) * loss
        elapsed = (self.epoch + int(self.batch) * self.info.batch_size / self.info.samples) / self.info.epochs
        self.batch += 1
        if self.keep == 1 or not self.anneal <= elapsed < 1 - self.anneal:
            return torch.ones_like(judged.wrong)
        return drawn(self.draw[judged.index], odds, max(int(self.keep * len(odds)), 1))

    def state(self) -> dict[str, Tensor]:
        return {"score": self.score, "batch": self.batch}


@dataclass
class OrderDP(Rule):
    """Each epoch presents, of a random share `subset` of the samples, the share `top` with the largest last losses
    (Jin et al., OrderDP, ICLR 2026, arXiv 2606.08574). Both 1 is backprop.

    The defaults are those of the authors' sampler, which prunes to the end of training. At first all losses count as
    alike.
    """

    selects: ClassVar[bool] = False
    subset: float = setting(0.75, above=0, at_most=1)
    top: float = setting(0.85, above=0, at_most=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.full((info.samples,), 3.0, device=info.device)

    def visit(self, epoch: int) -> Tensor:
        order = super().visit(epoch).to(self.info.device)
        number = max(int(self.subset * len(order)), 1)
        shuffled = torch.randperm(len(order), generator=generator(self.info.seed, "rule", epoch))
        chosen = shuffled.to(self.info.device)[:number]
        largest = chosen[self.last_loss[chosen].topk(max(int(self.top * number), 1)).indices]
        kept = torch.zeros_like(self.last_loss, dtype=torch.bool).index_fill_(0, largest, True)
        return order[kept[order]]

    def remember(self, judged: Judged) -> None:
        self.last_loss[judged.index] = judged.loss.float()

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss}
