"""Which synapses change: all of them, the winners of a competition, or none before a cache is full.

For plain SGD on an MLP, with any rule and batch size. A weight and a bias are a synapse each.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lazyexp.training.counters import Outcome
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.layers import Layers, is_plain_sgd


class Largest(Direct):
    """Of every parameter (a layer's weights, its biases) only the share plasticity.share with the largest updates
    changes, in every step anew; the others' updates are lost. At least one changes.

    Competitive plasticity (van Rossum & Pache 2024, PLoS Comput Biol 20(10) e1012553, "only modify synapses with
    large updates"); that the competition is within a layer is our choice. M0 and M1 are those of the changes made.
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
    """Changes gather in a transient store, work for the network at once, and become persistent when a synapse's store
    exceeds plasticity.threshold: synaptic caching (Li & van Rossum 2020, eLife 9:e50804), each synapse by itself.

    While it is transient a change decays, by the share plasticity.decay with every sample presented, and costs
    plasticity.cost for every unit and sample: energy.maintenance. M0 and M1 count what was made persistent; at any
    moment what is still in the store counts as if it were made so now, as happens at the end. Without a threshold
    M1 is therefore the direct path, its minimum, if nothing decays. Time passes with samples presented: after a batch
    of b the store, as its learning has left it, decays and costs b times.
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
            torch.cat([outcome.learned for outcome in outcomes]),
            sum(outcome.forwards for outcome in outcomes),
            sum(outcome.updates for outcome in outcomes),
            torch.cat([outcome.chosen for outcome in outcomes]),
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
                total: Any = sum(store.abs().sum(dtype=torch.float64) for store in self.store)
                self.stored.copy_(total)

    def state(self) -> dict[str, Any]:
        return {"store": self.store, "stored": self.stored, "persistent": self.persistent}

    def restore(self, state: dict[str, Any]) -> None:
        for mine, saved in zip(self.store, state["store"], strict=True):
            mine.copy_(saved)
        self.stored.copy_(state["stored"])
        for name, total in self.persistent.items():
            total.copy_(state["persistent"][name])


def changes(deltas: list[Tensor], inputs: list[Tensor], rate: float) -> list[Tensor]:
    """What plain SGD would add to all weights, then to all biases."""
    weights = [(delta.t() @ h).mul_(-rate) for delta, h in zip(deltas, inputs, strict=True)]
    return weights + [delta.sum(0).mul_(-rate) for delta in deltas]


def restricted_misfit(spec: EngineSpec, name: str) -> str | None:
    """Why the engine of plasticity `name` does not fit, or None."""
    if spec.plasticity.name != name:
        return f"is for plasticity={name}"
    return None if Layers.fit(spec.model) and is_plain_sgd(spec.optimizer) else "is for model=mlp with plain SGD"
