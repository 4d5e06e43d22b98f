"""Spaced review: samples that need no update are skipped for growing numbers of epochs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor


class Spacing:
    """For every sample, the epoch in which it is presented next. Used by rules and by `lazyexp.SpacedSampler`.

    A sample that was not selected is skipped for 1, 2, 4, … epochs, at most `max_interval`; a selected one is
    presented in the next epoch, and its interval starts again at 1.
    """

    STATE: ClassVar[tuple[str, ...]] = ("interval", "next_epoch")

    def __init__(self, samples: int, max_interval: int, device: torch.device | str = "cpu") -> None:
        self.max_interval = max_interval
        # Epochs to skip after the next time the sample is not selected, and the epoch that presents it next.
        self.interval = torch.ones(samples, dtype=torch.int32, device=device)
        self.next_epoch = torch.zeros(samples, dtype=torch.int32, device=device)

    def active(self, order: Tensor, epoch: int) -> Tensor:
        """Those of the samples `order` (m,) that `epoch` presents, in the same order."""
        order = order.to(self.next_epoch.device)
        return order[self.next_epoch[order] <= epoch]

    def update(self, index: Tensor, selected: Tensor, epoch: int, confident: Tensor | None = None) -> None:
        """Schedule the samples `index` (n,) that `epoch` presented.

        selected (n,) bool: presented again in the next epoch. confident (n,) bool: skipped for `max_interval` epochs
        at once if not selected.
        """
        skip = self.interval[index]
        if confident is not None:
            skip = skip.masked_fill(confident, self.max_interval)
        self.next_epoch[index] = epoch + 1 + torch.where(selected, 0, skip).int()
        longer = (2 * skip).clamp_max(self.max_interval)
        self.interval[index] = torch.where(selected, 1, longer).int()

    def state(self) -> dict[str, Tensor]:
        """The schedule, by attribute name."""
        return {name: getattr(self, name) for name in self.STATE}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for name, value in state.items():
            setattr(self, name, value.to(getattr(self, name).device))
