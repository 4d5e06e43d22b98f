"""Look ahead while learners are rare, go one by one while they are common; both learn the same."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lazyexp.accounting import Outcome
from lazyexp.training.fast.deferred import BLOCK, Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.lookahead import LookAhead
from lazyexp.training.job import Job

# Share of batches that learn above which most judgements must be made again (see docs/performance.md).
SWITCH = 0.5


class Adaptive:
    """Plain SGD on small batches under a rule that decides by a sample's own logits."""

    def __init__(self, job: Job) -> None:
        self.rule, self.look_ahead = job.rule, LookAhead(job)
        self.one_by_one = Deferred(job) if job.batch_size <= BLOCK // 4 else Direct(job)

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        if self.rule.selects and self.look_ahead.share < SWITCH:
            return self.look_ahead.train(index, rates)
        outcome = self.one_by_one.train(index, rates)
        self.look_ahead.share = int(outcome.updates) / len(rates)
        return outcome

    def state(self) -> dict[str, Any]:
        return self.look_ahead.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.look_ahead.restore(state)
