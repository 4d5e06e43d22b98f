"""Rounds: SGD on a GPU without waits; a round scores a window of samples and trains on its first selected batch.

Where the window begins, which of its batches is trained on, at which learning rate, and whether there is one, are
numbers on the device. So every round is the same list of calls and can be one CUDA graph, which the host launches as
often as it expects to be needed. The host reads the progress about once per thousand samples; surplus rounds change
nothing.

Without a selected batch, the step is made with zeros. For plain SGD that changes nothing; momentum and weight decay
are switched off by factors of 1 and 0. Before every round the weights are those of one-by-one training, so no logits
need a correction (lookahead.py, for CPUs, saves products by corrections).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules import ScoredBatch
from lazyexp.training.counters import Outcome
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Layers, divisor, is_sgd, on_device
from lazyexp.training.selection import Selector
from lazyexp.utils.products import add_outer, outer

# Samples that can be scored in the time of a round's other work: one launch of 5 us and about thirty small kernels of
# 1 to 2 us each, against 0.05 us for a sample of 784 x 1000 at 30 TFLOP/s.
COST = 1000
WINDOW = 1024  # samples at most; the memory of a graph grows with it
# Share of batches with an update above which a window is one batch, so that no result is discarded.
SWITCH = 0.5


class Rounds:
    """Repeats one fixed list of calls, a round, which a GPU can replay as a CUDA graph.

    For SGD with any momentum and weight decay, any batch size and any rule.
    """

    applies: ClassVar[str] = "on a GPU: SGD with any momentum, weight decay and batch size, any other rule"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        if not Layers.fit(spec.model) or not is_sgd(spec.optimizer):
            return "is for model=mlp with optimizer=sgd"
        return None if spec.samples.pixels.is_cuda else "is for a GPU"

    def __init__(self, spec: EngineSpec) -> None:
        self.layers, self.samples, self.energy = Layers(spec.model), spec.samples, spec.energy
        self.selector = Selector(spec.rule)
        self.batch_size, self.reduction = spec.batch_size, spec.reduction
        self.momentum, self.decay = spec.optimizer.momentum, spec.optimizer.weight_decay
        self.plain = not (self.momentum or self.decay)
        self.keep = self.plain and self.batch_size == 1 and self.energy.enabled  # steps, for the energy
        self.parameters = [*self.layers.weights, *self.layers.biases]
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters] if self.momentum else []
        self.share = 1.0  # of recent batches with an update
        self.buffers = ChunkBuffers(self.layers, 0, self.batch_size)
        self.graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph] = {}

    @torch.inference_mode()
    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        if len(index) > self.buffers.room:
            self.buffers, self.graphs = ChunkBuffers(self.layers, len(index), self.batch_size), {}
        buffers, selector = self.buffers, self.selector
        images, targets = self.samples.batch(index)
        buffers.load(index, images.flatten(1), targets, on_device(rates, self.layers.biases[0]))
        weight = selector.before(index)
        known = weight is not None or not selector.scores
        if known:
            buffers.weight[: len(index)] = 1 if weight is None else weight
        if known or selector.capturable:
            self._run(len(rates), wide=selector.pointwise and not known, known=known)
        else:
            self._one_by_one(index, targets)
        if self.keep:
            for delta, h in zip(buffers.deltas, [buffers.inputs, *buffers.hs], strict=True):
                self.energy.add_rank_one_steps(delta[: len(index)], h[: len(index)])
        logits, selected = buffers.logits[: len(index)].clone(), buffers.selected[: len(index)].clone()
        forwards, updates = buffers.progress[2].clone(), buffers.progress[1].clone()
        return Outcome(logits, index, forwards, updates, selected, selected)

    def _run(self, batches: int, wide: bool, known: bool) -> None:
        """Rounds to the end of the chunk. With `wide` a window may hold many batches, and the host reads progress."""
        done = updates = 0
        while done < batches:
            width = self._width() if wide else 1  # in batches
            share = min(max(self.share, 1e-6), 1.0)
            advance = (1 - (1 - share) ** width) / share  # expected number of batches that a round finishes
            for _ in range(math.ceil((batches - done) / advance)):
                self._do_round(width * self.batch_size, known)
            if not wide or self.batch_size > WINDOW // 2:
                return
            before = done, updates
            done, updates, _ = self.buffers.progress.tolist()  # the only wait
            self._note(done - before[0], updates - before[1])

    def _width(self) -> int:
        """Batches to score at once, a power of two; see lookahead.py for the square root."""
        samples = 1 if self.share >= SWITCH else min(math.sqrt(2 * COST * self.batch_size / self.share), WINDOW)
        return 1 << int(math.log2(max(samples / self.batch_size, 1)))

    def _note(self, batches: int, updates: int) -> None:
        """Keep the share of batches with an update, over about the last hundred batches."""
        memory = 0.99**batches
        self.share = max(self.share * memory + (1 - memory) * updates / max(batches, 1), 1e-6)

    def _do_round(self, window: int, known: bool) -> None:
        """A round: its calls on a CPU, its graph on a GPU."""
        if not self.buffers.progress.is_cuda:
            self._round(window, known)
            return
        if (window, known) not in self.graphs:
            self.graphs[window, known] = self._capture(window, known)
        self.graphs[window, known].replay()

    def _capture(self, window: int, known: bool) -> torch.cuda.CUDAGraph:
        """A round as a CUDA graph. The warm-up passes of a capture run behind the end of the chunk, where no sample
        is selected and nothing is overwritten."""
        buffers = self.buffers
        kept = [(tensor, tensor.clone()) for tensor in (buffers.size, buffers.end, buffers.progress)]
        buffers.size.zero_()
        buffers.end.fill_(buffers.room // self.batch_size)
        buffers.progress[:1].copy_(buffers.end)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._round(window, known)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._round(window, known)
        for tensor, value in kept:
            tensor.copy_(value)
        return graph

    def _round(self, window: int, known: bool) -> None:
        """Score `window` samples from the end of the last round on, and make at most one update."""
        buffers, b = self.buffers, self.batch_size
        done = buffers.progress[:1]
        rows = buffers.steps[:window] + done * b
        x, targets = buffers.inputs.index_select(0, rows), buffers.targets.index_select(0, rows)
        zs, hs, logits = self.layers.rest(self.layers.first(x))
        buffers.logits.index_copy_(0, rows, logits)  # results behind an update are overwritten later
        if known:
            weight = buffers.weight.index_select(0, rows)
        else:
            weight = self.selector.weights(ScoredBatch(buffers.index.index_select(0, rows), logits, targets)).to(
                logits.dtype
            )
        inside = rows < buffers.size
        weight = torch.where(inside, weight, 0.0)
        first, finished = torch.zeros_like(done), torch.ones_like(done)
        presented = inside.sum()
        buffers.progress[2:].add_(presented)
        if window > b:
            selected = (weight != 0).view(-1, b).any(1)
            first = selected.int().argmax(0, keepdim=True)
            finished = torch.where(selected.any(), first + 1, window // b)
            pick = first * b + buffers.steps[:b]
            presented = inside.index_select(0, pick).sum()
            rows, x, targets, logits, weight, *rest = (
                t.index_select(0, pick) for t in (rows, x, targets, logits, weight, *zs, *hs)
            )
            zs, hs = rest[: len(zs)], rest[len(zs) :]
        rate = buffers.rates.index_select(0, done + first)
        updates, deltas = self._update(x, targets, zs, hs, logits, weight, rate, presented.clamp_min(1))
        buffers.selected.index_copy_(0, rows, weight != 0)
        if self.keep:
            for kept, value in zip([*buffers.deltas, *buffers.hs], [*deltas, *hs], strict=True):
                kept.index_copy_(0, rows, value)
        buffers.progress[1:2].add_(updates)
        buffers.progress[:1].add_(finished).clamp_max_(buffers.end)

    def _one_by_one(self, index: Tensor, targets: Tensor) -> None:
        """The same without a graph, for a rule that cannot be captured: batch by batch."""
        buffers, b = self.buffers, self.batch_size
        for start in range(0, len(index), b):
            here = slice(start, min(start + b, len(index)))
            x, size = buffers.inputs[here], here.stop - start
            zs, hs, logits = self.layers.rest(self.layers.first(x))
            buffers.logits[here] = logits
            weight = self.selector.weights(ScoredBatch(index[here], logits, targets[here])).to(logits.dtype)
            updates, deltas = self._update(x, targets[here], zs, hs, logits, weight, buffers.rates[start // b], size)
            buffers.selected[here] = weight != 0
            buffers.progress[1].add_(updates)
            if self.keep:
                for kept, value in zip([*buffers.deltas, *buffers.hs], [*deltas, *hs], strict=True):
                    kept[here] = value
        buffers.progress[2].add_(len(index))

    def _update(
        self, x: Tensor, targets: Tensor, zs: list[Tensor], hs: list[Tensor], logits: Tensor, weight: Tensor,
        rate: Tensor, presented: Tensor | int,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """One step by a batch with `weight` (b,). Returns the number of updates, 0 or 1, and the deltas."""
        number = (weight != 0).sum()
        updates = number.clamp_max(1)
        scale = weight / divisor(presented, number.clamp_min(1), self.reduction)
        if self.plain:
            scale = scale * -rate
        last = logits.softmax(1).sub_(F.one_hot(targets, self.layers.classes)).mul_(scale.unsqueeze(1))
        deltas, inputs = self.layers.backward(last, zs, hs), [x, *hs]
        if not self.plain:
            self._step(deltas, inputs, rate, updates)
            return updates, deltas
        for weights, bias, delta, h in zip(self.layers.weights, self.layers.biases, deltas, inputs, strict=True):
            add_outer(weights, delta, h)
            bias.add_(delta.sum(0))
            if self.batch_size > 1:
                self.energy.add_step(delta, h)
        return updates, deltas

    def _step(self, deltas: list[Tensor], inputs: list[Tensor], rate: Tensor, on: Tensor) -> None:
        """What torch.optim.SGD does with the gradients delta^T h if `on` is 1; nothing if it is 0."""
        self.energy.before_step()
        gradients = [outer(delta, h) for delta, h in zip(deltas, inputs, strict=True)]
        gradients += [delta.sum(0) for delta in deltas]
        on = on.to(rate.dtype)
        keep, step = 1 - on * (1 - self.momentum), on * -rate
        for position, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            if self.decay:
                gradient.add_(parameter, alpha=self.decay)
            if self.momentum:
                gradient = self.velocity[position].mul_(keep).addcmul_(gradient, on)
            parameter.addcmul_(gradient, step)
        self.energy.after_step()

    def state(self) -> dict[str, Any]:
        return {"velocity": self.velocity, "share": self.share}

    def restore(self, state: dict[str, Any]) -> None:
        self.share = state["share"]
        for mine, saved in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(saved)


class ChunkBuffers:
    """A chunk and its results on the device, with room for a window behind its end; its memory is part of the graphs.

    `progress` counts finished batches, updates and forwarded samples; `size` and `end` are the numbers of samples and
    batches of the chunk. At batch 1, `deltas` and `hs` keep the step of every sample for the energy: sums over an
    outer product factorise and are computed for the whole chunk at once.
    """

    def __init__(self, layers: Layers, room: int, batch_size: int) -> None:
        like, self.room = layers.weights[0], -(-room // batch_size) * batch_size
        size = self.room + max(WINDOW, batch_size)

        def zeros(*shape: int, dtype: torch.dtype = like.dtype) -> Tensor:
            return like.new_zeros(shape, dtype=dtype)

        self.index, self.targets = zeros(size, dtype=torch.int64), zeros(size, dtype=torch.int64)
        self.inputs, self.logits = zeros(size, layers.inputs), zeros(size, layers.classes)
        self.weight, self.rates = zeros(size), zeros(size // batch_size + 1)
        self.selected = zeros(size, dtype=torch.bool)
        kept = size if batch_size == 1 else 0
        self.hs = [zeros(kept, layers.width) for _ in range(layers.depth)]
        self.deltas = [zeros(kept, layers.width) for _ in range(layers.depth)] + [zeros(kept, layers.classes)]
        self.progress, self.size, self.end = (zeros(number, dtype=torch.int64) for number in (3, 1, 1))
        self.steps = torch.arange(max(WINDOW, batch_size), device=like.device)

    def load(self, index: Tensor, inputs: Tensor, targets: Tensor, rates: Tensor) -> None:
        """Load a chunk and reset the results."""
        self.index[: len(index)], self.targets[: len(index)] = index, targets
        self.inputs[: len(index)], self.rates[: len(rates)] = inputs, rates
        self.size.fill_(len(index))
        self.end.fill_(len(rates))
        for tensor in (self.progress, self.selected, *self.deltas):
            tensor.zero_()
