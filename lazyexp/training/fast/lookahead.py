"""Exact online learning from mistakes, judged many samples at a time.

While nobody learns, no weight changes. So a block of coming samples is judged with the present weights, all up
to the first one that learns are thereby done, and only those behind it are affected by its update: the
first layer's pre-activations of sample j by (x_i . x_j + 1) d_i (see deferred.py), the later layers by being
computed again. What is learned, and when, is what one-at-a-time learning would have done.

A block's first layer is one matrix product. Within the block a smaller window is judged at once, so that a
mistake throws away few judgements; a window is first told what the block has learned before it. Window sizes
follow the number of learners: many in a row while mistakes are rare, few while they are common.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules import ScoredBatch
from lazyexp.training.counters import Outcome
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Layers, divisor
from lazyexp.training.selection import Selector

BLOCK = 512
# A window of n samples costs about as much as COST judged samples besides its own, so sqrt(2 COST / rate) samples
# balance that against the judgements that a mistake throws away.
COST = 80


class LookAhead:
    """Plain SGD (no momentum, no weight decay) under a rule that decides by a sample's own logits."""

    def __init__(self, spec: EngineSpec) -> None:
        self.layers, self.samples, self.energy = Layers(spec.model), spec.samples, spec.energy
        self.selector = Selector(spec.rule)
        self.batch_size, self.reduction = spec.batch_size, spec.reduction
        self.block = BLOCK // self.batch_size * self.batch_size
        self.share = 0.5  # of batches that learn, as lately seen

    @torch.inference_mode()
    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        parts = []
        for place in range(0, len(index), self.block):
            first = place // self.batch_size
            block = Block(self, index[place : place + self.block], rates[first:])
            block.learn()
            parts.append(block)
        logits = torch.cat([block.logits for block in parts])
        learned = torch.cat([block.learned for block in parts])
        forwards, updates = sum(block.forwards for block in parts), sum(block.updates for block in parts)
        return Outcome(logits, index, forwards, updates, learned, learned)

    def window(self) -> int:
        """Samples to judge at once, a whole number of batches."""
        rate = max(self.share / self.batch_size, 1e-6)
        samples = min(math.sqrt(2 * COST / rate), self.block)
        return max(int(samples) // self.batch_size, 1) * self.batch_size

    def state(self) -> dict[str, Any]:
        return {"share": self.share}

    def restore(self, state: dict[str, Any]) -> None:
        self.share = state["share"]


class Block:
    """A block of samples on its way through the engine: what was judged, and what was learned so far."""

    def __init__(self, engine: LookAhead, index: Tensor, rates: list[float]) -> None:
        self.engine, self.layers, self.index, self.rates = engine, engine.layers, index, rates
        images, self.targets = engine.samples.batch(index)
        self.inputs = images.flatten(1)
        self.z = self.layers.first(self.inputs)
        self.logits = self.z.new_empty(len(index), self.layers.classes)
        self.onehot = F.one_hot(self.targets, self.layers.classes).to(self.z.dtype)
        self.learned = torch.zeros(len(index), dtype=torch.bool, device=index.device)
        # Inputs of those who learned so far, and what they added to the first layer's pre-activations.
        self.learners, self.changes = torch.empty_like(self.inputs), torch.empty_like(self.z)
        self.number = self.forwards = self.updates = 0

    def learn(self) -> None:
        """Judges and learns all samples in order, then changes the first layer."""
        start = 0
        while start < len(self.index):
            stop = min(start + self.engine.window(), len(self.index))
            self._correct(start, stop, slice(0, self.number))
            while start < stop:
                start = self._judge(start, stop)
        if self.number:
            changes = self.changes[: self.number]
            self.layers.weights[0].addmm_(changes.t(), self.learners[: self.number])
            self.layers.biases[0].add_(changes.sum(0))

    def _correct(self, start: int, stop: int, learners: slice) -> None:
        """Adds to the pre-activations from start to stop what the learners have changed."""
        if learners.start < learners.stop and start < stop:
            overlap = torch.mm(self.inputs[start:stop], self.learners[learners].t()).add_(1)
            self.z[start:stop].addmm_(overlap, self.changes[learners])

    def _judge(self, start: int, stop: int) -> int:
        """Judges from start to stop and lets the first batch that wants to learn do so.

        Returns where to go on: behind that batch, or at `stop` if there is none.
        """
        engine, here = self.engine, slice(start, stop)
        zs, hs, logits = self.layers.rest(self.z[here])
        self.logits[here] = logits
        weight = engine.selector.weights(ScoredBatch(self.index[here], logits, self.targets[here]))
        self.forwards += stop - start
        learners = weight.nonzero().squeeze(1).tolist()  # the one thing that Python must know
        if not learners:
            self._note(batches=math.ceil((stop - start) / engine.batch_size), learned=0)
            return stop
        first = learners[0] // engine.batch_size  # in batches from `start`
        begin = first * engine.batch_size
        end = min(begin + engine.batch_size, stop - start)
        rows = [row for row in learners if row < end]
        self._note(batches=first + 1, learned=1)
        self._learn_batch(start, rows, end - begin, weight, zs, hs)
        self._correct(start + end, stop, slice(self.number - len(rows), self.number))
        return start + end

    def _learn_batch(
        self, start: int, rows: list[int], size: int, weight: Tensor, zs: list[Tensor], hs: list[Tensor]
    ) -> None:
        """One update by the `rows` (counted from start) of a batch of `size` samples."""
        engine, layers = self.engine, self.layers
        # A slice is a view, a list of rows a copy; at batch 1 there is one row.
        pick: Any = slice(rows[0], rows[0] + 1) if len(rows) == 1 else torch.tensor(rows, device=weight.device)
        inputs, zs, hs = self.inputs[start:][pick], [z[pick] for z in zs], [h[pick] for h in hs]
        self.learned[start:][pick] = True
        rate = self.rates[(start + rows[0]) // engine.batch_size]
        last = self.logits[start:][pick].softmax(1).sub_(self.onehot[start:][pick])
        if weight.dtype != torch.bool:
            last.mul_(weight[pick].unsqueeze(1))
        deltas = layers.backward(last.mul_(-rate / divisor(size, len(rows), engine.reduction)), zs, hs)
        for layer in range(1, layers.depth + 1):
            layers.weights[layer].addmm_(deltas[layer].t(), hs[layer - 1])
            layers.biases[layer].add_(deltas[layer][0] if len(rows) == 1 else deltas[layer].sum(0))
        new = slice(self.number, self.number + len(rows))
        self.learners[new], self.changes[new] = inputs, deltas[0]
        self.number, self.updates = new.stop, self.updates + 1
        for delta, h in zip(deltas, [inputs, *hs], strict=True):
            engine.energy.add_step(delta, h)

    def _note(self, batches: int, learned: int) -> None:
        """Keeps the share of batches that learn, with a memory of some ten learners."""
        memory = 0.99**batches
        self.engine.share = self.engine.share * memory + (1 - memory) * learned / batches
