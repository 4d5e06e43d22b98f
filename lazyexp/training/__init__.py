"""Loops that train: one trainer, several engines.

`General` is autograd and fits everything. The hand-derived ones fit MLPs and learn the same: `Direct` and
`DirectAdam` batch by batch; under plain SGD `Deferred` for small batches, and `Adaptive` (with `LookAhead`) for rules
that decide by a sample's own logits. On a GPU `Rounds` takes their place, but where a block of `Deferred` can be one
graph. `Packed` learns in full batches, with any of them. Where not all synapses may change, that has engines of its
own.
"""

from __future__ import annotations

from dataclasses import replace

from lazyexp.errors import UserError
from lazyexp.rules.base import Backprop
from lazyexp.training.evaluation import accuracy
from lazyexp.training.fast import deferred, lookahead
from lazyexp.training.fast.adam import OPTIMIZERS, DirectAdam
from lazyexp.training.fast.adaptive import Adaptive
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.layers import Layers
from lazyexp.training.fast.packed import Packed
from lazyexp.training.fast.plastic import PLASTICITY
from lazyexp.training.fast.rounds import Rounds
from lazyexp.training.general import General
from lazyexp.training.job import Engine, Job
from lazyexp.training.trainer import Plan, Trainer

__all__ = ["Engine", "Job", "Plan", "Trainer", "accuracy", "make_engine"]


def make_engine(name: str, job: Job) -> Engine:
    """The engine for a job; `name` is auto, general or fast. Raises UserError where a fast one does not apply."""
    rule, optimizer, batch_size = job.rule, job.optimizer, job.batch_size
    if rule.block and job.plasticity.name == "cached":
        raise UserError("plasticity=cached: time passes with samples presented; not for rules that pack (rule.block)")
    if rule.block:
        return Packed(job, make_engine(name, replace(job, rule=Backprop())))
    fits = Layers.fit(job.model) and optimizer.name in ("sgd", *OPTIMIZERS)
    if name == "fast" and not fits:
        raise UserError("engine=fast: is for model=mlp with optimizer=sgd, adam or adamw; use engine=auto")
    if job.plasticity.name != "all":
        if not fits or optimizer.name != "sgd":
            raise UserError(f"plasticity={job.plasticity.name}: is for model=mlp with optimizer=sgd")
        return PLASTICITY[job.plasticity.name](job)
    kind: type = General
    if fits and name != "general" and optimizer.name in OPTIMIZERS:
        kind = DirectAdam
    elif fits and name != "general" and job.images.pixels.is_cuda:
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
