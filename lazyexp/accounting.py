"""Counters: everything that is claimed about a run's work is counted here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from lazyexp.rules import Judged


@dataclass
class Outcome:
    """What became of a chunk of m samples: the `logits` (m, classes) by which they were judged, in the order
    presented, `chosen` (m,) bool which of them the rule let learn, and the samples that `learned` (k,) meanwhile:
    the chosen ones, unless they wait for a full batch. `forwards` are the samples forwarded, `updates` the optimizer
    steps.
    """

    logits: Tensor
    learned: Tensor
    forwards: int
    updates: int
    chosen: Tensor


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
    """The tally, and for every training sample how often it was presented, misclassified and learned from."""

    def __init__(self, samples: int, device: torch.device) -> None:
        self.tally = Tally()
        self.presented, self.misclassified, self.learned = (
            torch.zeros(samples, dtype=torch.int32, device=device) for _ in range(3)
        )

    def add(self, judged: Judged, outcome: Outcome) -> tuple[int, int, bool]:
        """Books a chunk. Returns (correct, learned, whether every loss was finite)."""
        # One transfer for the numbers that Python needs.
        loss, wrong = torch.stack([judged.loss.double().sum(), judged.wrong.sum().double()]).tolist()
        tally, size, learned = self.tally, len(judged.index), len(outcome.learned)
        tally.samples_seen += size
        tally.forward_samples += outcome.forwards
        tally.backward_samples += learned
        tally.updates += outcome.updates
        tally.count += size
        tally.correct += size - int(wrong)
        tally.loss += loss
        for counts, index in (
            (self.presented, judged.index),
            (self.misclassified, judged.index[judged.wrong]),
            (self.learned, outcome.learned),
        ):
            counts.index_add_(0, index, torch.ones_like(index, dtype=torch.int32))
        return size - int(wrong), learned, math.isfinite(loss)

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
