"""LookAhead: exact online training that scores many samples at a time.

While no sample is selected, no weight changes. So a block of samples is scored with the current weights. The results
are final up to the first selected sample; its update affects only the samples behind it. Their first-layer
pre-activations change by (x_i . x_j + 1) d_i (see deferred.py), and their later layers are computed again. Updates
and their order are those of one-by-one training.

The first layer of a block is one matrix product. Within the block, a smaller window is scored at once, so that an
update discards few results; a window is first corrected for the updates of the block before it. Windows are long
while updates are rare and short while they are frequent.
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
from lazyexp.utils.products import add_outer

BLOCK = 512
# Scoring a window has a fixed cost of about COST scored samples, so windows of sqrt(2 COST / rate) samples balance it
# against the results that an update discards.
COST = 80


class LookAhead:
    """Scores windows of samples ahead of the updates and corrects them after each update.

    For plain SGD (no momentum, no weight decay) under a rule that decides by a sample's own logits.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self.layers, self.samples, self.energy = Layers(spec.model, spec.rounded), spec.samples, spec.energy
        self.selector = Selector(spec.rule)
        self.batch_size, self.reduction = spec.batch_size, spec.reduction
        self.block = BLOCK // self.batch_size * self.batch_size
        self.share = 0.5  # of recent batches with an update

    @torch.inference_mode()
    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        parts = []
        for start in range(0, len(index), self.block):
            block = Block(self, index[start : start + self.block], rates[start // self.batch_size :])
            block.train()
            parts.append(block)
        logits = torch.cat([block.logits for block in parts])
        selected = torch.cat([block.selected for block in parts])
        forwards, updates = sum(block.forwards for block in parts), sum(block.updates for block in parts)
        return Outcome(logits, index, forwards, updates, selected, selected)

    def window(self) -> int:
        """Samples to score at once, a whole number of batches."""
        rate = max(self.share / self.batch_size, 1e-6)
        samples = min(math.sqrt(2 * COST / rate), self.block)
        return max(int(samples) // self.batch_size, 1) * self.batch_size

    def state(self) -> dict[str, Any]:
        return {"share": self.share}

    def restore(self, state: dict[str, Any]) -> None:
        self.share = state["share"]


class Block:
    """A block of samples in training: logits and changes so far."""

    def __init__(self, engine: LookAhead, index: Tensor, rates: list[float]) -> None:
        self.engine, self.layers, self.index, self.rates = engine, engine.layers, index, rates
        inputs, self.targets = self.layers.batch(engine.samples, index)
        self.z = self.layers.first(inputs)
        self.inputs = inputs.to(self.z.dtype)  # for small products, which are slower in bfloat16
        self.logits = self.z.new_empty(len(index), self.layers.classes)
        self.onehot = F.one_hot(self.targets, self.layers.classes).to(self.z.dtype)
        self.selected = torch.zeros(len(index), dtype=torch.bool, device=index.device)
        # The first `number` rows: inputs of the samples trained on so far, and their changes of the first layer.
        self.trained, self.changes = torch.empty_like(self.inputs), torch.empty_like(self.z)
        self.number = self.forwards = self.updates = 0

    def train(self) -> None:
        """Score all samples in order, train on the selected ones, then change the first layer."""
        start = 0
        while start < len(self.index):
            stop = min(start + self.engine.window(), len(self.index))
            self._correct(start, stop, slice(0, self.number))
            while start < stop:
                start = self._advance(start, stop)
        if self.number:
            changes = self.changes[: self.number]
            add_outer(self.layers.weights[0], changes, self.trained[: self.number])
            self.layers.biases[0].add_(changes.sum(0))

    def _correct(self, start: int, stop: int, rows: slice) -> None:
        """Add the changes by the `rows` of trained samples to the pre-activations from start to stop."""
        if rows.start < rows.stop and start < stop:
            overlap = torch.mm(self.inputs[start:stop], self.trained[rows].t()).add_(1)
            self.z[start:stop].addmm_(overlap, self.changes[rows])

    def _advance(self, start: int, stop: int) -> int:
        """Score the samples from start to stop and train on the first batch that has a selected sample.

        Returns the start of the samples that are left: behind that batch, or `stop` if there is none.
        """
        engine, here = self.engine, slice(start, stop)
        zs, hs, logits = self.layers.rest(self.z[here])
        self.logits[here] = logits
        weight = engine.selector.weights(ScoredBatch(self.index[here], logits, self.targets[here]))
        self.forwards += stop - start
        selected: list[int] = weight.nonzero().squeeze(1).tolist()  # the only wait
        if not selected:
            self._note(batches=math.ceil((stop - start) / engine.batch_size), updates=0)
            return stop
        first = selected[0] // engine.batch_size  # in batches from `start`
        begin = first * engine.batch_size
        end = min(begin + engine.batch_size, stop - start)
        rows = [row for row in selected if row < end]
        self._note(batches=first + 1, updates=1)
        self._train_batch(start, rows, end - begin, weight, zs, hs)
        self._correct(start + end, stop, slice(self.number - len(rows), self.number))
        return start + end

    def _train_batch(
        self, start: int, rows: list[int], size: int, weight: Tensor, zs: list[Tensor], hs: list[Tensor]
    ) -> None:
        """One update by the `rows` (counted from start) of a batch of `size` samples."""
        engine, layers = self.engine, self.layers
        # A slice is a view, an index a copy; at batch 1 there is one row.
        pick: slice | Tensor = (
            slice(rows[0], rows[0] + 1) if len(rows) == 1 else torch.tensor(rows, device=weight.device)
        )
        inputs, zs, hs = self.inputs[start:][pick], [z[pick] for z in zs], [h[pick] for h in hs]
        self.selected[start:][pick] = True
        rate = self.rates[(start + rows[0]) // engine.batch_size]
        last = self.logits[start:][pick].softmax(1).sub_(self.onehot[start:][pick])
        if weight.dtype != torch.bool:
            last.mul_(weight[pick].unsqueeze(1))
        deltas = layers.backward(last.mul_(-rate / divisor(size, len(rows), engine.reduction)), zs, hs)
        for layer in range(1, layers.depth + 1):
            layers.weights[layer].addmm_(deltas[layer].t(), hs[layer - 1])
            layers.biases[layer].add_(deltas[layer][0] if len(rows) == 1 else deltas[layer].sum(0))
        new = slice(self.number, self.number + len(rows))
        self.trained[new], self.changes[new] = inputs, deltas[0]
        self.number, self.updates = new.stop, self.updates + 1
        for delta, h in zip(deltas, [inputs, *hs], strict=True):
            engine.energy.add_step(delta, h)

    def _note(self, batches: int, updates: int) -> None:
        """Keep the share of batches with an update, over about the last hundred batches."""
        memory = 0.99**batches
        self.engine.share = self.engine.share * memory + (1 - memory) * updates / batches
