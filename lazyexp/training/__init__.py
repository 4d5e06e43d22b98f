"""Loops that train: one course of a run, several engines.

`General` is autograd and fits everything. The hand-derived ones fit MLPs with SGD and learn the same: `Direct` batch
by batch, `Deferred` for small batches, `Adaptive` (with `LookAhead`) for rules that decide by a sample's own logits.
`Packed` learns in full batches, with any of them.
"""

from __future__ import annotations

from torch import nn

from lazyexp.accounting import Energy
from lazyexp.config import OptimizerConfig
from lazyexp.data import Images
from lazyexp.errors import UserError
from lazyexp.rules import Rule
from lazyexp.rules.base import Backprop
from lazyexp.training import deferred, lookahead
from lazyexp.training.adaptive import Adaptive
from lazyexp.training.deferred import Deferred
from lazyexp.training.direct import Direct
from lazyexp.training.general import General
from lazyexp.training.layers import Layers
from lazyexp.training.packed import Packed
from lazyexp.training.trainer import Engine, Plan, Trainer, accuracy

__all__ = ["Engine", "Plan", "Trainer", "accuracy", "make_engine"]


def make_engine(
    name: str,
    model: nn.Module,
    images: Images,
    rule: Rule,
    optimizer: OptimizerConfig,
    batch_size: int,
    energy: Energy,
) -> Engine:
    """The engine for a run; `name` is auto, general or fast. Raises UserError where a fast one does not apply."""
    if getattr(rule, "block", 0):
        learner = make_engine(name, model, images, Backprop(), optimizer, batch_size, energy)
        return Packed(learner, model, images, rule, batch_size)
    fits = Layers.fit(model) and optimizer.name == "sgd"
    if name == "fast" and not fits:
        raise UserError("engine=fast: is for model=mlp with optimizer=sgd; use engine=auto")
    kind: type = General
    if fits and name != "general":
        kind = Direct
        if optimizer.momentum == 0 and optimizer.weight_decay == 0:
            if rule.pointwise and batch_size <= lookahead.BLOCK // 4:
                kind = Adaptive
            elif batch_size <= deferred.BLOCK // 4:
                kind = Deferred
    return kind(model, images, rule, optimizer, batch_size, energy)
