"""Energy of plasticity: size and number of all weight changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lazyexp.training.clock import Clock
from lazyexp.utils.products import outer


class Energy:
    """M1 = sum of |dw| and M0 = number of dw != 0, over all updates and all parameters, biases included.

    After Li & van Rossum 2020 (eLife 9:e50804) and van Rossum & Pache 2024. The minima are those of the direct path
    from the initial to the current weights. `maintenance` is the cost of changes in a transient store, see
    training/fast/plastic.py. `add_step` and `add_rank_one_steps` count non-zero entries of the update, `after_step`
    counts weights that differ: an update that is too small for the weight's precision counts in the first only.
    """

    def __init__(self, model: nn.Module, clock: Clock, enabled: bool = True) -> None:
        self.enabled, self.clock = enabled, clock
        self.parameters = list(model.parameters())
        self.initial = [parameter.detach().clone() for parameter in self.parameters] if enabled else []
        self._before: list[Tensor] = []
        device = self.parameters[0].device
        self.l0, self.l1, self.maintenance = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))

    def before_step(self) -> None:
        """Copy the weights before a step of any optimizer."""
        if self.enabled:
            with self.clock.off(), torch.no_grad():
                if not self._before:
                    self._before = [torch.empty_like(parameter) for parameter in self.parameters]
                for kept, parameter in zip(self._before, self.parameters, strict=True):
                    kept.copy_(parameter)

    def after_step(self) -> None:
        """Add the changes since `before_step`."""
        if self.enabled:
            with self.clock.off(), torch.no_grad():
                for kept, parameter in zip(self._before, self.parameters, strict=True):
                    self.add_change(kept.sub_(parameter))

    def add(self, count: int, size: float) -> None:
        """Add updates with so many changes of so large a sum."""
        self.l0 += count
        self.l1 += size

    def add_change(self, change: Tensor, factor: float = 1.0) -> None:
        """Add an update of `factor * change` to a parameter; overwrites `change`."""
        self.l0 += change.count_nonzero()
        self.l1 += change.abs_().sum().double() * factor

    def add_step(self, delta: Tensor, inputs: Tensor, rate: float = 1.0) -> None:
        """Add one update of a linear layer, dW = rate * delta^T inputs, db = rate * (sum of delta over the batch).

        Args:
            delta: (b, out). A single row factorises, see `add_rank_one_steps`.
            inputs: (b, in).
            rate: learning rate.
        """
        if not self.enabled:
            return
        with self.clock.off():
            if len(delta) == 1:
                self._add_rank_one(delta, inputs, rate)
            else:
                self.add_change(outer(delta, inputs), rate)
                self.add_change(delta.sum(0), rate)

    def add_rank_one_steps(self, deltas: Tensor, inputs: Tensor) -> None:
        """Add n updates of a linear layer; update i is dW = deltas[i] inputs[i]^T, db = deltas[i].

        The sums factorise: sum |d_a x_b| = sum |d_a| * sum |x_b|, and so do the counts.
        """
        if self.enabled:
            with self.clock.off():
                self._add_rank_one(deltas, inputs, 1.0)

    def _add_rank_one(self, deltas: Tensor, inputs: Tensor, rate: float) -> None:
        inputs = inputs.to(deltas.dtype)
        size = deltas.abs().sum(1).double() * (inputs.abs().sum(1).double() + 1)
        self.l1 += size.sum() * rate
        self.l0 += ((deltas != 0).sum(1) * ((inputs != 0).sum(1) + 1)).sum()

    def minimum(self) -> tuple[int, float]:
        """(M0, M1) of the direct path."""
        m0, m1 = 0, 0.0
        with torch.no_grad():
            for first, parameter in zip(self.initial, self.parameters, strict=True):
                change = parameter.double() - first.double()
                m0 += int(change.count_nonzero())
                m1 += float(change.abs_().sum())
        return m0, m1

    def state(self) -> dict[str, Any]:
        """Includes the initial weights: another version or machine may draw different ones from the same seed."""
        return {"l0": self.l0, "l1": self.l1, "maintenance": self.maintenance, "initial": self.initial}

    def restore(self, state: dict[str, Any]) -> None:
        for kept, saved in zip(self.initial, state["initial"], strict=True):
            kept.copy_(saved)
        self.l0.copy_(state["l0"])
        self.l1.copy_(state["l1"])
        self.maintenance.copy_(state["maintenance"])
