"""The general loop: autograd, any module, any optimizer. The plain text against which fast paths are tested."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.accounting import Outcome
from lazyexp.rules import Judged
from lazyexp.training.fast.layers import Layers, divisor
from lazyexp.training.job import Job

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class General:
    """Presents batches one after the other; those who learn decide whether there is a step at all.

    One forward pass serves judging and learning, and samples that do not learn count as zero gradients. But where
    a pass is expensive, that is for any model but our MLP, all are judged without a graph and those who learn are
    forwarded again: for a few of them this is cheaper than a backward pass through the whole batch.
    """

    def __init__(self, job: Job) -> None:
        self.model, self.images, self.rule, self.energy = job.model, job.images, job.rule, job.energy
        self.batch_size, self.reduction = job.batch_size, job.reduction
        self.again = job.rule.selects and not Layers.fit(job.model)
        config = job.optimizer
        options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
        if config.name == "sgd":
            options["momentum"] = config.momentum
        self.optimizer = OPTIMIZERS[config.name](job.model.parameters(), **options)

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        parts, chosen, forwards, updates = [], [], 0, 0
        for batch, rate in zip(index.split(self.batch_size), rates, strict=True):
            images, targets = self.images.batch(batch)
            with torch.set_grad_enabled(not self.again):
                logits = self.model(images)
            forwards += len(batch)
            weight = self.rule.weigh(Judged(batch, logits.detach(), targets))
            learns = torch.ones_like(batch, dtype=torch.bool) if weight is None else weight != 0
            number = len(batch) if weight is None else int(learns.sum())
            if number:
                divide_by = divisor(len(batch), number, self.reduction)
                graph = logits
                if self.again:
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

    def _step(self, loss: Tensor, rate: float) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.energy.before_step()
        self.optimizer.step()
        self.energy.after_step()

    def state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
