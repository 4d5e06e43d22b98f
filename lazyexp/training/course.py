"""What a run presents: its phases, the replays of a store, and the rules and engines that train on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from torch import Tensor

from lazyexp.rules import Rule, ScoredBatch
from lazyexp.streams import Phase, Replay
from lazyexp.training.engine import Engine
from lazyexp.training.schedules import TrainingSchedule


class Stage(Enum):
    """Parts of a run with a rule and an engine each: under the base rule, under the rule, after a restart."""

    BASE = "base"
    MAIN = "main"
    RESTART = "restart"


@dataclass
class Course:
    """The phases of a run, in order.

    `make_parts` makes the rule and the engine of a stage; None if the whole run has one stage. `base` says whether
    the first phase has a rule of its own.
    """

    phases: list[Phase]
    replay: Replay | None = None
    make_parts: Callable[[Stage], tuple[Rule, Engine]] | None = None
    base: bool = False

    def stage(self, phase: int) -> Stage:
        """The stage of a phase, counted from 0."""
        if self.phases[phase].restart:
            return Stage.RESTART
        return Stage.BASE if self.base and phase == 0 else Stage.MAIN

    def first_epoch(self, phase: int) -> int:
        """Passes before a phase, counted from 0; behind the last one, all passes."""
        return sum(part.epochs for part in self.phases[:phase])

    def planned(self, targets: Tensor, classes: int) -> int:
        """Samples that the run presents at most, given their labels `targets` (n,); replays by growth left out."""
        stream = sum(
            part.epochs * int(part.members(targets, classes).sum()) for part in self.phases if not part.restart
        )
        if self.replay is None:
            return stream
        largest, config = min(self.replay.config.capacity or len(targets), len(targets)), self.replay.config
        every = config.replay_every or stream + 1
        replayed = sum(min(number * every, largest) for number in range(1, stream // every + 1))
        restart = sum(part.epochs for part in self.phases if part.restart)
        return stream + config.replay_epochs * replayed + restart * largest


class Cursor:
    """Where a run is in its course, and which samples come next.

    `phase` and `epoch` count from 0; epochs count on from phase to phase. `position` counts the samples of the epoch.
    `possible`: steps that backprop would have made in the finished epochs and in the replays. `rate`: learning rate
    of the last batch. `schedule` is that of the phase. `rate_factor`: factor of the rule on the learning rates of the
    epoch.
    """

    STATE = ("phase", "epoch", "position", "possible", "rate")

    def __init__(self, course: Course, schedule: TrainingSchedule, targets: Tensor, classes: int) -> None:
        self.course, self.schedule, self.targets, self.classes = course, schedule, targets, classes
        self.phase = self.epoch = self.position = self.possible = 0
        self.rate, self.rate_factor = schedule.lr, 1.0
        self._mask: Tensor | None = None  # (n,) bool: samples that the phase presents; None: all
        self._members = len(targets)

    @property
    def replaying(self) -> bool:
        """Whether the next samples come from the store."""
        return self.course.replay is not None and self.course.replay.active

    def start_phase(self) -> None:
        """Choose the samples that the phase presents."""
        phase, replay = self.course.phases[self.phase], self.course.replay
        self.schedule = replace(self.schedule, epochs=phase.epochs)
        self._mask = None
        if phase.restart and replay is not None:
            self._mask = replay.store.stored
        elif len(phase.presented) < self.classes:
            self._mask = phase.members(self.targets, self.classes)
        self._members = len(self.targets) if self._mask is None else int(self._mask.sum())

    def in_phase(self) -> bool:
        """Whether epochs of the phase are left."""
        return self.epoch < self.course.first_epoch(self.phase + 1)

    def presented(self, order: Tensor) -> Tensor:
        """Those of the samples `order` (m,) that the phase presents, in the same order."""
        return order if self._mask is None else order[self._mask[order]]

    def next(self, order: Tensor, seen: int) -> tuple[Tensor, list[float]]:
        """The samples of the next chunk, and a learning rate for each of their batches.

        A replay has the learning rate of the last batch before it.
        """
        schedule, replay = self.schedule, self.course.replay
        if replay is not None and replay.active:
            index = replay.next(schedule.chunk(seen))
            return index, [self.rate] * schedule.batches(len(index))
        limit = None if replay is None or self._restarted else replay.limit()
        index = order[self.position : self.position + schedule.chunk(seen, limit)]
        epoch = self.epoch - self.course.first_epoch(self.phase)
        rates = schedule.learning_rates(epoch, self.position, len(index), len(order))
        return index, rates if self.rate_factor == 1 else [rate * self.rate_factor for rate in rates]

    def trained(self, batch: ScoredBatch, rates: list[float]) -> None:
        """Advance behind a chunk, and store what is to be stored of it."""
        replay = self.course.replay
        if replay is not None and replay.active:
            self.possible += len(rates)
            replay.replayed(batch.index, batch.wrong)
        else:
            self.position += len(batch.index)
            if replay is not None and not self._restarted:
                replay.offer(batch.index, batch.wrong)
        self.rate = rates[-1]

    @property
    def _restarted(self) -> bool:
        return self.course.phases[self.phase].restart

    def finish_epoch(self) -> None:
        """Advance to the next epoch."""
        self.possible += self.schedule.batches(self._members)
        self.epoch, self.position = self.epoch + 1, 0

    def updates_possible(self, length: int) -> int:
        """Steps that backprop would have made, in an epoch of `length` samples."""
        return self.possible + self.schedule.updates_possible(self.position, length, self._members)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        replay = self.course.replay
        counters = {name: getattr(self, name) for name in self.STATE}
        return {**counters, "replay": None if replay is None else replay.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        for name in self.STATE:
            setattr(self, name, state[name])
        if self.course.replay is not None:
            self.course.replay.restore(state["replay"])
        self.start_phase()
