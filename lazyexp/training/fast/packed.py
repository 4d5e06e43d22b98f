"""Packed: score many samples at once, queue the selected ones, and train on full batches of them.

Forward passes run at the speed of large matrices, and updates are few and full. The price: a sample is selected by
weights that are up to a block old. Its gradient is current, because queued samples are forwarded again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeGuard

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.rules import ScoredBatch
from lazyexp.training.counters import Outcome
from lazyexp.training.engine import Engine, EngineSpec
from lazyexp.training.fast.bf16 import Bfloat16Scorer
from lazyexp.training.fast.bf16_split import SplitScorer
from lazyexp.training.fast.components import ComponentScorer
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.int8 import Int8Scorer
from lazyexp.training.fast.layers import Layers
from lazyexp.training.guards import forward
from lazyexp.training.modes import eval_mode
from lazyexp.training.selection import Selector

# Full batches that a block should yield: while many samples are selected, blocks are short and selection is recent.
BATCHES = 4


class Scorer(Protocol):
    """Computes logits as precisely as selecting samples needs."""

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) of the samples `index` (b,), and their targets (b,)."""
        ...

    def weights_changed(self) -> None:
        """Discard what was derived from the weights; called after every update."""

    def again(self, samples: int) -> int:
        """How many of so many samples are forwarded twice; they count as forwarded."""
        ...


class ModelScorer:
    """The model itself, in its own precision and in evaluation mode."""

    def __init__(self, spec: EngineSpec) -> None:
        self.model, self.samples, self.precision = spec.model, spec.samples, spec.precision
        # A custom optimizer may put new tensors in the place of the weights, of which `Layers` holds views.
        built_in = spec.optimizer._target_ is None
        self.plain = Layers(spec.model) if built_in and Layers.fit(spec.model) else None

    def weights_changed(self) -> None: ...

    def again(self, samples: int) -> int:
        return 0

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = self.samples.batch(index)
        if self.plain is not None:
            return self.plain.logits(inputs), targets
        with eval_mode(self.model), torch.no_grad():
            return forward(self.model, inputs, self.precision).clone(), targets  # a custom model may reuse its output


def bfloat16_scorer(spec: EngineSpec) -> Scorer:
    """The split product on a GPU, where it costs nothing; on a CPU each product costs as much as the first."""
    return SplitScorer(spec) if spec.samples.pixels.is_cuda else Bfloat16Scorer(spec)


SCORERS: dict[str, Callable[[EngineSpec], Scorer]] = {
    "float32": ModelScorer,
    "bfloat16": bfloat16_scorer,
    "int8": Int8Scorer,
}


def make_scorer(spec: EngineSpec) -> Scorer:
    """The scorer of the settings `packing.components` and `packing.precision`."""
    return ComponentScorer(spec) if spec.packing.components else SCORERS[spec.packing.precision](spec)


def reports_changes(engine: Engine) -> TypeGuard[Deferred | Direct]:
    """Whether an engine calls `changed` with every update of the first layer."""
    return type(engine) is Deferred or (type(engine) is Direct and engine.plain)


class Packed:
    """Selects samples in blocks of up to packing.block_size; `inner` trains on full batches of the selected ones."""

    applies: ClassVar[str] = "`packing.block_size` > 0, around the engine that trains all samples"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        if spec.plasticity.name == "cached":
            return "plasticity=cached: its time is counted in presented samples; set packing.block_size=0"
        precision = spec.packing.precision
        if precision != "float32" and not spec.samples.affine:
            return f"packing.precision={precision}: must be float32 for dataset.scale=channel and augment=cutout"
        return None

    def __init__(self, spec: EngineSpec, inner: Engine) -> None:
        self.inner, self.selector, self.batch_size = inner, Selector(spec.rule), spec.batch_size
        self.block_size, self.share = spec.block_size, 1.0  # share: of samples that were selected recently
        self.label_smoothing = spec.samples.label_smoothing
        self.scorer = make_scorer(spec)
        if isinstance(self.scorer, ComponentScorer) and reports_changes(inner):
            inner.changed, self.scorer.follows = self.scorer.follow, True
        self.queue = torch.empty(0, dtype=torch.int64, device=spec.samples.targets.device)

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        """Train on the samples `index` (m,) in blocks; a batch has the learning rate of its position in the epoch."""
        logits, masks, trained, position = [], [], [index[:0]], 0
        forwards: int | Tensor = len(index)
        updates: int | Tensor = 0
        while position < len(index):
            block = index[position : position + self._size()]
            position += len(block)
            scores, targets = self.scorer(block)
            forwards = forwards + self.scorer.again(len(block))
            mask = self._select(ScoredBatch(block, scores, targets, None, self.label_smoothing))
            selected = block[mask]
            logits.append(scores)
            masks.append(mask)
            self.share = 0.5 * self.share + 0.5 * len(selected) / len(block)
            self.queue = torch.cat([self.queue, selected])
            full = len(self.queue) // self.batch_size * self.batch_size
            if full:
                # All full batches in one call, so that an engine for small batches can share its products.
                ready, self.queue = self.queue[:full], self.queue[full:]
                rate = rates[(position - 1) // self.batch_size]
                outcome = self.inner.train(ready, [rate] * (full // self.batch_size))
                self.scorer.weights_changed()
                trained.append(ready)
                forwards, updates = forwards + outcome.forwards, updates + outcome.updates
        return Outcome(torch.cat(logits), torch.cat(trained), forwards, updates, torch.cat(masks))

    @torch.inference_mode()
    def _select(self, batch: ScoredBatch) -> Tensor:
        """(b,) bool: the samples to queue."""
        weight = self.selector.weights(batch)
        if weight.dtype != torch.bool:
            raise UserError(
                f"rule {type(self.selector.rule).__name__}: returns weights ({weight.dtype}); packing queues samples "
                "without a weight: return a mask (torch.bool), or set packing.block_size=0"
            )
        return weight

    def _size(self) -> int:
        """Samples to score at once. Few different sizes, because libraries prepare themselves for every new one."""
        wanted = min(BATCHES * self.batch_size / max(self.share, 1e-6), self.block_size)
        return self.block_size if wanted >= self.block_size else 1 << int(math.log2(max(wanted, 1)))

    def state(self) -> dict[str, Any]:
        scorer = {"scorer": self.scorer.state()} if isinstance(self.scorer, ComponentScorer) else {}
        return {"queue": self.queue, "share": self.share, "inner": self.inner.state(), **scorer}

    def restore(self, state: dict[str, Any]) -> None:
        self.queue, self.share = state["queue"], state["share"]
        self.inner.restore(state["inner"])
        if isinstance(self.scorer, ComponentScorer):
            self.scorer.restore(state["scorer"])
