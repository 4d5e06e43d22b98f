"""A run from start to end: epochs, evaluations, targets, checkpoints. How samples are learned is the engine's."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from lazyexp.data import Data, Samples
from lazyexp.rules import Rule, ScoredBatch
from lazyexp.runs.columns import MEASURED, EvalContext
from lazyexp.training.clock import Clock
from lazyexp.training.counters import Counters
from lazyexp.training.energy import Energy
from lazyexp.training.engine import Engine
from lazyexp.training.evaluation import accuracy, evaluate
from lazyexp.training.precision import matmul_precision
from lazyexp.training.scores import Scores
from lazyexp.training.selection import checked_order


@dataclass(frozen=True)
class TrainingSchedule:
    """How long to train and when to look: the settings of the same names."""

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


class Callback(Protocol):
    """Sees a run going on: rows, checkpoints, progress; says whether it should stop."""

    def row(self, row: dict[str, Any]) -> None: ...
    def checkpoint(self, state: dict[str, Any]) -> None: ...
    def progress(self, samples: int, correct: int, learned: int) -> None: ...
    def stop(self) -> bool: ...


def onecycle(progress: float) -> float:
    """Up from 1/25 over 30 % of the run, then down to 1/250,000, both along cosines: the shape and the defaults of
    torch.optim.lr_scheduler.OneCycleLR (Smith & Topin 2017, arXiv 1708.07120), without its cycling of momentum."""
    start, end, turn = 1 / 25, 1 / 250_000, 0.3
    if progress < turn:
        return 1 + (start - 1) * (1 + math.cos(math.pi * progress / turn)) / 2
    return end + (1 - end) * (1 + math.cos(math.pi * (progress - turn) / (1 - turn))) / 2


# The share of the learning rate at a share of the run.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "onecycle": onecycle,
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
# Samples between two looks at the clock, the keyboard and the losses. Part of the result: fast engines join
# samples into blocks, and no block reaches over such a border.
CHUNK = 2048
# Seconds after which a GPU, which is otherwise asked at evaluations and ends of epochs, is asked for the bar's sake.
PATIENCE = 1.0


class Trainer:
    """Trains `model` on `data.train` as the plan says, telling `callback` what happens."""

    def __init__(
        self,
        plan: TrainingSchedule,
        data: Data,
        model: nn.Module,
        rule: Rule,
        engine: Engine,
        energy: Energy,
        callback: Callback,
    ) -> None:
        self.plan, self.data, self.model, self.rule, self.engine = plan, data, model, rule, engine
        self.energy, self.clock, self.callback = energy, energy.clock, callback
        self.device = data.train.targets.device
        self.counters = Counters(len(data.train), self.device)
        self.scores = Scores(len(data.train), self.device)
        self.eval_clock = Clock(self.device)
        self.epoch = self.place = self.rows = self.samples_at_last_row = 0
        self.last_test_accuracy, self.rate = 0.0, plan.lr
        self._order: Tensor | None = None
        self._saved_at = self._looked_at = time.monotonic()
        self._unseen = 0  # samples presented since the last look

    def run(self) -> str:
        """Trains to the end. Returns the status: finished, stopped, diverged or interrupted."""
        with matmul_precision(self.plan.precision):
            warm_up(self.model, self.data.test)
        while self.epoch < self.plan.epochs:
            if self._order is None:
                with self.clock:
                    self._order = self._start_epoch()
            while self.place < len(self._order):
                self._train_chunk(self._order)
                due = self._evaluation_is_due()
                finite = self._look(due, len(self._order))
                if due or not finite:
                    self._evaluate()
                if not finite:
                    return "diverged"
                if due and self.plan.stop_at is not None and self.last_test_accuracy >= self.plan.stop_at:
                    return "stopped"
                if self.callback.stop():
                    self.callback.checkpoint(self.state())
                    return "interrupted"
                self._checkpoint_if_due(evaluated=due)
            self._order, self.place = None, 0
            self.epoch += 1
        if self.counters.tally.samples_seen > self.samples_at_last_row or not self.rows:
            self._evaluate()
        return "finished"

    def _start_epoch(self) -> Tensor:
        self._rule_at_start = {name: value.clone() for name, value in self.rule.state().items()}
        self.data.train.start_epoch(self.plan.seed, self.epoch)
        return checked_order(self.rule, self.epoch).to(self.device)

    def _train_chunk(self, order: Tensor) -> None:
        """Trains up to the next border."""
        batch_size, seen = self.plan.batch_size, self.counters.tally.samples_seen
        until_evaluation = self.plan.eval_every - seen % self.plan.eval_every
        batches = math.ceil(min(CHUNK, until_evaluation) / batch_size)
        index = order[self.place : self.place + batches * batch_size]
        rates = [self._rate(self.place + start, len(order)) for start in range(0, len(index), batch_size)]
        with self.clock, matmul_precision(self.plan.precision):
            outcome = self.engine.train(index, rates)
            judged = ScoredBatch(index, outcome.logits, self.data.train.targets[index], outcome.chosen)
            self.rule.update(judged)
        self.counters.add(judged, outcome)
        self.scores.add(judged)
        self.place, self.rate = self.place + len(index), rates[-1]
        self._unseen += len(index)

    def _look(self, due: bool, length: int) -> bool:
        """Asks what became of the samples. Returns False if a loss was found that is not finite.

        A GPU is asked where it must be; beyond that only for the bar, since where a run ends must not depend on its
        speed.
        """
        border = due or self.device.type == "cpu" or self.place == length
        if not border and time.monotonic() - self._looked_at < PATIENCE:
            return True
        return self._settle() or not border

    def _settle(self) -> bool:
        correct, learned, finite = self.counters.settle()
        self.callback.progress(self._unseen, correct, learned)
        self._unseen, self._looked_at = 0, time.monotonic()
        return finite

    def _rate(self, place: int, length: int) -> float:
        """The learning rate of the batch that starts at `place`: depends on what was presented, not learned."""
        plan = self.plan
        progress = (self.epoch + place / length) / plan.epochs
        if progress < plan.warmup:  # the end of the batch counts, or the first one would be spent on nothing
            end = (self.epoch + min(place + plan.batch_size, length) / length) / plan.epochs
            return plan.lr * min(end / plan.warmup, 1.0)
        return plan.lr * SCHEDULES[plan.schedule]((progress - plan.warmup) / (1 - plan.warmup))

    def _evaluation_is_due(self) -> bool:
        seen, every = self.counters.tally.samples_seen, self.plan.eval_every
        return seen // every > self.samples_at_last_row // every

    def _evaluate(self) -> None:
        with self.eval_clock:
            test = evaluate(self.model, self.data.test)
            val_accuracy = None if self.data.val is None else accuracy(self.model, self.data.val)
        train_loss, train_accuracy = self.counters.take_interval()
        length = len(self._order) if self._order is not None else 1
        moment = EvalContext(
            trainer=self,
            epoch=round(self.epoch + self.place / length, 6),
            updates_possible=self._updates_possible(length),
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_accuracy=val_accuracy,
            test_accuracy=test.accuracy,
            minimum=self.energy.minimum() if self.energy.enabled else None,
            worst_class_accuracy=test.worst_class_accuracy,
            calibration_error=test.calibration_error,
        )
        row = {column.name: column.measure(moment) for column in MEASURED}
        self.rows += 1
        self.last_test_accuracy, self.samples_at_last_row = test.accuracy, moment.tally.samples_seen
        self.callback.row(row)

    def _updates_possible(self, length: int) -> int:
        """Steps of a backprop run at the same point: whole epochs, and of this one the share presented."""
        samples, batch_size = len(self.data.train), self.plan.batch_size
        this_epoch = -(-self.place * samples // (length * batch_size))
        return self.epoch * math.ceil(samples / batch_size) + this_epoch

    def _checkpoint_if_due(self, evaluated: bool) -> None:
        every = self.plan.checkpoint_every
        if time.monotonic() - self._saved_at >= every if every else evaluated:
            self.callback.checkpoint(self.state())
            self._saved_at = time.monotonic()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs besides its settings; tensors and plain values only."""
        if self._unseen:
            self._settle()
        return {
            "model": self.model.state_dict(),
            "engine": self.engine.state(),
            "rule_at_epoch_start": self._rule_at_start,
            "rule": self.rule.state(),
            "counters": self.counters.state(),
            "scores": self.scores.state(),
            "energy": self.energy.state(),
            "seconds": [self.clock.seconds, self.eval_clock.seconds],
            "progress": {name: getattr(self, name) for name in PROGRESS},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from a `state` of the same settings."""
        self.model.load_state_dict(state["model"])
        self.engine.restore(state["engine"])
        self.counters.restore(state["counters"])
        self.scores.restore(state["scores"])
        self.energy.restore(state["energy"])
        for name in PROGRESS:
            setattr(self, name, state["progress"][name])
        # The epoch's order is not saved: the rule makes it again from what it knew when the epoch began.
        self.rule.restore(state["rule_at_epoch_start"])
        self._order = self._start_epoch()
        self.rule.restore(state["rule"])
        self.clock.seconds, self.eval_clock.seconds = state["seconds"]


def warm_up(model: nn.Module, images: Samples) -> None:
    """Lets libraries start their threads and choose their kernels before the clock runs; on a copy."""
    inputs, _ = images.part(0, 64)
    copy.deepcopy(model)(inputs).sum().backward()


PROGRESS = ("epoch", "place", "rows", "samples_at_last_row", "last_test_accuracy", "rate")
