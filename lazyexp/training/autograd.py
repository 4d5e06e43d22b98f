"""The general loop: autograd, any module, any optimizer. The plain text against which fast paths are tested."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules import ScoredBatch
from lazyexp.training.counters import Outcome
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Layers, divisor
from lazyexp.training.modes import batch_norms
from lazyexp.training.optimizers import make_optimizer, step
from lazyexp.training.selection import Selector
from lazyexp.utils.seeding import generator


class AutogradEngine:
    """Presents batches one after the other; those who learn decide whether there is a step at all.

    One forward pass serves judging and learning, and samples that do not learn count as zero gradients. But where
    a pass is expensive, that is for any model but our MLP, all are judged without a graph and those who learn are
    forwarded again: for a few of them this is cheaper than a backward pass through the whole batch.

    Modes. The pass that only judges is in evaluation mode: no dropout, the network answers as it would be tested.
    Learning is in training mode. With BatchNorm there is always but one pass, in training mode, over the whole
    batch: the few who learn would make poor statistics by themselves, and one alone none at all. So running
    statistics move with every presented batch, whoever learns, as they do under backprop. A batch of one sample has
    no variance: there BatchNorm uses its running statistics, as in evaluation. Who packs (`Packed`) judges in
    evaluation mode and moves running statistics with the batches that learn: the weights are then judged and tested
    under the statistics with which they were trained.

    Dropout draws from PyTorch's generator, seeded anew for every call of `train`, so that runs repeat and resume.
    """

    applies: ClassVar[str] = "any model, any optimizer"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        return None

    def __init__(self, spec: EngineSpec) -> None:
        self.model, self.samples, self.energy = spec.model, spec.samples, spec.energy
        self.selector = Selector(spec.rule)
        self.batch_size, self.reduction = spec.batch_size, spec.reduction
        self.norms = batch_norms(spec.model)
        self.plain = Layers.fit(spec.model)
        self.again = self.selector.selects and not self.plain and not self.norms
        self.optimizer = make_optimizer(spec.optimizer, spec.model.parameters())
        self.seed, self.calls = spec.seed, 0

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        self.calls += 1
        device = self.samples.targets.device
        with torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=not self.plain):
            if not self.plain:
                torch.manual_seed(generator(self.seed, "dropout", self.calls).initial_seed())
            return self._train(index, rates)

    def _train(self, index: Tensor, rates: list[float]) -> Outcome:
        parts, chosen, forwards, updates = [], [], 0, 0
        for batch, rate in zip(index.split(self.batch_size), rates, strict=True):
            images, targets = self.samples.batch(batch)
            self._set_mode(judging=self.again, samples=len(batch))
            with torch.set_grad_enabled(not self.again):
                logits = self.model(images)
            forwards += len(batch)
            weight = self.selector.select(ScoredBatch(batch, logits.detach(), targets))
            learns = torch.ones_like(batch, dtype=torch.bool) if weight is None else weight != 0
            number = len(batch) if weight is None else int(learns.sum())
            if number:
                divide_by = divisor(len(batch), number, self.reduction)
                graph = logits
                if self.again:
                    self._set_mode(judging=False, samples=number)
                    graph, targets = self.model(images[learns]), targets[learns]
                    weight = None if weight is None else weight[learns]
                    forwards += number
                loss = F.cross_entropy(graph, targets, reduction="none")
                total = loss.sum() if weight is None else (loss * weight).sum()
                self._step(total / divide_by, rate)
                updates += 1
            parts.append(logits.detach())
            chosen.append(learns)
        learned = torch.cat(chosen)
        return Outcome(torch.cat(parts), index, forwards, updates, learned, learned)

    def _set_mode(self, judging: bool, samples: int) -> None:
        if self.plain:
            return
        self.model.train(not judging)
        if samples == 1:
            for layer in self.norms:
                layer.eval()

    def _step(self, loss: Tensor, rate: float) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        step(self.optimizer, rate, self.energy)

    def state(self) -> dict[str, Any]:
        return {**self.optimizer.state_dict(), "calls": self.calls}

    def restore(self, state: dict[str, Any]) -> None:
        self.calls = state.get("calls", 0)
        self.optimizer.load_state_dict({name: value for name, value in state.items() if name != "calls"})
