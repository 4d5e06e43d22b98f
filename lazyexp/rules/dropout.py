"""The random controls of Progressive Data Dropout (NeurIPS 2025, arXiv 2505.22342); its rule is in mistakes.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.rules.base import Judged, Rule
from lazyexp.schema import setting
from lazyexp.seeding import generator


@dataclass
class MatchedDropout(Rule):
    """Of every batch as many learn as `progressive` would take, but any: schedule-matched random dropout (SMRD).

    `threshold` and `revision_epochs` as there. At batch size 1 the one sample is always the one to be taken, and the
    rule is `progressive`. `revision_epochs` as many as there are epochs is backprop. As in the authors' code, but
    that they forward those who learn once more.
    """

    reduction: ClassVar[str] = "selected"
    threshold: float = setting(0.3, at_least=0, at_most=1)
    revision_epochs: int = setting(1, at_least=0)

    def visit(self, epoch: int) -> Tensor:
        self.selects = epoch < self.info.epochs - self.revision_epochs  # type: ignore[misc]
        draws = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        self.draw = draws.to(self.info.device)
        return super().visit(epoch)

    def weigh(self, judged: Judged) -> Tensor | None:
        if not self.selects:
            return None
        if self.threshold == 0:
            number = judged.wrong.sum()
        else:
            own = judged.logits.softmax(1).gather(1, judged.targets.unsqueeze(1)).squeeze(1)
            number = (own < self.threshold).sum()
        return self.draw[judged.index].argsort().argsort() < number


@dataclass
class ScalarDropout(Rule):
    """In epoch e = 0, 1, … a random share `decay`^e of all samples is presented, and in the last `revision_epochs`
    everybody: scalar random dropout (SRD). Who is not presented costs nothing. `decay` 1 is backprop.

    Not as in the authors' code: there that share is drawn from every batch, which shrinks, and here from the epoch,
    so that batches stay full and there are fewer of them.
    """

    selects: ClassVar[bool] = False
    decay: float = setting(0.99, above=0, at_most=1)
    revision_epochs: int = setting(1, at_least=0)

    def visit(self, epoch: int) -> Tensor:
        order = super().visit(epoch)
        if epoch >= self.info.epochs - self.revision_epochs:
            return order
        return order[: max(int(self.decay**epoch * len(order)), 1)]
