"""The autograd engine: any model, any optimizer. The reference against which all other engines are tested."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules import ScoredBatch
from lazyexp.training.counters import Outcome
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Layers, divisor
from lazyexp.training.guards import HiddenState, forward
from lazyexp.training.isolation import seeded
from lazyexp.training.modes import batch_norms
from lazyexp.training.optimizers import Stepper, make_optimizer
from lazyexp.training.selection import Selector
from lazyexp.utils.terminal import log

# Inputs of small batches are gathered for several batches at once: so many numbers stay in a core's cache.
AT_ONCE = 2**18


class AutogradEngine:
    """Trains batch by batch with PyTorch's autograd; a batch without a selected sample makes no optimizer step.

    How a batch is forwarded:

    - An MLP of the built-in kind: once, with a graph; samples that are not selected get a gradient of zero.
    - Any other model, if the rule needs the logits: all samples without a graph, then the selected ones again with a
      graph. With few selected samples this is cheaper than a backward pass through the whole batch.
    - Any other model, if the rule decides before the forward pass: the selected samples once with a graph, the others
      once without.
    - A model with batch normalisation: once, with a graph, in training mode, as the whole batch. The statistics of a
      few selected samples would be poor, and a single sample has none. So running statistics follow every presented
      batch, as under backprop. In a batch of one sample, batch normalisation uses its running statistics.

    Passes without a graph are in evaluation mode (no dropout), passes with a graph in training mode. Packing
    (`Packed`) scores in evaluation mode and moves running statistics with its batches of selected samples, so the
    model is scored and tested under the statistics with which it was trained.

    With precision=bfloat16 all passes are under autocast: weights, gradients and the loss stay float32.

    Models that draw random numbers, as for dropout, find the global generators seeded anew for every call of `train`,
    so that runs repeat and resume.
    """

    applies: ClassVar[str] = "any model, any optimizer"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        return None

    def __init__(self, spec: EngineSpec) -> None:
        self.model, self.samples = spec.model, spec.samples
        self.selector = Selector(spec.rule)
        self.batch_size, self.reduction = spec.batch_size, spec.reduction
        self.norms = batch_norms(spec.model)
        self.plain = Layers.fit(spec.model)
        self.at_once = 1  # batches; a custom model may change its last input later
        if self.plain:
            self.at_once = max(1, AT_ONCE // (spec.batch_size * math.prod(spec.samples.shape)))
        if self.norms and self.selector.scores and spec.batch_size > 1:
            log(
                "note: with BatchNorm every batch is trained on as a whole, so that selecting samples saves no time; "
                "packing.block_size scores in evaluation mode and trains on full batches of selected samples, and "
                "normalisation within a sample (model=resnet model.norm=group) lets unselected samples be skipped"
            )
        self.one_pass = not self.selector.selects or self.plain or bool(self.norms)
        optimizer = make_optimizer(spec.optimizer, spec.model.parameters())
        self.stepper = Stepper(optimizer, spec.optimizer.lr, spec.energy)
        self.hidden_state = HiddenState.of_optimizer(optimizer)
        self.seed, self.calls, self.precision = spec.seed, 0, spec.precision
        self.label_smoothing = spec.samples.label_smoothing

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        self.calls += 1
        device = self.samples.targets.device
        random = nullcontext() if self.plain else seeded(self.seed, "dropout", self.calls, device=device)
        with random, self.stepper.training():
            return self._train(index, rates)

    def _train(self, index: Tensor, rates: list[float]) -> Outcome:
        # Made before training: a small tensor that is kept from every batch would lie where the gradients of a batch
        # were, so that those of the next one do not fit, and memory would grow with every step.
        selected, all_logits = torch.empty_like(index, dtype=torch.bool), None
        start = forwards = updates = 0
        for rate, (batch, inputs, targets) in zip(rates, self._batches(index), strict=True):
            weight = None if self.one_pass else self.selector.before(batch)
            if weight is None:
                logits, chosen, number = self._train_batch(batch, inputs, targets, rate)
                forwards += 0 if self.one_pass else number
            else:
                logits, chosen, number = self._train_preselected(inputs, targets, rate, weight)
            if all_logits is None:
                all_logits = logits.new_empty((len(index), *logits.shape[1:]))
            stop = start + len(batch)
            all_logits[start:stop], selected[start:stop] = logits, chosen
            forwards += len(batch)
            updates += number > 0
            start = stop
        assert all_logits is not None
        return Outcome(all_logits, index, forwards, updates, selected, selected)

    def _batches(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The batches of a chunk: indices (b,), inputs (b, ...), targets (b,)."""
        for part in index.split(self.batch_size * self.at_once):
            tensors = (part, *self.samples.batch(part))
            yield from zip(*(tensor.split(self.batch_size) for tensor in tensors), strict=True)

    def _train_batch(self, index: Tensor, inputs: Tensor, targets: Tensor, rate: float) -> tuple[Tensor, Tensor, int]:
        """Score a batch and train on it. Returns logits (b, classes), the selected (b,) bool, and their number."""
        self._set_mode(training=self.one_pass, samples=len(index))
        with torch.set_grad_enabled(self.one_pass):
            graph = forward(self.model, inputs, self.precision)
        logits = graph.detach() if self.plain else graph.detach().clone()  # a custom model may reuse its output
        weight = self.selector.select(ScoredBatch(index, logits, targets, None, self.label_smoothing))
        selected = as_mask(weight, index)
        number = len(index) if weight is None else int(selected.sum())
        if number == len(index) and selected is weight:  # all samples, with weight 1
            weight = None
        if number:
            if not self.one_pass:
                self._set_mode(training=True, samples=number)
                graph, targets = forward(self.model, inputs[selected], self.precision), targets[selected]
                weight = None if weight is None else weight[selected]
            self._step(graph, targets, weight, divisor(len(index), number, self.reduction), rate)
        return logits, selected, number

    def _train_preselected(
        self, inputs: Tensor, targets: Tensor, rate: float, weight: Tensor
    ) -> tuple[Tensor, Tensor, int]:
        """As `_train_batch` for a batch whose `weight` (b,) is known: every sample is forwarded once."""
        selected = weight != 0
        number, parts = int(selected.sum()), []
        if number < len(weight):
            self._set_mode(training=False, samples=len(weight) - number)
            with torch.no_grad():
                parts.append((~selected, forward(self.model, inputs[~selected], self.precision).clone()))
        if number:
            self._set_mode(training=True, samples=number)
            graph = forward(self.model, inputs[selected], self.precision)
            parts.append((selected, graph.detach().clone()))
            divide_by = divisor(len(weight), number, self.reduction)
            self._step(graph, targets[selected], weight[selected], divide_by, rate)
        logits = parts[0][1].new_empty(len(weight), parts[0][1].shape[1])
        for mask, values in parts:
            logits[mask] = values
        return logits, selected, number

    def _step(self, logits: Tensor, targets: Tensor, weight: Tensor | None, divide_by: int, rate: float) -> None:
        """One optimizer step by the gradient of the weighted, summed loss over `divide_by`."""
        if weight is None:
            total = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=self.label_smoothing)
        else:
            loss = F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
            total = (loss * weight).sum()
        self.stepper.zero_grad()
        (total if divide_by == 1 else total / divide_by).backward()
        self.stepper.step(rate)

    def _set_mode(self, training: bool, samples: int) -> None:
        if self.plain:
            return
        self.model.train(training)
        if samples == 1:
            for layer in self.norms:
                layer.eval()

    def state(self) -> dict[str, Any]:
        self.hidden_state.check()
        return {**self.stepper.optimizer.state_dict(), "calls": self.calls}

    def restore(self, state: dict[str, Any]) -> None:
        self.calls = state.get("calls", 0)
        self.stepper.optimizer.load_state_dict({name: value for name, value in state.items() if name != "calls"})


def as_mask(weight: Tensor | None, index: Tensor) -> Tensor:
    """The selected of the samples `index` (b,): (b,) bool, by a rule's answer."""
    if weight is None:
        return torch.ones_like(index, dtype=torch.bool)
    return weight if weight.dtype == torch.bool else weight != 0
