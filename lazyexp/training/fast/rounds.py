"""SGD on a GPU that is asked nothing: a round judges a window of samples and lets its first batch of learners learn.

Where the window begins, which batch of it learns, at which rate, and whether any does, are numbers on the device.
So every round is the same list of calls and can be one CUDA graph, of which the host starts as many as it expects
to be needed. It asks how far they have come about once in a thousand samples; rounds too many do nothing.

A step that nobody wants is made with zeros: for plain SGD it changes nothing, and momentum and weight decay are
switched off by factors that are 1 and 0. The weights are those of one-after-the-other learning before every round,
so a judgement needs no corrections (compare lookahead.py, which trades products for calls as a CPU needs it).
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
from lazyexp.training.fast.layers import Layers, divisor, on_device
from lazyexp.training.selection import Selector

# Samples that can be judged in the time of a round's other work: one launch of 5 us and some thirty small kernels of
# 1 to 2 us each, against 0.05 us for a sample of 784 x 1000 at 30 TFLOP/s.
COST = 1000
WINDOW = 1024  # samples at most; the memory of a graph grows with it
# Share of batches that learn above which a window is one batch: nothing is judged that must be judged again.
SWITCH = 0.5


class Rounds:
    """SGD with any momentum and weight decay, any batch size and any rule."""

    applies: ClassVar[str] = "on a GPU: SGD with any momentum, weight decay and batch size, any other rule"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        if not Layers.fit(spec.model) or spec.optimizer.name != "sgd":
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
        self.share = 1.0  # of batches that learn, as lately seen
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
            self._go(len(rates), wide=selector.pointwise and not known, known=known)
        else:
            self._one_by_one(index, targets)
        if self.keep:
            for delta, h in zip(buffers.deltas, [buffers.inputs, *buffers.hs], strict=True):
                self.energy.add_rank_one_steps(delta[: len(index)], h[: len(index)])
        logits, learned = buffers.logits[: len(index)].clone(), buffers.learned[: len(index)].clone()
        forwards, updates = buffers.progress[2].clone(), buffers.progress[1].clone()
        return Outcome(logits, index, forwards, updates, learned, learned)

    def _go(self, batches: int, wide: bool, known: bool) -> None:
        """Rounds to the end of the chunk. With `wide` a window may hold many batches, and the host must ask."""
        done = updates = 0
        while done < batches:
            width = self._width() if wide else 1  # in batches
            share = min(max(self.share, 1e-6), 1.0)
            advance = (1 - (1 - share) ** width) / share  # batches that a round may be expected to finish
            for _ in range(math.ceil((batches - done) / advance)):
                self._play(width * self.batch_size, known)
            if not wide or self.batch_size > WINDOW // 2:
                return
            before = done, updates
            done, updates, _ = self.buffers.progress.tolist()  # the one question
            self._note(done - before[0], updates - before[1])

    def _width(self) -> int:
        """Batches to judge at once, a power of two; see lookahead.py for the square root."""
        samples = 1 if self.share >= SWITCH else min(math.sqrt(2 * COST * self.batch_size / self.share), WINDOW)
        return 2 ** int(math.log2(max(samples / self.batch_size, 1)))

    def _note(self, batches: int, updates: int) -> None:
        """Keeps the share of batches that learn, with a memory of some hundred batches."""
        memory = 0.99**batches
        self.share = max(self.share * memory + (1 - memory) * updates / max(batches, 1), 1e-6)

    def _play(self, window: int, known: bool) -> None:
        if not self.buffers.progress.is_cuda:
            self._round(window, known)
            return
        if (window, known) not in self.graphs:
            self.graphs[window, known] = self._capture(window, known)
        self.graphs[window, known].replay()

    def _capture(self, window: int, known: bool) -> torch.cuda.CUDAGraph:
        """A round as a graph. Capturing needs rehearsals: behind the room for chunks, where nobody learns and
        nothing is overwritten."""
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
        """Judges `window` samples from where the last round has come to, and makes at most one update."""
        buffers, b = self.buffers, self.batch_size
        done = buffers.progress[:1]
        rows = buffers.steps[:window] + done * b
        x, targets = buffers.inputs.index_select(0, rows), buffers.targets.index_select(0, rows)
        zs, hs, logits = self.layers.rest(self.layers.first(x))
        buffers.logits.index_copy_(0, rows, logits)  # those that must be judged again are written again
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
            wants = (weight != 0).view(-1, b).any(1)
            first = wants.int().argmax(0, keepdim=True)
            finished = torch.where(wants.any(), first + 1, window // b)
            pick = first * b + buffers.steps[:b]
            presented = inside.index_select(0, pick).sum()
            rows, x, targets, logits, weight, *rest = (
                t.index_select(0, pick) for t in (rows, x, targets, logits, weight, *zs, *hs)
            )
            zs, hs = rest[: len(zs)], rest[len(zs) :]
        rate = buffers.rates.index_select(0, done + first)
        updates, deltas = self._learn(x, targets, zs, hs, logits, weight, rate, presented.clamp_min(1))
        buffers.learned.index_copy_(0, rows, weight != 0)
        if self.keep:
            for place, value in zip([*buffers.deltas, *buffers.hs], [*deltas, *hs], strict=True):
                place.index_copy_(0, rows, value)
        buffers.progress[1:2].add_(updates)
        buffers.progress[:1].add_(finished).clamp_max_(buffers.end)

    def _one_by_one(self, index: Tensor, targets: Tensor) -> None:
        """The same for a rule that decides in Python: batch after batch, call by call."""
        buffers, b = self.buffers, self.batch_size
        for start in range(0, len(index), b):
            here = slice(start, min(start + b, len(index)))
            x, size = buffers.inputs[here], here.stop - start
            zs, hs, logits = self.layers.rest(self.layers.first(x))
            buffers.logits[here] = logits
            weight = self.selector.weights(ScoredBatch(index[here], logits, targets[here])).to(logits.dtype)
            updates, deltas = self._learn(x, targets[here], zs, hs, logits, weight, buffers.rates[start // b], size)
            buffers.learned[here] = weight != 0
            buffers.progress[1].add_(updates)
            if self.keep:
                for place, value in zip([*buffers.deltas, *buffers.hs], [*deltas, *hs], strict=True):
                    place[here] = value
        buffers.progress[2].add_(len(index))

    def _learn(
        self, x: Tensor, targets: Tensor, zs: list[Tensor], hs: list[Tensor], logits: Tensor, weight: Tensor,
        rate: Tensor, presented: Any,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """One step by a batch of samples of `weight` (b,). Returns the number of updates, 0 or 1, and the deltas."""
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
            weights.addmm_(delta.t(), h)
            bias.add_(delta.sum(0))
            if self.batch_size > 1:
                self.energy.add_step(delta, h)
        return updates, deltas

    def _step(self, deltas: list[Tensor], inputs: list[Tensor], rate: Tensor, on: Tensor) -> None:
        """What torch.optim.SGD does with the gradients delta^T h, times `on`: nothing at all where that is 0."""
        self.energy.before_step()
        gradients = [delta.t() @ h for delta, h in zip(deltas, inputs, strict=True)]
        gradients += [delta.sum(0) for delta in deltas]
        on = on.to(rate.dtype)
        keep, step = 1 - on * (1 - self.momentum), on * -rate
        for place, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            if self.decay:
                gradient.add_(parameter, alpha=self.decay)
            if self.momentum:
                gradient = self.velocity[place].mul_(keep).addcmul_(gradient, on)
            parameter.addcmul_(gradient, step)
        self.energy.after_step()

    def state(self) -> dict[str, Any]:
        return {"velocity": self.velocity, "share": self.share}

    def restore(self, state: dict[str, Any]) -> None:
        self.share = state["share"]
        for mine, saved in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(saved)


class ChunkBuffers:
    """A chunk on the device and what became of it, with room for a window behind its end. The memory stays, graphs
    have been made for it.

    `progress` counts finished batches, updates and judged samples; `size` and `end` are the chunk's samples and
    batches. At batch 1 `deltas` and `hs` keep every sample's
    step for the energy: the sums of an outer product factorise, and are taken for the whole chunk at once.
    """

    def __init__(self, layers: Layers, room: int, batch_size: int) -> None:
        like, self.room = layers.weights[0], -(-room // batch_size) * batch_size
        size = self.room + max(WINDOW, batch_size)

        def zeros(*shape: int, dtype: torch.dtype = like.dtype) -> Tensor:
            return like.new_zeros(shape, dtype=dtype)

        self.index, self.targets = zeros(size, dtype=torch.int64), zeros(size, dtype=torch.int64)
        self.inputs, self.logits = zeros(size, layers.inputs), zeros(size, layers.classes)
        self.weight, self.rates = zeros(size), zeros(size // batch_size + 1)
        self.learned = zeros(size, dtype=torch.bool)
        kept = size if batch_size == 1 else 0
        self.hs = [zeros(kept, layers.width) for _ in range(layers.depth)]
        self.deltas = [zeros(kept, layers.width) for _ in range(layers.depth)] + [zeros(kept, layers.classes)]
        self.progress, self.size, self.end = (zeros(number, dtype=torch.int64) for number in (3, 1, 1))
        self.steps = torch.arange(max(WINDOW, batch_size), device=like.device)

    def load(self, index: Tensor, inputs: Tensor, targets: Tensor, rates: Tensor) -> None:
        """Puts a chunk in; nothing of it is judged yet."""
        self.index[: len(index)], self.targets[: len(index)] = index, targets
        self.inputs[: len(index)], self.rates[: len(rates)] = inputs, rates
        self.size.fill_(len(index))
        self.end.fill_(len(rates))
        for tensor in (self.progress, self.learned, *self.deltas):
            tensor.zero_()
