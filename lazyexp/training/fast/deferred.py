"""Deferred: exact online SGD at matrix speed; the large weight matrix is changed once per block of small batches.

After sample i has changed the first layer by dW = d_i x_i^T, db = d_i, the pre-activations of a later sample j
change by (x_i . x_j + 1) d_i. So the pre-activations of a block are computed in one matrix product with the weights
at its start, each batch adds the changes by the batches before it, and one matrix product at the end applies the sum
of all changes. Updates and their order are those of plain SGD; only the rounding differs. At 784-1000-10 this reads
and writes the 3 MB of the first layer once per block instead of twice per sample.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules import ScoredBatch
from lazyexp.training.counters import Outcome
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Changed, Layers, divisor, is_plain_sgd, on_device
from lazyexp.training.selection import Selector
from lazyexp.utils.products import add_outer, affine

# Samples in a block: enough for matrix speed, few enough that the corrections stay in the cache.
BLOCK = 128
# On a GPU a block is one launch and five copies, and a graph of about ten kernels per sample.
GPU_BLOCK = 256


class Deferred:
    """Collects the changes of the first layer over a block of batches and applies them at its end.

    For plain SGD (no momentum, no weight decay) on batches of up to BLOCK / 4 samples, with any rule.
    """

    applies: ClassVar[str] = "plain SGD, batches of up to 32 samples; on a GPU rules that need no forward pass"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        if not Layers.fit(spec.model) or not is_plain_sgd(spec.optimizer):
            return "is for model=mlp with plain SGD"
        if spec.batch_size > BLOCK // 4:
            return "is for small batches"
        rule = Selector(spec.rule)
        if spec.samples.pixels.is_cuda and rule.scores:
            return "on a GPU it is for rules that need no forward pass"
        if not spec.samples.pixels.is_cuda and rule.pointwise:
            return "rules that decide by a sample's own logits are faster with look-ahead"
        return None

    def __init__(self, spec: EngineSpec) -> None:
        self.layers, self.samples, self.energy = Layers(spec.model, spec.rounded), spec.samples, spec.energy
        self.selector = Selector(spec.rule)
        self.batch_size, self.reduction = spec.batch_size, spec.reduction
        # If the decisions need no logits, the host need not wait for them, and a block can be a CUDA graph.
        self.captured = spec.samples.pixels.is_cuda and not self.selector.scores
        self.block = (GPU_BLOCK if self.captured else BLOCK) // self.batch_size * self.batch_size
        self.selects = False
        self.changed: Changed | None = None
        self.buffers = Buffers(self.layers, self.block)
        self.slots = self._slots(self.block)
        if self.captured:
            with torch.inference_mode():
                self.graph = self._capture()

    @torch.inference_mode()
    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        steps = on_device(rates, self.buffers.step).repeat_interleave(self.batch_size)[: len(index)]
        logits = self.samples.pixels.new_empty(len(index), self.layers.classes, dtype=self.samples.dtype)
        selected = torch.ones_like(index, dtype=torch.bool)
        if self.captured:
            return self._replay(index, steps, logits)
        known, updates = self.selector.before(index), 0
        # Whether every batch must call the rule.
        self.selects = self.selector.selects and not (
            known is not None and known.dtype == torch.bool and bool(known.all())
        )
        for start in range(0, len(index), self.block):
            here = slice(start, start + self.block)
            updates += self._train_block(index[here], steps[here], logits[here], selected[here])
        return Outcome(logits, index, len(index), updates, selected, selected)

    def _slots(self, size: int) -> list[Slot]:
        """The batches of a block of `size` samples; the last one may be short."""
        starts = range(0, size, self.batch_size)
        return [Slot(self.buffers, start, min(start + self.batch_size, size)) for start in starts]

    def _train_block(self, index: Tensor, rates: Tensor, logits: Tensor, selected: Tensor) -> int:
        """Train on a block; fill in `logits` and `selected`. Returns the number of updates."""
        size, buffers = len(index), self.buffers
        inputs, targets = self.layers.batch(self.samples, index)
        buffers.inputs[:size] = inputs
        buffers.onehot[:size] = F.one_hot(targets, self.layers.classes)
        buffers.step[:size, 0] = rates / -self.batch_size
        slots = self.slots
        if size < self.block:
            slots = self._slots(size)
            last = slots[-1]
            last.step.mul_(self.batch_size / (last.stop - last.start))
        updates = self._compute(slots, inputs, index, targets, selected)
        logits.copy_(buffers.logits[:size])
        self._count_energy(slots, size)
        return updates

    def _compute(self, slots: list[Slot], inputs: Tensor, index: Tensor, targets: Tensor, selected: Tensor) -> int:
        """The arithmetic of a block, from its inputs to the changed weights. Returns the number of updates."""
        buffers, size = self.buffers, slots[-1].stop
        affine(inputs, self.layers.weights[0], self.layers.biases[0], out=buffers.zs[0][:size])
        buffers.gram[:size, :size] = inputs @ inputs.t()
        buffers.gram[:size, :size].add_(1)
        updates = sum(self._train_batch(slot, index, targets, selected) for slot in slots)
        changes = buffers.deltas[0][:size]
        add_outer(self.layers.weights[0], changes, inputs)
        self.layers.biases[0].add_(changes.sum(0))
        if self.changed is not None:
            self.changed(changes, inputs, index)
        return updates

    def _capture(self) -> torch.cuda.CUDAGraph:
        """A full block as a CUDA graph: hundreds of small launches become one.

        Only for rules that decide without logits. A capture needs warm-up passes; their step sizes are 0, so that
        they change no weight.
        """
        for buffer in (self.buffers.inputs, self.buffers.onehot, self.buffers.step):
            buffer.zero_()
        index = torch.zeros(self.block, dtype=torch.int64, device=self.buffers.step.device)
        selected = torch.ones_like(index, dtype=torch.bool)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._compute(self.slots, self.buffers.inputs, index, index, selected)
                self._count_energy(self.slots, self.block)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._compute(self.slots, self.buffers.inputs, index, index, selected)
            self._count_energy(self.slots, self.block)
        return graph

    def _replay(self, index: Tensor, rates: Tensor, logits: Tensor) -> Outcome:
        """A chunk by the graph, without a wait: selection and weights are part of the step sizes."""
        buffers, batch = self.buffers, torch.arange(len(index), device=index.device) // self.batch_size
        images, targets = self.samples.batch(index)
        inputs, onehot = images.flatten(1), F.one_hot(targets, self.layers.classes)
        weight = torch.ones_like(rates)
        known = self.selector.before(index)
        if known is not None:
            weight = known.to(rates.dtype)
        selected = weight != 0
        batches = -(-len(index) // self.batch_size)
        number = selected.new_zeros(batches, dtype=torch.int64).index_add_(0, batch, selected.long())
        presented = torch.full_like(number, self.batch_size)
        presented[-1:].fill_(len(index) - (batches - 1) * self.batch_size)
        divide_by = divisor(presented, number.clamp_min(1), self.reduction)
        steps = weight * rates / -divide_by[batch]
        for start in range(0, len(index), self.block):
            here = slice(start, start + self.block)
            size = len(index[here])
            buffers.inputs[:size], buffers.onehot[:size] = inputs[here], onehot[here]
            buffers.step[:size, 0] = steps[here]
            buffers.step[size:].zero_()  # a short block is filled up with samples of step size 0
            self.graph.replay()
            logits[here] = buffers.logits[:size]
        return Outcome(logits, index, len(index), (number > 0).sum(), selected, selected)

    def _train_batch(self, slot: Slot, index: Tensor, targets: Tensor, selected: Tensor) -> int:
        """Score a batch of a block with the current weights, then train on it. Returns the number of updates."""
        layers = self.layers
        if slot.start:
            slot.zs[0].addmm_(slot.gram, slot.earlier)
        layers.activate(slot.zs[0], slot.hs[0])
        for layer in range(1, layers.depth):
            torch.addmm(layers.biases[layer], slot.hs[layer - 1], layers.weights[layer].t(), out=slot.zs[layer])
            layers.activate(slot.zs[layer], slot.hs[layer])
        torch.addmm(layers.biases[-1], slot.hs[-1], layers.weights[-1].t(), out=slot.logits)

        here = slice(slot.start, slot.stop)
        weight = self.selector.select(ScoredBatch(index[here], slot.logits, targets[here])) if self.selects else None
        torch.softmax(slot.logits, 1, out=slot.last).sub_(slot.onehot).mul_(slot.step)
        if weight is not None:
            selected[here] = weight != 0
            number, size = int(selected[here].sum()), slot.stop - slot.start
            if not number:
                for delta in slot.deltas:
                    delta.zero_()
                return 0
            slot.last.mul_(weight.unsqueeze(1)).mul_(size / divisor(size, number, self.reduction))

        delta = slot.last
        for layer in range(layers.depth, 0, -1):
            back = slot.deltas[layer - 1]
            torch.mm(delta, layers.weights[layer], out=back)
            layers.differentiate(back, slot.zs[layer - 1], slot.hs[layer - 1], back)
            layers.weights[layer].addmm_(delta.t(), slot.hs[layer - 1])
            layers.biases[layer].add_(delta[0] if self.batch_size == 1 else delta.sum(0))
            delta = back
        return 1

    def _count_energy(self, slots: list[Slot], size: int) -> None:
        buffers = self.buffers
        for delta, h in zip(buffers.deltas, [buffers.inputs, *buffers.hs], strict=True):
            if self.batch_size == 1:
                self.energy.add_rank_one_steps(delta[:size], h[:size])
                continue
            for slot in slots:
                self.energy.add_step(delta[slot.start : slot.stop], h[slot.start : slot.stop])

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None: ...


class Buffers:
    """Arrays of a block, allocated once.

    `deltas[l]` (block, units of layer l + 1): the changes to apply, -learning rate / divisor * weight * gradient.
    `gram` (block, block): x_i . x_j + 1.
    """

    def __init__(self, layers: Layers, block: int) -> None:
        def empty(width: int) -> Tensor:
            return layers.weights[0].new_empty(block, width)

        hidden = range(layers.depth)
        self.zs, self.hs = [empty(layers.width) for _ in hidden], [empty(layers.width) for _ in hidden]
        self.deltas = [empty(layers.width) for _ in hidden] + [empty(layers.classes)]
        self.logits, self.onehot, self.step = empty(layers.classes), empty(layers.classes), empty(1)
        self.inputs, self.gram = empty(layers.inputs), empty(block)


class Slot:
    """Views of the buffers for one batch, made once: at batch 1 slicing costs as much as the arithmetic."""

    def __init__(self, buffers: Buffers, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.zs, self.hs, self.deltas = (
            [array[start:stop] for array in arrays] for arrays in (buffers.zs, buffers.hs, buffers.deltas)
        )
        self.last = self.deltas[-1]
        self.logits, self.onehot, self.step = (
            array[start:stop] for array in (buffers.logits, buffers.onehot, buffers.step)
        )
        self.gram, self.earlier = buffers.gram[start:stop, :start], buffers.deltas[0][:start]
