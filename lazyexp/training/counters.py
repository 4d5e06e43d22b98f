"""Counters: everything that is claimed about a run's work is counted here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lazyexp.rules import ScoredBatch


@dataclass
class Outcome:
    """What became of a chunk of m samples: the `logits` (m, classes) by which they were judged, in the order
    presented, and `chosen` (m,) bool which of them the rule let learn. `trained` (k,) are the samples that went into
    learning meanwhile, and `took` (k,) bool says which of them learned; None: all. `forwards` are the samples
    forwarded, `updates` the optimizer steps; where the host does not know them, they are numbers on the device.
    """

    logits: Tensor
    trained: Tensor
    forwards: int | Tensor
    updates: int | Tensor
    chosen: Tensor
    took: Tensor | None = None

    @property
    def learned(self) -> Tensor:
        """The samples that learned: the chosen ones, unless they wait for a full batch. Waits for a GPU."""
        return self.trained if self.took is None else self.trained[self.took]


@dataclass
class Tally:
    """The counters of a run, as defined in the documentation of metrics.csv."""

    samples_seen: int = 0
    forward_samples: int = 0
    backward_samples: int = 0
    updates: int = 0
    # Since the last evaluation:
    count: int = 0
    correct: int = 0
    loss: float = 0.0


class Counters:
    """The tally, and for every training sample how often it was presented, misclassified and learned from.

    What the host cannot know without asking is summed on the device until somebody wants it, see `settle`.
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self.tally = Tally()
        self.presented, self.misclassified, self.learned = (
            torch.zeros(samples, dtype=torch.int32, device=device) for _ in range(3)
        )
        # Sum of losses, wrong, learned, forwarded, updates since the last settlement; whole numbers are exact.
        self._open = torch.zeros(5, dtype=torch.float64, device=device)
        self._presented = 0

    def add(self, judged: ScoredBatch, outcome: Outcome) -> None:
        """Books a chunk; asks a GPU nothing."""
        size, took = len(judged.index), outcome.took
        self.tally.samples_seen += size
        self.tally.count += size
        self._presented += size
        known = [len(outcome.trained) if took is None else took.sum(), outcome.forwards, outcome.updates]
        sums = [judged.loss.double().sum(), judged.wrong.sum()]
        for place, value in enumerate([*sums, *known]):
            self._open[place].add_(value)
        for counts, index, which in (
            (self.presented, judged.index, None),
            (self.misclassified, judged.index, judged.wrong),
            (self.learned, outcome.trained, took),
        ):
            ones = torch.ones_like(index, dtype=torch.int32) if which is None else which.int()
            counts.index_add_(0, index, ones)

    def settle(self) -> tuple[int, int, bool]:
        """Brings the tally up to date, in one transfer.

        Returns (correct, learned) of what was presented since the last time, and whether every loss since the last
        evaluation was finite.
        """
        loss, *numbers = self._open.tolist()
        wrong, learned, forwards, updates = (int(number) for number in numbers)
        self._open.zero_()
        correct, self._presented = self._presented - wrong, 0
        tally = self.tally
        tally.forward_samples += forwards
        tally.backward_samples += learned
        tally.updates += updates
        tally.correct += correct
        tally.loss += loss
        return correct, learned, math.isfinite(tally.loss)

    def take_interval(self) -> tuple[float, float]:
        """Mean loss and accuracy over the samples presented since the last call."""
        tally = self.tally
        count = max(tally.count, 1)
        means = tally.loss / count, tally.correct / count
        tally.count, tally.correct, tally.loss = 0, 0, 0.0
        return means

    def state(self) -> dict[str, Any]:
        samples = {name: getattr(self, name) for name in ("presented", "misclassified", "learned")}
        return {"tally": asdict(self.tally), **samples}

    def restore(self, state: dict[str, Any]) -> None:
        self.tally = Tally(**{field.name: state["tally"][field.name] for field in fields(Tally)})
        for name in ("presented", "misclassified", "learned"):
            getattr(self, name).copy_(state[name])
