"""Direct: the hand-derived loop for MLPs with SGD, batch by batch, with any momentum and weight decay."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules import ScoredBatch
from lazyexp.training.counters import Outcome
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Changed, Layers, divisor, is_sgd
from lazyexp.training.selection import Selector
from lazyexp.utils.products import add_outer, outer


class Direct:
    """Forwards every batch, computes gradients of its selected samples only, and changes the weights in place."""

    applies: ClassVar[str] = "SGD with any momentum, weight decay and batch size, any rule"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        if not Layers.fit(spec.model) or not is_sgd(spec.optimizer):
            return "is for model=mlp with optimizer=sgd, adam or adamw"
        return None

    def __init__(self, spec: EngineSpec) -> None:
        self.layers, self.samples, self.energy = Layers(spec.model, spec.rounded), spec.samples, spec.energy
        self.selector = Selector(spec.rule)
        self.batch_size, self.reduction = spec.batch_size, spec.reduction
        self.momentum, self.decay = spec.optimizer.momentum, spec.optimizer.weight_decay
        self.plain = not (self.momentum or self.decay)
        self.changed: Changed | None = None
        self.velocity = [torch.zeros_like(parameter) for parameter in self._parameters()] if self.momentum else []

    @torch.inference_mode()
    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        parts, updates = [], 0
        selected = torch.ones_like(index, dtype=torch.bool)
        batches = zip(index.split(self.batch_size), selected.split(self.batch_size), rates, strict=True)
        for batch, mask, rate in batches:
            inputs, targets = self.layers.batch(self.samples, batch)
            zs, hs, logits = self.layers.rest(self.layers.first(inputs))
            parts.append(logits)
            number = size = len(batch)
            weight = self.selector.select(ScoredBatch(batch, logits, targets)) if self.selector.selects else None
            if weight is not None:
                mask.copy_(weight != 0)
                rows = weight.nonzero().squeeze(1)
                number = len(rows)
                if not number:
                    continue
                if number < size:
                    weight = weight[rows]
                    inputs, logits, targets = inputs[rows], logits[rows], targets[rows]
                    zs, hs = [z[rows] for z in zs], [h[rows] for h in hs]
            last = logits.softmax(1).sub_(F.one_hot(targets, self.layers.classes))
            if weight is not None and weight.dtype != torch.bool:
                last.mul_(weight.unsqueeze(1))
            last.div_(divisor(size, number, self.reduction))
            deltas = self.layers.backward(last, zs, hs)
            self._step(deltas, [inputs, *map(self.layers.factor, hs[:-1]), hs[-1]], rate)
            if self.changed is not None:
                self.changed(deltas[0].mul_(-rate), inputs, batch if weight is None else batch[mask])
            updates += 1
        return Outcome(torch.cat(parts), index, len(index), updates, selected, selected)

    def _step(self, deltas: list[Tensor], inputs: list[Tensor], rate: float) -> None:
        """Change all weights by the gradients delta^T h, as torch.optim.SGD would."""
        if self.plain:
            for layer, (delta, h) in enumerate(zip(deltas, inputs, strict=True)):
                add_outer(self.layers.weights[layer], delta, h, alpha=-rate)
                self.layers.biases[layer].add_(delta.sum(0), alpha=-rate)
                self.energy.add_step(delta, h, rate)
            return
        self.energy.before_step()
        if self.momentum and not self.decay:  # adding to the velocity directly saves a pass over the weights
            for layer, (delta, h) in enumerate(zip(deltas, inputs, strict=True)):
                weight, bias = self.velocity[layer], self.velocity[len(deltas) + layer]
                add_outer(weight, delta, h, beta=self.momentum)
                bias.mul_(self.momentum).add_(delta.sum(0))
            for parameter, velocity in zip(self._parameters(), self.velocity, strict=True):
                parameter.add_(velocity, alpha=-rate)
            self.energy.after_step()
            return
        gradients = [outer(delta, h) for delta, h in zip(deltas, inputs, strict=True)]
        gradients += [delta.sum(0) for delta in deltas]
        for position, (parameter, gradient) in enumerate(zip(self._parameters(), gradients, strict=True)):
            if self.decay:
                gradient.add_(parameter, alpha=self.decay)
            if self.momentum:
                gradient = self.velocity[position].mul_(self.momentum).add_(gradient)
            parameter.add_(gradient, alpha=-rate)
        self.energy.after_step()

    def _parameters(self) -> list[Tensor]:
        return [*self.layers.weights, *self.layers.biases]

    def state(self) -> dict[str, Any]:
        return {"velocity": self.velocity}

    def restore(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self.velocity, state["velocity"], strict=True):
            mine.copy_(saved)
