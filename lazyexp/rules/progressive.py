"""Progressive Data Dropout and its two random baselines (NeurIPS 2025, arXiv 2505.22342)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.rules.base import Rule, ScoredBatch, random_members
from lazyexp.rules.mistakes import MistakeRule


@dataclass
class Progressive(MistakeRule):
    """Select samples whose target probability is below `threshold`; in the last `revision_epochs`, all samples.

    Difficulty-based Progressive Data Dropout (arXiv 2505.22342). `threshold` 0 selects the misclassified. The
    gradient is divided by the number of selected samples. `revision_epochs` equal to the number of epochs is
    backprop. The authors' code forwards the selected samples a second time; here this happens, and counts, only
    where an engine does so.
    """

    reduction: ClassVar[str] = "selected"
    threshold: float = setting(0.3, "target probability below which a sample is selected", at_least=0, at_most=1)
    revision_epochs: int = setting(1, "last epochs, in which all samples are selected", at_least=0)

    def epoch_indices(self, epoch: int) -> Tensor:
        active = super().epoch_indices(epoch)
        return Rule.epoch_indices(self, epoch) if self._in_revision() else active

    def preselect(self, index: Tensor) -> Tensor | None:
        return torch.ones_like(index, dtype=torch.bool) if self._in_revision() else None

    def select(self, batch: ScoredBatch) -> Tensor:
        return batch.wrong if self.threshold == 0 else batch.target_probability < self.threshold

    def _in_revision(self) -> bool:
        return self.epoch >= self.info.epochs - self.revision_epochs


@dataclass
class MatchedDropout(Rule):
    """Select, of every batch, as many samples as `progressive` would, at random: schedule-matched random dropout.

    `threshold` and `revision_epochs` as in `progressive`. At batch size 1 the rule equals `progressive`.
    `revision_epochs` equal to the number of epochs is backprop. The authors' code forwards the selected samples a
    second time.
    """

    reduction: ClassVar[str] = "selected"
    threshold: float = setting(0.3, "target probability below which a sample counts", at_least=0, at_most=1)
    revision_epochs: int = setting(1, "last epochs, in which all samples are selected", at_least=0)

    def epoch_indices(self, epoch: int) -> Tensor:
        self.in_revision = epoch >= self.info.epochs - self.revision_epochs
        self.draw = self.draws(epoch)
        return super().epoch_indices(epoch)

    def preselect(self, index: Tensor) -> Tensor | None:
        return torch.ones_like(index, dtype=torch.bool) if self.in_revision else None

    def select(self, batch: ScoredBatch) -> Tensor:
        counted = batch.wrong if self.threshold == 0 else batch.target_probability < self.threshold
        return random_members(self.draw[batch.index], counted.sum())


@dataclass
class ScalarDropout(Rule):
    """Present a random share `decay`^e of all samples in epoch e = 0, 1, …; in the last `revision_epochs`, all.

    Scalar random dropout. Samples that are not presented cost nothing. `decay` 1 is backprop. The authors' code draws
    the share from every batch, which shrinks; here it is drawn from the epoch, so batches stay full and there are
    fewer of them.
    """

    decay: float = setting(0.99, "factor on the presented share per epoch", above=0, at_most=1)
    revision_epochs: int = setting(1, "last epochs, which present all samples", at_least=0)

    def epoch_indices(self, epoch: int) -> Tensor:
        order = super().epoch_indices(epoch)
        if epoch >= self.info.epochs - self.revision_epochs:
            return order
        return order[: max(int(self.decay**epoch * len(order)), 1)]
