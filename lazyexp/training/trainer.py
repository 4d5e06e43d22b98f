"""A run from start to end: epochs, evaluations, checkpoints. The engine does the training itself."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from lazyexp.data import Data
from lazyexp.rules import Rule, ScoredBatch
from lazyexp.streams import Progress, make_phases, progress
from lazyexp.training.clock import Clock
from lazyexp.training.context import Callback, EvalContext
from lazyexp.training.counters import Counters
from lazyexp.training.course import Course, Cursor, Stage
from lazyexp.training.energy import Energy
from lazyexp.training.engine import Engine
from lazyexp.training.evaluation import Quality, accuracy, evaluate
from lazyexp.training.fast.layers import Layers
from lazyexp.training.folding import components_of, folded, restore_components
from lazyexp.training.guards import HiddenState, warm_up
from lazyexp.training.isolation import seeded
from lazyexp.training.precision import matmul_precision
from lazyexp.training.schedules import TrainingSchedule
from lazyexp.training.scores import Scores
from lazyexp.training.selection import checked_order, checked_rate_factor, is_builtin, protected

# Seconds after which the counters of a GPU are read for the progress bar. Otherwise they are read at evaluations and
# ends of epochs only.
PATIENCE = 1.0
PROGRESS = ("rows", "seen_at_last_row", "last_test_accuracy", "phase_ends", "by_class")


class Trainer:
    """Trains `model` on `data.train` with `engine`, as `schedule` says, and reports to `callback`.

    Without a `course` the run is one phase, which presents all samples in each of schedule.epochs passes.
    """

    def __init__(
        self,
        schedule: TrainingSchedule,
        data: Data,
        model: nn.Module,
        rule: Rule,
        engine: Engine,
        energy: Energy,
        callback: Callback,
        course: Course | None = None,
    ) -> None:
        self.schedule, self.data, self.model, self.rule, self.engine = schedule, data, model, rule, engine
        self.course = course or Course(make_phases(None, "new", data.classes, schedule.epochs))
        self.cursor = Cursor(self.course, schedule, data.train.targets, data.classes)
        self._stage = self.course.stage(0)
        self.energy, self.clock, self.callback = energy, energy.clock, callback
        self.device = data.train.targets.device
        self.counters = Counters(len(data.train), self.device)
        self.scores = Scores(len(data.train), self.device)
        self.eval_clock = Clock(self.device)
        self.hidden_state = HiddenState.of_model(model)
        self.rows = self.seen_at_last_row = 0
        self.last_test_accuracy = 0.0
        self.phase_ends: list[float | None] = []  # accuracies of the finished phases when they ended
        self.by_class: list[list[float]] = []  # test samples and correct ones of each class, at the last evaluation
        restarts = any(phase.restart for phase in self.course.phases)
        self._initial = {name: value.clone() for name, value in model.state_dict().items()} if restarts else {}
        self._plain = Layers.fit(model)  # draws no random numbers
        self._order: Tensor | None = None
        self._tested: Quality | None = None  # by the last evaluation of this session
        self._saved_at = self._settled_at = time.monotonic()
        self._unsettled = 0  # samples presented since the counters were settled

    def _seeded(self, purpose: str) -> AbstractContextManager[None]:
        """Seeded global generators, for models that draw from them."""
        if self._plain:
            return nullcontext()
        return seeded(self.schedule.seed, purpose, self.seen, device=self.device)

    @property
    def seen(self) -> int:
        """Samples presented so far."""
        return self.counters.tally.samples_seen

    @property
    def epochs_done(self) -> float:
        """Epochs done, with the fraction of the current one. They count on from phase to phase."""
        return self.cursor.epoch + self.cursor.position / (len(self._order) if self._order is not None else 1)

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return self.course.first_epoch(len(self.course.phases))

    def run(self) -> str:
        """Train to the end. Returns the status: finished, stopped, diverged or interrupted."""
        try:
            return self._run()
        finally:
            self.data.train.stop_reading()

    def _run(self) -> str:
        with matmul_precision(self.schedule.precision, self.device), self._seeded("warm_up"):
            warm_up(self.model, self.data.test, self.schedule.precision)
        if not self.rows:
            self._evaluate()  # before training
        while self.cursor.phase < len(self.course.phases):
            self.cursor.start_phase()
            self._take_parts()
            status = self._train_phase()
            if status:
                return status
            if self.seen > self.seen_at_last_row:
                self._evaluate()
            self.phase_ends.append(self._progress().by_phase[-1])
            self.cursor.phase += 1
        return "finished"

    def _train_phase(self) -> str:
        """Train to the end of the phase. Returns the status of a run that ends before it, else an empty string."""
        cursor, schedule = self.cursor, self.schedule
        while cursor.in_phase():
            if self._order is None:
                with self.clock:
                    self._order = self._start_epoch()
            while cursor.position < len(self._order) or cursor.replaying:
                self._train_chunk(self._order)
                over = schedule.out_of_time()
                due = over or schedule.evaluation_is_due(self.seen, self.seen_at_last_row)
                finite = self._losses_are_finite(due, len(self._order))
                if due or not finite:
                    self._evaluate()
                if not finite:
                    return "diverged"
                if due and schedule.stop_at is not None and self.last_test_accuracy >= schedule.stop_at:
                    return "stopped"
                if over:
                    return "finished"
                if self.callback.stop():
                    self.callback.checkpoint(self.state())
                    return "interrupted"
                self._checkpoint_if_due(evaluated=due)
            self._order = None
            cursor.finish_epoch()
        return ""

    def _take_parts(self) -> None:
        """Take the rule and the engine of the phase where they change, and the initial weights for a restart."""
        stage = self.course.stage(self.cursor.phase)
        if stage is not self._stage and self.course.make_parts is not None:
            if stage is Stage.RESTART:
                self.model.load_state_dict(self._initial)
            self.rule, self.engine = self.course.make_parts(stage)
            self._stage = stage

    def _start_epoch(self) -> Tensor:
        epoch = self.cursor.epoch
        self._rule_at_start = {name: value.clone() for name, value in self.rule.state().items()}
        self.data.train.start_epoch(self.schedule.seed, epoch)
        order = self.cursor.presented(checked_order(self.rule, epoch).to(self.device))
        self.cursor.rate_factor = checked_rate_factor(self.rule, epoch)
        self.data.train.read_ahead(order[self.cursor.position :])
        return order

    def _train_chunk(self, order: Tensor) -> None:
        index, rates = self.cursor.next(order, self.seen)
        with self.clock, matmul_precision(self.schedule.precision, self.device), self._seeded("chunk"):
            outcome = self.engine.train(index, rates)
            train = self.data.train
            batch = ScoredBatch(index, outcome.logits, train.targets[index], outcome.selected, train.label_smoothing)
            self.rule.update(batch if is_builtin(self.rule) else protected(batch))
            self.cursor.trained(batch, rates)
        self.counters.add(batch, outcome)
        self.scores.add(batch)
        self._unsettled += len(index)

    def _losses_are_finite(self, due: bool, length: int) -> bool:
        """Settle the counters. Returns False if a loss was not finite.

        On a GPU they are settled at evaluations and ends of epochs. In between they are settled for the progress bar
        alone, because where a run ends must not depend on its speed.
        """
        border = due or self.device.type == "cpu" or self.cursor.position == length
        if not border and time.monotonic() - self._settled_at < PATIENCE:
            return True
        return self._settle() or not border

    def _settle(self) -> bool:
        correct, selected, finite = self.counters.settle()
        self.callback.progress(self._unsettled, correct, selected)
        self._unsettled, self._settled_at = 0, time.monotonic()
        return finite

    def _evaluate(self) -> None:
        with self.eval_clock, self._seeded("evaluation"):
            test = evaluate(self.model, self.data.test)
            val_accuracy = None if self.data.val is None else accuracy(self.model, self.data.val)
        self.by_class = [test.counts, test.correct]
        self.hidden_state.check()
        train_loss, train_accuracy = self.counters.take_interval()
        cursor, length = self.cursor, len(self._order) if self._order is not None else 1
        store = None if self.course.replay is None else self.course.replay.store
        context = EvalContext(
            schedule=self.schedule,
            counters=self.counters,
            scores=self.scores,
            energy=self.energy if self.energy.enabled else None,
            minimum=self.energy.minimum() if self.energy.enabled else None,
            epoch=round(self.epochs_done, 6),
            updates_possible=cursor.updates_possible(length),
            learning_rate=cursor.rate if self.seen else None,
            train_seconds=self.clock.seconds,
            eval_seconds=self.eval_clock.seconds,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_accuracy=val_accuracy,
            test_accuracy=test.accuracy,
            worst_class_accuracy=test.worst_class_accuracy,
            calibration_error=test.calibration_error,
            test_loss=test.loss,
            phases=self._progress(),
            memory_samples=None if store is None else len(store),
        )
        self.rows, self._tested = self.rows + 1, test
        self.last_test_accuracy, self.seen_at_last_row = test.accuracy, self.seen
        self.callback.evaluated(context)

    def test_predictions(self) -> tuple[Tensor, Tensor]:
        """Predicted classes (n,) and confidences (n,) of the test samples, after `run` has ended."""
        if self._tested is None:  # resumed after the last evaluation
            with self._seeded("evaluation"):
                self._tested = evaluate(self.model, self.data.test)
        return self._tested.predictions.cpu(), self._tested.confidences.cpu()

    def _progress(self) -> Progress:
        """Accuracies by phase at the last evaluation."""
        counts, correct = self.by_class
        return progress(self.course.phases, self.cursor.phase, counts, correct, self.phase_ends)

    def _checkpoint_if_due(self, evaluated: bool) -> None:
        every = self.schedule.checkpoint_every
        if time.monotonic() - self._saved_at >= every if every else evaluated:
            self.callback.checkpoint(self.state())
            self._saved_at = time.monotonic()

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides its settings; tensors and plain values only."""
        if self._unsettled:
            self._settle()
        components = components_of(self.data)
        return {
            "model": self.model.state_dict(),
            "engine": self.engine.state(),
            "rule_at_epoch_start": self._rule_at_start,
            "rule": self.rule.state(),
            "counters": self.counters.state(),
            "scores": self.scores.state(),
            "energy": self.energy.state(),
            "cursor": self.cursor.state(),
            "initial": self._initial,
            "seconds": [self.clock.seconds, self.eval_clock.seconds],
            "progress": {name: getattr(self, name) for name in PROGRESS},
            **({} if components is None else {"components": components.state()}),
        }

    def trained_model(self) -> dict[str, Any]:
        """The state_dict of the network of the inputs of the data set."""
        components = components_of(self.data)
        state = self.model.state_dict()
        return state if components is None else folded(state, components)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of the same settings."""
        for name in PROGRESS:
            setattr(self, name, state["progress"][name])
        self.cursor.restore(state["cursor"])
        self._initial = state["initial"]
        self._take_parts()
        self.model.load_state_dict(state["model"])
        if "components" in state:
            restore_components(self.data, state["components"])
        self.engine.restore(state["engine"])
        self.counters.restore(state["counters"])
        self.scores.restore(state["scores"])
        self.energy.restore(state["energy"])
        # The epoch's order is not saved: the rule makes it again from its state at the start of the epoch.
        self.rule.restore(state["rule_at_epoch_start"])
        self._order = self._start_epoch()
        self.rule.restore(state["rule"])
        self.clock.seconds, self.eval_clock.seconds = state["seconds"]
