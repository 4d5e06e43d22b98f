"""A run from start to end: epochs, evaluations, checkpoints. The engine does the training itself."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from lazyexp.data import Data
from lazyexp.rules import Rule, ScoredBatch
from lazyexp.training.clock import Clock
from lazyexp.training.context import Callback, EvalContext
from lazyexp.training.counters import Counters
from lazyexp.training.energy import Energy
from lazyexp.training.engine import Engine
from lazyexp.training.evaluation import accuracy, evaluate
from lazyexp.training.fast.layers import Layers
from lazyexp.training.folding import components_of, folded, restore_components
from lazyexp.training.guards import HiddenState, warm_up
from lazyexp.training.isolation import seeded
from lazyexp.training.precision import matmul_precision
from lazyexp.training.schedules import TrainingSchedule
from lazyexp.training.scores import Scores
from lazyexp.training.selection import checked_order, is_builtin, protected

# Seconds after which the counters of a GPU are read for the progress bar. Otherwise they are read at evaluations and
# ends of epochs only.
PATIENCE = 1.0
PROGRESS = ("epoch", "position", "rows", "seen_at_last_row", "last_test_accuracy", "rate")


class Trainer:
    """Trains `model` on `data.train` with `engine`, as `schedule` says, and reports to `callback`."""

    def __init__(
        self,
        schedule: TrainingSchedule,
        data: Data,
        model: nn.Module,
        rule: Rule,
        engine: Engine,
        energy: Energy,
        callback: Callback,
    ) -> None:
        self.schedule, self.data, self.model, self.rule, self.engine = schedule, data, model, rule, engine
        self.energy, self.clock, self.callback = energy, energy.clock, callback
        self.device = data.train.targets.device
        self.counters = Counters(len(data.train), self.device)
        self.scores = Scores(len(data.train), self.device)
        self.eval_clock = Clock(self.device)
        self.hidden_state = HiddenState.of_model(model)
        self.epoch = self.position = self.rows = self.seen_at_last_row = 0
        self.last_test_accuracy, self.rate = 0.0, schedule.lr
        self._plain = Layers.fit(model)  # draws no random numbers
        self._order: Tensor | None = None
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

    def run(self) -> str:
        """Train to the end. Returns the status: finished, stopped, diverged or interrupted."""
        with matmul_precision(self.schedule.precision, self.device), self._seeded("warm_up"):
            warm_up(self.model, self.data.test)
        while self.epoch < self.schedule.epochs:
            if self._order is None:
                with self.clock:
                    self._order = self._start_epoch()
            while self.position < len(self._order):
                self._train_chunk(self._order)
                due = self.schedule.evaluation_is_due(self.seen, self.seen_at_last_row)
                finite = self._losses_are_finite(due, len(self._order))
                if due or not finite:
                    self._evaluate()
                if not finite:
                    return "diverged"
                stop_at = self.schedule.stop_at
                if due and stop_at is not None and self.last_test_accuracy >= stop_at:
                    return "stopped"
                if self.callback.stop():
                    self.callback.checkpoint(self.state())
                    return "interrupted"
                self._checkpoint_if_due(evaluated=due)
            self._order, self.position = None, 0
            self.epoch += 1
        if self.seen > self.seen_at_last_row or not self.rows:
            self._evaluate()
        return "finished"

    def _start_epoch(self) -> Tensor:
        self._rule_at_start = {name: value.clone() for name, value in self.rule.state().items()}
        self.data.train.start_epoch(self.schedule.seed, self.epoch)
        return checked_order(self.rule, self.epoch).to(self.device)

    def _train_chunk(self, order: Tensor) -> None:
        index = order[self.position : self.position + self.schedule.chunk(self.seen)]
        rates = self.schedule.learning_rates(self.epoch, self.position, len(index), len(order))
        with self.clock, matmul_precision(self.schedule.precision, self.device), self._seeded("chunk"):
            outcome = self.engine.train(index, rates)
            batch = ScoredBatch(index, outcome.logits, self.data.train.targets[index], outcome.selected)
            self.rule.update(batch if is_builtin(self.rule) else protected(batch))
        self.counters.add(batch, outcome)
        self.scores.add(batch)
        self.position, self.rate = self.position + len(index), rates[-1]
        self._unsettled += len(index)

    def _losses_are_finite(self, due: bool, length: int) -> bool:
        """Settle the counters. Returns False if a loss was not finite.

        On a GPU they are settled at evaluations and ends of epochs. In between they are settled for the progress bar
        alone, because where a run ends must not depend on its speed.
        """
        border = due or self.device.type == "cpu" or self.position == length
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
        self.hidden_state.check()
        train_loss, train_accuracy = self.counters.take_interval()
        length = len(self._order) if self._order is not None else 1
        context = EvalContext(
            schedule=self.schedule,
            counters=self.counters,
            scores=self.scores,
            energy=self.energy if self.energy.enabled else None,
            minimum=self.energy.minimum() if self.energy.enabled else None,
            epoch=round(self.epoch + self.position / length, 6),
            updates_possible=self.schedule.updates_possible(self.epoch, self.position, length, len(self.data.train)),
            learning_rate=self.rate,
            train_seconds=self.clock.seconds,
            eval_seconds=self.eval_clock.seconds,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_accuracy=val_accuracy,
            test_accuracy=test.accuracy,
            worst_class_accuracy=test.worst_class_accuracy,
            calibration_error=test.calibration_error,
        )
        self.rows += 1
        self.last_test_accuracy, self.seen_at_last_row = test.accuracy, self.seen
        self.callback.evaluated(context)

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
        self.model.load_state_dict(state["model"])
        if "components" in state:
            restore_components(self.data, state["components"])
        self.engine.restore(state["engine"])
        self.counters.restore(state["counters"])
        self.scores.restore(state["scores"])
        self.energy.restore(state["energy"])
        for name in PROGRESS:
            setattr(self, name, state["progress"][name])
        # The epoch's order is not saved: the rule makes it again from its state at the start of the epoch.
        self.rule.restore(state["rule_at_epoch_start"])
        self._order = self._start_epoch()
        self.rule.restore(state["rule"])
        self.clock.seconds, self.eval_clock.seconds = state["seconds"]
