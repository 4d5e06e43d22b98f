"""Packing: judge many samples at once, queue those that must learn, learn in full batches.

Forwards run at the speed of large matrices and updates are few and full, at the price that a sample is selected
by weights that are up to a block old. It learns from its present gradient: queued samples are forwarded again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from lazyexp.rules import ScoredBatch
from lazyexp.training.counters import Outcome
from lazyexp.training.engine import Engine, EngineSpec
from lazyexp.training.fast.bf16 import Bfloat16Scorer
from lazyexp.training.fast.bf16_split import SplitScorer
from lazyexp.training.fast.int8 import Int8Scorer
from lazyexp.training.modes import eval_mode
from lazyexp.training.selection import Selector

# Full batches that a block should yield: while many must learn, blocks are short and selection is fresh.
BATCHES = 4


class Scorer(Protocol):
    """Tells how samples stand with the present weights, as exactly as is needed to choose among them."""

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) of the samples `index` (b,), and their targets (b,)."""
        ...

    def weights_changed(self) -> None:
        """Called after every update: what was derived from the weights holds no more."""

    def again(self, samples: int) -> int:
        """How many of so many samples are forwarded a second time to be sure; they count as forwarded."""
        ...


class ModelScorer:
    """The model itself, in its own precision."""

    def __init__(self, spec: EngineSpec) -> None:
        self.model, self.samples = spec.model, spec.samples

    def weights_changed(self) -> None: ...

    def again(self, samples: int) -> int:
        return 0

    @torch.inference_mode()
    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        images, targets = self.samples.batch(index)
        with eval_mode(self.model):
            return self.model(images), targets


def bfloat16_scorer(spec: EngineSpec) -> Scorer:
    """On a GPU the pixels stay exact at no cost; on a CPU every further product would cost as much as the first."""
    return SplitScorer(spec) if spec.samples.pixels.is_cuda else Bfloat16Scorer(spec)


SCORERS: dict[str, Callable[[EngineSpec], Scorer]] = {
    "float32": ModelScorer,
    "bfloat16": bfloat16_scorer,
    "int8": Int8Scorer,
}


class Packed:
    """Selects by `rule` in blocks of up to rule.block samples; `learner` trains on the full batches."""

    applies: ClassVar[str] = "`packing.block_size` > 0, around the engine that trains all samples"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        if spec.plasticity.name == "cached":
            return "plasticity=cached: time passes with samples presented; not with packing"
        return None

    def __init__(self, spec: EngineSpec, learner: Engine) -> None:
        self.learner, self.selector, self.batch_size, self.share = learner, Selector(spec.rule), spec.batch_size, 1.0
        self.block_size = spec.block_size
        self.scorer = SCORERS[spec.packing.precision](spec)
        self.queue = torch.empty(0, dtype=torch.int64, device=spec.samples.targets.device)

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        """Presents the samples `index` (m,) in blocks; a learning rate is that of its place in the schedule."""
        parts, selected, learned, place = [], [], [index[:0]], 0
        forwards: int | Tensor = len(index)
        updates: int | Tensor = 0
        while place < len(index):
            block = index[place : place + self._size()]
            place += len(block)
            logits, targets = self.scorer(block)
            forwards = forwards + self.scorer.again(len(block))
            with torch.inference_mode():
                weight = self.selector.select(ScoredBatch(block, logits, targets))
            learns = torch.ones_like(block, dtype=torch.bool) if weight is None else weight != 0
            chosen = block[learns]
            selected.append(learns)
            self.share = 0.5 * self.share + 0.5 * len(chosen) / len(block)
            self.queue = torch.cat([self.queue, chosen])
            full = len(self.queue) // self.batch_size * self.batch_size
            if full:
                # All full batches in one call, so that an engine for small batches can share its products.
                ready, self.queue = self.queue[:full], self.queue[full:]
                rate = rates[(place - 1) // self.batch_size]
                outcome = self.learner.train(ready, [rate] * (full // self.batch_size))
                self.scorer.weights_changed()
                learned.append(ready)
                forwards, updates = forwards + outcome.forwards, updates + outcome.updates
            parts.append(logits)
        return Outcome(torch.cat(parts), torch.cat(learned), forwards, updates, torch.cat(selected))

    def _size(self) -> int:
        """Samples to judge at once: few different sizes, since libraries prepare themselves for every new one."""
        wanted = min(BATCHES * self.batch_size / max(self.share, 1e-6), self.block_size)
        return self.block_size if wanted >= self.block_size else 2 ** int(math.log2(max(wanted, 1)))

    def state(self) -> dict[str, Any]:
        return {"queue": self.queue, "share": self.share, "learner": self.learner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.queue, self.share = state["queue"], state["share"]
        self.learner.restore(state["learner"])
