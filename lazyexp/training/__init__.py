"""Loops that train: one course of a run, several engines.

`General` is autograd and fits everything. The hand-derived ones fit MLPs with SGD: `Direct` batch by batch,
`Deferred` for small batches, `LookAhead` for rules that decide by a sample's own logits. They learn the same.
"""

from __future__ import annotations

from torch import nn

from lazyexp.accounting import Energy
from lazyexp.config import OptimizerConfig
from lazyexp.data import Images
from lazyexp.errors import UserError
from lazyexp.rules import Rule
from lazyexp.training import deferred, lookahead
from lazyexp.training.deferred import Deferred
from lazyexp.training.direct import Direct
from lazyexp.training.general import General
from lazyexp.training.layers import Layers
from lazyexp.training.lookahead import LookAhead
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
    fits = Layers.fit(model) and optimizer.name == "sgd"
    if name == "fast" and not fits:
        raise UserError("engine=fast: is for model=mlp with optimizer=sgd; use engine=auto")
    kind: type = General
    if fits and name != "general":
        kind = Direct
        if optimizer.momentum == 0 and optimizer.weight_decay == 0:
            if rule.pointwise and batch_size <= lookahead.BLOCK // 4:
                kind = LookAhead
            elif batch_size <= deferred.BLOCK // 4:
                kind = Deferred
    return kind(model, images, rule, optimizer, batch_size, energy)
