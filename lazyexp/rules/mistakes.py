"""Rules that learn from mistakes: the two papers' rules and variants. They decide by a sample's own logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lazyexp.config.fields import require, setting
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch
from lazyexp.rules.spacing import Spacing

# Epochs are counted in 32 bits, and an interval is doubled before it is capped.
INTERVAL: dict[str, Any] = {"at_least": 0, "at_most": 2**30, "wanted": "from 0 (off) to 2^30"}


@dataclass
class MistakeRule(Rule):
    """Base of the rules in this module. Adds spaced review (our extension), off by default.

    `max_interval`: a sample that was not selected is skipped for 1, 2, 4, … epochs, at most this many, before it is
    presented again; a selected one is presented in the next epoch. `skip_threshold` below 1: an unselected sample
    with at least this confidence is skipped for `max_interval` epochs at once.
    """

    pointwise: ClassVar[bool] = True
    capturable: ClassVar[bool] = True
    max_interval: int = setting(0, "skip unselected samples for up to this many epochs; 0: off", **INTERVAL)
    skip_threshold: float = setting(1.0, "confidence that skips max_interval epochs at once", at_least=0, at_most=1)

    def check(self) -> None:
        super().check()
        require(
            self.skip_threshold == 1 or self.max_interval > 0,
            "rule.skip_threshold",
            self.skip_threshold,
            "1 unless rule.max_interval is set; it has no effect",
        )

    def start(self, info: RunInfo) -> None:
        super().start(info)
        if self.max_interval:
            self.spacing = Spacing(info.samples, self.max_interval, info.device)

    def epoch_indices(self, epoch: int) -> Tensor:
        self.epoch = epoch
        order = super().epoch_indices(epoch)
        return self.spacing.active(order, epoch) if self.max_interval else order

    def update(self, batch: ScoredBatch) -> None:
        if self.max_interval:
            assert batch.selected is not None
            confident = batch.confidence >= self.skip_threshold if self.skip_threshold < 1 else None
            self.spacing.update(batch.index, batch.selected, self.epoch, confident)

    def state(self) -> dict[str, Tensor]:
        return self.spacing.state() if self.max_interval else {}

    def restore(self, state: dict[str, Tensor]) -> None:
        spacing = {name: state[name] for name in Spacing.STATE if name in state}
        if spacing:
            self.spacing.restore(spacing)
        super().restore({name: value for name, value in state.items() if name not in spacing})


@dataclass
class Lazy(MistakeRule):
    """Select misclassified samples (Pache & van Rossum 2023, arXiv 2303.16067)."""

    def select(self, batch: ScoredBatch) -> Tensor:
        return batch.wrong


@dataclass
class MistakeGated(MistakeRule):
    """Select samples that are misclassified now or were ever misclassified before: memorised mistake gating (Pache &
    van Rossum 2026, arXiv 2604.14336)."""

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.ever_wrong = torch.zeros(info.samples, dtype=torch.bool, device=info.device)

    def select(self, batch: ScoredBatch) -> Tensor:
        return batch.wrong | self.ever_wrong[batch.index]

    def update(self, batch: ScoredBatch) -> None:
        super().update(batch)
        self.ever_wrong[batch.index] |= batch.wrong

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "ever_wrong": self.ever_wrong}


@dataclass
class Confidence(MistakeRule):
    """Select misclassified samples and those with max softmax < `threshold` (the authors' earlier code).

    `threshold` 0 is `lazy`, 1 is `backprop`.
    """

    threshold: float = setting(0.9, "largest softmax below which a sample is selected", at_least=0, at_most=1)

    def select(self, batch: ScoredBatch) -> Tensor:
        if self.threshold == 1:  # rounding can make a softmax exactly 1, which is not below 1
            return torch.ones_like(batch.wrong)
        return batch.wrong | (batch.confidence < self.threshold)


@dataclass
class Spaced(Confidence):
    """`confidence` with spaced review (ours): unselected samples are skipped for 1, 2, 4, … epochs."""

    max_interval: int = setting(8, "skip unselected samples for up to this many epochs; 0: off", **INTERVAL)
