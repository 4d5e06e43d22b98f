"""Restricted plasticity: only the largest updates, or changes that pass through a transient store.

For plain SGD on an MLP, with any rule and batch size. Every weight and every bias is a synapse.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lazyexp.training.counters import Outcome
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.layers import Layers, is_plain_sgd
from lazyexp.utils.products import outer


class Largest(Direct):
    """Change, in every step, only the share plasticity.share of each parameter (a layer's weights, its biases) with
    the largest updates, at least one element; all other updates are lost.

    Competitive plasticity (van Rossum & Pache 2024, PLoS Comput Biol 20(10) e1012553, "only modify synapses with
    large updates"); competition within a layer is our choice. M0 and M1 count the changes that are made.
    """

    applies: ClassVar[str] = "`plasticity=largest`, plain SGD, any rule"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        return restricted_misfit(spec, "largest")

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self.share = spec.plasticity.share

    def _step(self, deltas: list[Tensor], inputs: list[Tensor], rate: float) -> None:
        for parameter, change in zip(self._parameters(), changes(deltas, inputs, rate), strict=True):
            flat = change.flatten()
            winners = flat.abs().topk(max(round(self.share * len(flat)), 1), sorted=False).indices
            kept = flat[winners]
            parameter.view(-1).index_add_(0, winners, kept)
            if self.energy.enabled:
                with self.energy.clock.off():
                    self.energy.add_change(kept)


class Cached(Direct):
    """Collect changes in a transient store and make them persistent when a synapse's store exceeds
    plasticity.threshold: synaptic caching (Li & van Rossum 2020, eLife 9:e50804), for each synapse separately.

    A transient change takes effect immediately. It decays by the share plasticity.decay per presented sample and
    costs plasticity.cost per unit and sample (energy.maintenance). M0 and M1 count the persistent changes; what is in
    the store counts as if it became persistent now, as it does at the end. Without a threshold and without decay, M1
    is therefore its minimum, the direct path. Time is counted in presented samples: after a batch of b samples, the
    store that the batch has left decays and costs b times.
    """

    applies: ClassVar[str] = "`plasticity=cached`, plain SGD, any rule"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        return restricted_misfit(spec, "cached")

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self.threshold, self.decay_rate, self.cost = (
            spec.plasticity.threshold,
            spec.plasticity.decay,
            spec.plasticity.cost,
        )
        self.store = [torch.zeros_like(parameter) for parameter in self._parameters()]
        self.stored = torch.zeros((), dtype=torch.float64, device=self.store[0].device)  # sum of |store|
        self.persistent = {name: torch.zeros_like(self.stored) for name in ("l0", "l1")}

    @torch.inference_mode()
    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        outcomes = []
        for batch, rate in zip(index.split(self.batch_size), rates, strict=True):
            outcomes.append(super().train(batch, [rate]))
            with self.energy.clock.off():
                self.energy.maintenance += self.cost * len(batch) * self.stored
            if self.decay_rate:
                self._decay(len(batch))
        if self.energy.enabled:
            with self.energy.clock.off():
                self.energy.l0.copy_(self.persistent["l0"] + sum(store.count_nonzero() for store in self.store))
                self.energy.l1.copy_(self.persistent["l1"] + self.stored)
        return Outcome(
            torch.cat([outcome.logits for outcome in outcomes]),
            torch.cat([outcome.trained for outcome in outcomes]),
            sum(outcome.forwards for outcome in outcomes),
            sum(outcome.updates for outcome in outcomes),
            torch.cat([outcome.selected for outcome in outcomes]),
        )

    def _step(self, deltas: list[Tensor], inputs: list[Tensor], rate: float) -> None:
        for parameter, store, change in zip(
            self._parameters(), self.store, changes(deltas, inputs, rate), strict=True
        ):
            parameter.add_(change)
            store.add_(change)
            if self.threshold is not None:
                self._consolidate(store, self.threshold)
        self._measure()

    def _consolidate(self, store: Tensor, threshold: float) -> None:
        full = store.abs() > threshold
        if self.energy.enabled:
            with self.energy.clock.off():
                self.persistent["l0"] += full.sum()
                self.persistent["l1"] += store.abs().mul_(full).sum(dtype=torch.float64)
        store.masked_fill_(full, 0.0)

    def _decay(self, samples: int) -> None:
        share = 1 - (1 - self.decay_rate) ** samples
        for parameter, store in zip(self._parameters(), self.store, strict=True):
            lost = share * store
            parameter.sub_(lost)
            store.sub_(lost)
        self._measure()

    def _measure(self) -> None:
        if self.energy.enabled:
            with self.energy.clock.off():
                self.stored.zero_()
                for store in self.store:
                    self.stored += store.abs().sum(dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        return {"store": self.store, "stored": self.stored, "persistent": self.persistent}

    def restore(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self.store, state["store"], strict=True):
            mine.copy_(saved)
        self.stored.copy_(state["stored"])
        for name, total in self.persistent.items():
            total.copy_(state["persistent"][name])


def changes(deltas: list[Tensor], inputs: list[Tensor], rate: float) -> list[Tensor]:
    """The changes by plain SGD of all weights, then of all biases."""
    weights = [outer(delta, h).mul_(-rate) for delta, h in zip(deltas, inputs, strict=True)]
    return weights + [delta.sum(0).mul_(-rate) for delta in deltas]


def restricted_misfit(spec: EngineSpec, name: str) -> str | None:
    """Why the engine of plasticity=`name` does not fit, or None."""
    if spec.plasticity.name != name:
        return f"is for plasticity={name}"
    return None if Layers.fit(spec.model) and is_plain_sgd(spec.optimizer) else "is for model=mlp with plain SGD"
