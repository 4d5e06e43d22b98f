"""Learning from mistakes: the paper's rule and its relatives, which decide by a sample's own logits and past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.rules.base import Judged, Rule, RunInfo
from lazyexp.schema import setting

# Epochs and samples are counted in 32 bits, and a sleep is doubled before it is cut.
COUNT: dict[str, Any] = {"at_least": 0, "at_most": 2**30, "wanted": "from 0 (off) to 2^30"}


@dataclass
class Selective(Rule):
    """What the rules of this file share: two ways to spend fewer forward passes, both off by default.

    `max_interval` (spaced review, ours): a sample that did not learn when its turn came sleeps for 1, 2, 4, …
    epochs, at most this many, before it is judged again; one that learned is awake in the next epoch. With `sure`
    below 1 a sample whose largest softmax is at least that sleeps `max_interval` epochs at once.
    `block` (packing, ours): up to this many samples are judged at once with the present weights, those that must
    learn are queued, and whenever `batch_size` of them are waiting they are forwarded again and learned together.
    Selection is stale by at most a block. With `judge` bfloat16 or int8 (on a CPU only) judging is done in 16-bit
    floats or 8-bit integers, several times as fast where the hardware has them; learning is not. `auto` is what the
    machine has, and the run's files say which: results can then differ from machine to machine.
    """

    pointwise: ClassVar[bool] = True
    capturable: ClassVar[bool] = True
    max_interval: int = setting(0, **COUNT)
    sure: float = setting(1.0, at_least=0, at_most=1)
    block: int = setting(0, **COUNT)  # type: ignore[misc]
    judge: str = setting("float32", choices=("float32", "bfloat16", "int8", "auto"))  # type: ignore[misc]

    def check(self) -> None:
        if self.judge != "float32" and not self.block:
            raise UserError(f"rule.judge={self.judge}: blocks are judged in it; set rule.block, for example to 512")

    def start(self, info: RunInfo) -> None:
        super().start(info)
        if self.max_interval:
            # Epochs that a sample sleeps after the next time it is right, and when it is judged again.
            self.interval = torch.ones(info.samples, dtype=torch.int32, device=info.device)
            self.due = torch.zeros(info.samples, dtype=torch.int32, device=info.device)

    def visit(self, epoch: int) -> Tensor:
        self.epoch = epoch
        order = super().visit(epoch)
        if self.max_interval:
            order = order.to(self.due.device)
            order = order[self.due[order] <= epoch]
        return order

    def remember(self, judged: Judged) -> None:
        if self.max_interval:
            learned = judged.learns
            assert learned is not None
            sleep = self.interval[judged.index]
            if self.sure < 1:
                sleep = sleep.masked_fill(judged.confidence >= self.sure, self.max_interval)
            self.due[judged.index] = self.epoch + 1 + torch.where(learned, 0, sleep).int()
            longer = (2 * sleep).clamp_max(self.max_interval)
            self.interval[judged.index] = torch.where(learned, 1, longer).int()

    def state(self) -> dict[str, Tensor]:
        return {"interval": self.interval, "due": self.due} if self.max_interval else {}


@dataclass
class Lazy(Selective):
    """Only misclassified samples learn (Pache & van Rossum 2023, arXiv 2303.16067)."""

    def weigh(self, judged: Judged) -> Tensor:
        return judged.wrong


@dataclass
class Confidence(Selective):
    """Misclassified samples and hesitant ones learn: max softmax < threshold (the authors' earlier code).

    `threshold` 0 is lazy, 1 is backprop.
    """

    threshold: float = setting(0.9, at_least=0, at_most=1)

    def weigh(self, judged: Judged) -> Tensor:
        if self.threshold == 1:  # rounding can make a softmax exactly 1, which is not below 1
            return torch.ones_like(judged.wrong)
        return judged.wrong | (judged.confidence < self.threshold)


@dataclass
class Spaced(Confidence):
    """`confidence` (threshold 0: lazy) with spaced review; see `Selective.max_interval`."""

    max_interval: int = setting(8, **COUNT)


@dataclass
class Sticky(Selective):
    """A sample that was misclassified once learns for ever after (the group's later code)."""

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.stuck = torch.zeros(info.samples, dtype=torch.bool, device=info.device)

    def weigh(self, judged: Judged) -> Tensor:
        return judged.wrong | self.stuck[judged.index]

    def remember(self, judged: Judged) -> None:
        super().remember(judged)
        self.stuck[judged.index] |= judged.wrong

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "stuck": self.stuck}


@dataclass
class Progressive(Selective):
    """Whose target has a softmax below `threshold` learns, and in the last `revision_epochs` everybody does:
    difficulty-based Progressive Data Dropout (NeurIPS 2025, arXiv 2505.22342).

    `threshold` 0 means the misclassified. The gradient is divided by those who learn. `revision_epochs` as many as
    there are epochs is backprop. As in the authors' code, but that they forward those who learn once more, which
    counts here only where an engine does so.
    """

    reduction: ClassVar[str] = "selected"
    threshold: float = setting(0.3, at_least=0, at_most=1)
    revision_epochs: int = setting(1, at_least=0)

    def visit(self, epoch: int) -> Tensor:
        self.selects = epoch < self.info.epochs - self.revision_epochs  # type: ignore[misc]
        awake = super().visit(epoch)  # also in the last epochs: what `remember` needs is set there
        return awake if self.selects else Rule.visit(self, epoch)

    def weigh(self, judged: Judged) -> Tensor | None:
        if not self.selects:
            return None
        if self.threshold == 0:
            return judged.wrong
        return judged.logits.softmax(1).gather(1, judged.targets.unsqueeze(1)).squeeze(1) < self.threshold
