"""The pace of training and evaluation, measured for a moment before a run, to estimate how long it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import nn

from lazyexp.data import Data
from lazyexp.rules import Rule, ScoredBatch
from lazyexp.training.engine import Engine
from lazyexp.training.evaluation import evaluate
from lazyexp.training.precision import matmul_precision
from lazyexp.training.schedules import CHUNK, TrainingSchedule
from lazyexp.training.selection import checked_order

LIMIT = 2.0  # seconds
EVALUATED = 512  # samples


@dataclass(frozen=True)
class Pace:
    """Seconds per training sample, and seconds per evaluation."""

    sample: float
    evaluation: float

    def seconds(self, presented: int, eval_every: int) -> float:
        """Estimated seconds of a whole run that presents so many samples, and evaluates after every `eval_every`."""
        return presented * self.sample + (1 + -(-presented // eval_every)) * self.evaluation


def measure(schedule: TrainingSchedule, data: Data, model: nn.Module, rule: Rule, engine: Engine) -> Pace:
    """Train on the first samples of the first epoch for about two seconds, and evaluate some test samples.

    The rule, the engine and the model are used up. The last chunk counts: the first ones are short and slower.
    """
    data.train.start_epoch(schedule.seed, 0)
    order = checked_order(rule, 0).to(data.train.targets.device)
    pace = 0.0
    position, size, began = 0, schedule.batch_size, time.monotonic()
    while position < len(order) and time.monotonic() - began < LIMIT:
        index = order[position : position + size]
        start = time.monotonic()
        with matmul_precision(schedule.precision, data.train.targets.device):
            rates = schedule.learning_rates(0, position, len(index), len(order))
            outcome = engine.train(index, rates)
            rule.update(ScoredBatch(index, outcome.logits, data.train.targets[index], outcome.selected))
            outcome.logits.sum().item()  # waits for a GPU
        pace = (time.monotonic() - start) / len(index)
        position += len(index)
        size = min(2 * size, max(CHUNK // schedule.batch_size, 1) * schedule.batch_size)
    few = data.test.head(EVALUATED)
    start = time.monotonic()
    evaluate(model, few)
    evaluation = (time.monotonic() - start) * len(data.test) / len(few)
    return Pace(pace, evaluation)
