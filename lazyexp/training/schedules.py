"""Learning-rate schedules, and when a run trains, evaluates and ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Samples between two checks of the clock, of signals and of the losses. Part of the result: fast engines join
# batches into blocks, and no block extends over such a border.
CHUNK = 2048


def onecycle(progress: float) -> float:
    """Rise from 1/25 over 30 % of the run, then fall to 1/250,000, both along cosines: shape and defaults of
    torch.optim.lr_scheduler.OneCycleLR (Smith & Topin 2017, arXiv 1708.07120), without cycling of momentum."""
    start, end, turn = 1 / 25, 1 / 250_000, 0.3
    if progress < turn:
        return 1 + (start - 1) * (1 + math.cos(math.pi * progress / turn)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (progress - turn) / (1 - turn))) / 2


# From the elapsed share of the run (after warm-up) to a share of the learning rate. `multistep` and `exponential`
# depend on elapsed epochs.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "onecycle": onecycle,
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


@dataclass(frozen=True)
class TrainingSchedule:
    """How long to train, at which learning rate, and when to evaluate; fields are the settings of the same names.

    Positions are counted in samples from the start of an epoch; `length` is the number of samples that the epoch
    presents.
    """

    seed: int
    epochs: int
    batch_size: int
    eval_every: int
    lr: float
    schedule: str
    warmup: float
    precision: str
    stop_at: float | None
    checkpoint_every: float
    milestones: Sequence[int] | None = None
    gamma: float | None = None
    max_seconds: float | None = None
    # Seconds of training so far; asked for with `max_seconds` only.
    seconds: Callable[[], float] = lambda: 0.0

    def learning_rate(self, epoch: int, position: int, length: int) -> float:
        """Learning rate of the batch that starts at `position`.

        Counts presented samples, selected or not, or with `max_seconds` the seconds, if their share is larger.
        """
        progress = max((epoch + position / length) / self.epochs, self._elapsed())
        if progress < self.warmup:  # the end of the batch counts, otherwise the first batch would have a rate of 0
            end = progress + min(self.batch_size, length - position) / length / self.epochs
            return self.lr * min(end / self.warmup, 1.0)
        if self.schedule == "multistep":
            milestones = (self.epochs / 2, self.epochs * 3 / 4) if self.milestones is None else self.milestones
            steps = sum(progress * self.epochs >= milestone - 1e-9 for milestone in milestones)
            return self.lr * float((0.1 if self.gamma is None else self.gamma) ** steps)
        if self.schedule == "exponential":
            return self.lr * float((0.96 if self.gamma is None else self.gamma) ** int(progress * self.epochs + 1e-9))
        return self.lr * SCHEDULES[self.schedule](min((progress - self.warmup) / (1 - self.warmup), 1.0))

    def learning_rates(self, epoch: int, position: int, number: int, length: int) -> list[float]:
        """One learning rate for each batch of the next `number` samples."""
        return [self.learning_rate(epoch, position + start, length) for start in range(0, number, self.batch_size)]

    def chunk(self, seen: int, limit: int | None = None) -> int:
        """Samples to train on before the next check, after `seen` samples: whole batches, about `limit` at most.

        With `max_seconds` a chunk takes about 1 % of them at most.
        """
        size = min(CHUNK, self.eval_every - seen % self.eval_every, CHUNK if limit is None else limit)
        elapsed = self._elapsed()
        if self.max_seconds is not None:
            size = min(size, max(int(0.01 * seen / elapsed), 1) if elapsed else 1)
        return math.ceil(size / self.batch_size) * self.batch_size

    def batches(self, samples: int) -> int:
        """Batches of so many samples, the last one perhaps short."""
        return math.ceil(samples / self.batch_size)

    def _elapsed(self) -> float:
        """Share of `max_seconds` that has passed; 0 without."""
        return self.seconds() / self.max_seconds if self.max_seconds is not None else 0.0

    def out_of_time(self) -> bool:
        """Whether `max_seconds` have passed."""
        return self._elapsed() >= 1

    def evaluation_is_due(self, seen: int, seen_at_last: int) -> bool:
        """Whether an evaluation is due after `seen` samples, the last one being at `seen_at_last`."""
        return seen // self.eval_every > seen_at_last // self.eval_every

    def updates_possible(self, position: int, length: int, samples: int) -> int:
        """Steps of backprop, which presents all `samples`, at the same point of an epoch of `length` samples."""
        return -(-position * samples // (length * self.batch_size))
