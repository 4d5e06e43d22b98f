"""Learning from mistakes: the paper's rule and its more cautious variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.rules.base import Judged, Rule


@dataclass
class Lazy(Rule):
    """Only misclassified samples learn (Pache & van Rossum 2023, arXiv 2303.16067)."""

    pointwise: ClassVar[bool] = True

    def weigh(self, judged: Judged) -> Tensor:
        return judged.wrong


@dataclass
class Confidence(Rule):
    """Misclassified samples and hesitant ones learn: max softmax < threshold (the authors' earlier code).

    `threshold` 0 is lazy, 1 is backprop.
    """

    pointwise: ClassVar[bool] = True
    threshold: float = 0.9

    def check(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UserError(f"rule.threshold={self.threshold}: must be from 0 to 1")

    def weigh(self, judged: Judged) -> Tensor:
        if self.threshold == 1:  # rounding can make a softmax exactly 1, which is not below 1
            return torch.ones_like(judged.wrong)
        return judged.wrong | (judged.confidence < self.threshold)
