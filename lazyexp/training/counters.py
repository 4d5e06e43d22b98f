"""Counters of a run's work: samples presented, forwarded and used for updates."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lazyexp.rules import ScoredBatch


@dataclass
class Outcome:
    """Result of training on a chunk of m samples.

    `logits` (m, classes): the logits by which the samples were scored, in the order presented. `selected` (m,) bool:
    the samples that the rule selected. `stepped` (k,) int64: training-set indices of the samples in the batches of
    this chunk's optimizer steps; `stepped_mask` (k,) bool: those of them that were selected (None: all). Packing
    queues selected samples, so `stepped` may differ from the presented samples. `forwards`: samples forwarded.
    `updates`: optimizer steps. Where the host does not know these two numbers, they are 0-d tensors on the device.
    """

    logits: Tensor
    stepped: Tensor
    forwards: int | Tensor
    updates: int | Tensor
    selected: Tensor
    stepped_mask: Tensor | None = None

    @property
    def trained(self) -> Tensor:
        """Training-set indices of the samples that updated the weights. Waits for a GPU."""
        return self.stepped if self.stepped_mask is None else self.stepped[self.stepped_mask]


@dataclass
class Tally:
    """Totals of a run, as defined in the documentation of metrics.csv."""

    samples_seen: int = 0
    forward_samples: int = 0
    backward_samples: int = 0
    updates: int = 0
    # Since the last evaluation:
    count: int = 0
    correct: int = 0
    loss: float = 0.0


class Counters:
    """Totals of a run and, for every training sample, how often it was presented, misclassified and trained on.

    Numbers that only the device knows are summed there until `settle` transfers them.
    """

    PER_SAMPLE = ("presented", "misclassified", "learned")

    def __init__(self, samples: int, device: torch.device) -> None:
        self.tally = Tally()
        self.presented, self.misclassified, self.learned = (
            torch.zeros(samples, dtype=torch.int32, device=device) for _ in range(3)
        )
        # Since the last `settle`: sum of losses, misclassified, trained, forwarded, updates. Whole numbers are exact.
        self._open = torch.zeros(5, dtype=torch.float64, device=device)
        self._presented = 0

    def add(self, batch: ScoredBatch, outcome: Outcome) -> None:
        """Count a chunk. Does not wait for a GPU."""
        size, mask = len(batch.index), outcome.stepped_mask
        self.tally.samples_seen += size
        self.tally.count += size
        self._presented += size
        trained = len(outcome.stepped) if mask is None else mask.sum()
        sums = (batch.loss.double().sum(), batch.wrong.sum(), trained, outcome.forwards, outcome.updates)
        for position, value in enumerate(sums):
            self._open[position].add_(value)
        for counts, index, which in (
            (self.presented, batch.index, None),
            (self.misclassified, batch.index, batch.wrong),
            (self.learned, outcome.stepped, mask),
        ):
            ones = torch.ones_like(index, dtype=torch.int32) if which is None else which.int()
            counts.index_add_(0, index, ones)

    def settle(self) -> tuple[int, int, bool]:
        """Bring the tally up to date, in one transfer from the device.

        Returns the numbers of samples classified correctly and trained on since the last call, and whether every loss
        since the last evaluation was finite.
        """
        loss, *numbers = self._open.tolist()
        wrong, trained, forwards, updates = (int(number) for number in numbers)
        self._open.zero_()
        correct, self._presented = self._presented - wrong, 0
        tally = self.tally
        tally.forward_samples += forwards
        tally.backward_samples += trained
        tally.updates += updates
        tally.correct += correct
        tally.loss += loss
        return correct, trained, math.isfinite(tally.loss)

    def take_interval(self) -> tuple[float, float] | tuple[None, None]:
        """Mean loss and accuracy over the samples presented since the last call, None if there were none."""
        tally = self.tally
        if not tally.count:
            return None, None
        means = tally.loss / tally.count, tally.correct / tally.count
        tally.count, tally.correct, tally.loss = 0, 0, 0.0
        return means

    def state(self) -> dict[str, Any]:
        return {"tally": asdict(self.tally), **{name: getattr(self, name) for name in self.PER_SAMPLE}}

    def restore(self, state: dict[str, Any]) -> None:
        self.tally = Tally(**{field.name: state["tally"][field.name] for field in fields(Tally)})
        for name in self.PER_SAMPLE:
            getattr(self, name).copy_(state[name])
