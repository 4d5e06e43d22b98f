"""A rule as the engines use it: when it decides, and its answers, checked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.rules import Rule, ScoredBatch


def is_builtin(rule: Rule) -> bool:
    """Whether a rule's class is one of this package."""
    return type(rule).__module__.startswith("lazyexp.rules.")


def protected(batch: ScoredBatch) -> ScoredBatch:
    """A copy for a custom rule, which may keep or change its tensors."""
    selected = None if batch.selected is None else batch.selected.clone()
    tensors = (batch.index.clone(), batch.logits.clone(), batch.targets.clone(), selected)
    return ScoredBatch(*tensors, batch.label_smoothing)


class Selector:
    """Calls a rule and checks what it returns. A custom rule gets and returns copies.

    `selects`: whether the rule may leave a sample out. `scores`: whether it may need logits to decide. Raises
    UserError for a result of the wrong shape, which would otherwise be broadcast.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule, kind = rule, type(rule)
        self.scores = kind.select is not Rule.select
        self._preselects = kind.preselect is not Rule.preselect
        self.selects = self.scores or self._preselects
        self.builtin = is_builtin(rule)
        self.pointwise = self.scores and rule.pointwise and self._declares("pointwise")
        self.capturable = rule.capturable and self._declares("capturable")

    def _declares(self, flag: str) -> bool:
        """Whether a flag holds for the rule's `select`: a class that overrides `select` must declare it again."""
        if self.builtin:
            return True
        for kind in type(self.rule).__mro__:
            if flag in vars(kind) or kind.__module__.startswith("lazyexp.rules."):
                return True
            if "select" in vars(kind) or "preselect" in vars(kind):
                return False
        return False

    def before(self, index: Tensor) -> Tensor | None:
        """The decision for the samples `index` (m,) if it needs no forward pass: (m,) bool or weights; else None."""
        if not self._preselects:
            return None
        return self._checked("preselect", self.rule.preselect(index if self.builtin else index.clone()), index)

    def decided(self, index: Tensor) -> bool:
        """Whether the decision for the samples `index` (m,) needs no forward pass."""
        return not self.scores or self.before(index) is not None

    def select(self, batch: ScoredBatch) -> Tensor | None:
        """The decision for a scored batch: (b,) bool or weights; None: all samples, with weight 1."""
        if self._preselects:
            weight = self.before(batch.index)
            if weight is not None:
                return weight
        if not self.scores:
            return None
        return self._checked("select", self.rule.select(batch if self.builtin else protected(batch)), batch.index)

    def weights(self, batch: ScoredBatch) -> Tensor:
        """As `select`, with ones (b,) bool where all samples are selected."""
        weight = self.select(batch)
        return torch.ones_like(batch.index, dtype=torch.bool) if weight is None else weight

    def _checked(self, method: str, weight: Tensor | None, index: Tensor) -> Tensor | None:
        if weight is None:
            return None
        name = f"rule {type(self.rule).__name__}: {method}"
        if not isinstance(weight, Tensor) or weight.shape != index.shape:
            shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise UserError(f"{name} must return None or ({len(index)},), not {shape}")
        if weight.device != index.device:
            raise UserError(f"{name} returned a tensor on {weight.device}; must be on {index.device}")
        return weight if self.builtin else weight.detach().clone()


def checked_order(rule: Rule, epoch: int) -> Tensor:
    """The epoch's indices (m,) int64. Raises UserError unless they are indices of training samples, at least one."""
    order = rule.epoch_indices(epoch)
    if is_builtin(rule):  # a check would wait for a GPU
        return order
    valid = isinstance(order, Tensor) and order.dim() == 1 and order.dtype == torch.int64
    if not valid or len(order) == 0 or int(order.min()) < 0 or int(order.max()) >= rule.info.samples:
        raise UserError(
            f"rule {type(rule).__name__}: epoch_indices must return (m,) int64, m >= 1, positions of training samples"
        )
    return order.clone()


def checked_rate_factor(rule: Rule, epoch: int) -> float:
    """The epoch's factor on the learning rate. Raises UserError unless it is a finite number greater than 0."""
    factor = rule.rate_factor(epoch)
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        raise UserError(
            f"rule {type(rule).__name__}: rate_factor returned {factor!r}; must be a finite number greater than 0"
        )
    return float(factor)
