"""Samples that have been mastered stop, one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.rules.base import Judged, Rule, RunInfo
from lazyexp.schema import setting


@dataclass
class EarlyStopping(Rule):
    """Who is mastered stops to learn: the second differences l(t) - 2 l(t-1) + l(t-2) of a sample's losses, one per
    epoch, are near zero: the mean of the last `average` absolute ones is below `threshold` (instance-dependent early
    stopping, IES; Yuan et al., ICLR 2025, arXiv 2502.07547). `threshold` 0 is backprop.

    The mastered are forwarded at the end of the epoch, and learn again when their loss moves again. As in the
    authors' code a sample needs `average` + 3 losses before it is asked, so that with the defaults nobody stops
    before the seventh epoch; that code has 1e-3 for 10 classes and 2e-3 for 100. Not as there: when nobody is
    mastered any more all learn (there the former ones stay out). With `skip_forwards` the mastered are not forwarded
    either, and so stop for good: our reading of the variant that saves the forward pass, of which we know no code.
    """

    # Known before the forward pass.
    prior: ClassVar[bool] = True
    # In the batch in which the learning and the mastered meet, the learning are divided by their own number.
    reduction: ClassVar[str] = "selected"
    threshold: float = setting(0.001, at_least=0)
    average: int = setting(3, at_least=1)
    skip_forwards: bool = False

    def start(self, info: RunInfo) -> None:
        super().start(info)
        # The last losses, oldest first, and how many there have been.
        self.losses = torch.zeros(self.average + 2, info.samples, device=info.device)
        self.count = torch.zeros(info.samples, dtype=torch.int32, device=info.device)

    def visit(self, epoch: int) -> Tensor:
        order = super().visit(epoch).to(self.info.device)
        second = self.losses[2:] - 2 * self.losses[1:-1] + self.losses[:-2]
        mastered = (second.abs().mean(0) < self.threshold) & (self.count >= self.average + 3)
        self.learning = ~mastered
        shown, stopped = order[self.learning[order]], order[mastered[order]]
        return shown if self.skip_forwards else torch.cat([shown, stopped])

    def weigh(self, judged: Judged) -> Tensor:
        return self.learning[judged.index]

    def remember(self, judged: Judged) -> None:
        self.losses[:-1, judged.index] = self.losses[1:, judged.index]
        self.losses[-1, judged.index] = judged.loss.float()
        self.count[judged.index] += 1

    def state(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "count": self.count}
