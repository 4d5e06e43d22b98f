"""What a trainer reports to its callback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from lazyexp.streams import Progress
from lazyexp.training.counters import Counters, Tally
from lazyexp.training.energy import Energy
from lazyexp.training.schedules import TrainingSchedule
from lazyexp.training.scores import Scores


@dataclass(frozen=True)
class EvalContext:
    """State of a run at an evaluation.

    `epoch` includes its fraction. `updates_possible`: steps of a backprop run at the same point. `train_loss` and
    `train_accuracy` are over the samples presented since the last evaluation, as scored before the update. `energy`
    is None if it is not measured. `minimum`: (M0, M1) of the direct path. `learning_rate` is that of the last batch.
    Before training `train_loss`, `train_accuracy` and `learning_rate` are None.
    `phases`: accuracies by phase of the stream. `memory_samples`: stored samples, None without a memory.
    """

    schedule: TrainingSchedule
    counters: Counters
    scores: Scores
    energy: Energy | None
    minimum: tuple[int, float] | None
    epoch: float
    updates_possible: int
    learning_rate: float | None
    train_seconds: float
    eval_seconds: float
    train_loss: float | None
    train_accuracy: float | None
    val_accuracy: float | None
    test_accuracy: float
    worst_class_accuracy: float
    calibration_error: float
    test_loss: float
    phases: Progress
    memory_samples: int | None

    @property
    def tally(self) -> Tally:
        """Totals of the run so far."""
        return self.counters.tally


class Callback(Protocol):
    """Receives evaluations, checkpoints and progress of a run, and may stop it."""

    def evaluated(self, context: EvalContext) -> None:
        """Called after every evaluation."""
        ...

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Called with what a resumed run needs."""
        ...

    def progress(self, samples: int, correct: int, selected: int) -> None:
        """Called with the numbers of samples presented, correct and trained on since the last call."""
        ...

    def stop(self) -> bool:
        """Whether the run should save a checkpoint and end."""
        ...
