"""Loops that train: one trainer, several engines.

`General` is autograd and fits everything. The hand-derived ones fit MLPs with SGD and learn the same: `Direct` batch
by batch, `Deferred` for small batches, `Adaptive` (with `LookAhead`) for rules that decide by a sample's own logits.
On a GPU `Rounds` takes their place, but where a block of `Deferred` can be one graph. `Packed` learns in full
batches, with any of them.
"""

from __future__ import annotations

from dataclasses import replace

from lazyexp.errors import UserError
from lazyexp.rules.base import Backprop
from lazyexp.training.fast import deferred, lookahead
from lazyexp.training.fast.adaptive import Adaptive
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.layers import Layers
from lazyexp.training.fast.packed import Packed
from lazyexp.training.fast.rounds import Rounds
from lazyexp.training.general import General
from lazyexp.training.job import Engine, Job
from lazyexp.training.trainer import Plan, Trainer, accuracy

__all__ = ["Engine", "Job", "Plan", "Trainer", "accuracy", "make_engine"]


def make_engine(name: str, job: Job) -> Engine:
    """The engine for a job; `name` is auto, general or fast. Raises UserError where a fast one does not apply."""
    rule, optimizer, batch_size = job.rule, job.optimizer, job.batch_size
    if rule.block:
        return Packed(job, make_engine(name, replace(job, rule=Backprop())))
    fits = Layers.fit(job.model) and optimizer.name == "sgd"
    if name == "fast" and not fits:
        raise UserError("engine=fast: is for model=mlp with optimizer=sgd; use engine=auto")
    kind: type = General
    if fits and name != "general" and job.images.pixels.is_cuda:
        plain = optimizer.momentum == 0 and optimizer.weight_decay == 0
        known = rule.prior or not rule.selects
        kind = Deferred if plain and known and batch_size <= deferred.BLOCK // 4 else Rounds
    elif fits and name != "general":
        kind = Direct
        if optimizer.momentum == 0 and optimizer.weight_decay == 0:
            if rule.pointwise and batch_size <= lookahead.BLOCK // 4:
                kind = Adaptive
            elif batch_size <= deferred.BLOCK // 4:
                kind = Deferred
    return kind(job)
