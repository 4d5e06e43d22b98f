"""Loops that train: one trainer, several engines.

`General` is autograd and fits everything. The hand-derived ones fit MLPs and learn the same: `Direct` and
`DirectAdam` batch by batch; under plain SGD `Deferred` for small batches, and `Adaptive` (with `LookAhead`) for rules
that decide by a sample's own logits.
`Packed` learns in full batches, with any of them.
"""

from __future__ import annotations

from dataclasses import replace

from lazyexp.errors import UserError
from lazyexp.rules.base import Backprop
from lazyexp.training.fast import deferred, lookahead
from lazyexp.training.fast.adam import OPTIMIZERS, DirectAdam
from lazyexp.training.fast.adaptive import Adaptive
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.layers import Layers
from lazyexp.training.fast.packed import Packed
from lazyexp.training.general import General
from lazyexp.training.job import Engine, Job
from lazyexp.training.trainer import Plan, Trainer, accuracy

__all__ = ["Engine", "Job", "Plan", "Trainer", "accuracy", "make_engine"]


def make_engine(name: str, job: Job) -> Engine:
    """The engine for a job; `name` is auto, general or fast. Raises UserError where a fast one does not apply."""
    rule, optimizer, batch_size = job.rule, job.optimizer, job.batch_size
    if rule.block:
        return Packed(job, make_engine(name, replace(job, rule=Backprop())))
    fits = Layers.fit(job.model) and optimizer.name in ("sgd", *OPTIMIZERS)
    if name == "fast" and not fits:
        raise UserError("engine=fast: is for model=mlp with optimizer=sgd, adam or adamw; use engine=auto")
    kind: type = General
    if fits and name != "general":
        kind = DirectAdam if optimizer.name in OPTIMIZERS else Direct
        if kind is Direct and optimizer.momentum == 0 and optimizer.weight_decay == 0:
            if rule.pointwise and batch_size <= lookahead.BLOCK // 4:
                kind = Adaptive
            elif batch_size <= deferred.BLOCK // 4:
                kind = Deferred
    return kind(job)
