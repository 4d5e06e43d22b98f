"""Adaptive: look-ahead while updates are rare, one by one while they are frequent; the result is the same."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from lazyexp.training.counters import Outcome
from lazyexp.training.engine import Engine, EngineSpec
from lazyexp.training.fast.deferred import BLOCK, Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.layers import Layers, is_plain_sgd
from lazyexp.training.fast.lookahead import BLOCK as LOOK_AHEAD_BLOCK
from lazyexp.training.fast.lookahead import LookAhead
from lazyexp.training.selection import Selector

# Share of batches with an update above which most logits must be computed again (see docs/performance.md).
SWITCH = 0.5


class Adaptive:
    """Uses `LookAhead` for chunks with few updates, and `Deferred` or `Direct` otherwise.

    For plain SGD on small batches under a rule that decides by a sample's own logits.
    """

    applies: ClassVar[str] = "plain SGD, batches of up to 128 samples, rules that decide by a sample's own logits"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        if not Layers.fit(spec.model) or not is_plain_sgd(spec.optimizer):
            return "is for model=mlp with plain SGD"
        if not Selector(spec.rule).pointwise or spec.batch_size > LOOK_AHEAD_BLOCK // 4:
            return "is for small batches and rules that decide by a sample's own logits"
        return None

    def __init__(self, spec: EngineSpec) -> None:
        self.selector, self.look_ahead = Selector(spec.rule), LookAhead(spec)
        self.one_by_one: Engine = Deferred(spec) if spec.batch_size <= BLOCK // 4 else Direct(spec)

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        if self.look_ahead.share < SWITCH and not self.selector.decided(index):
            return self.look_ahead.train(index, rates)
        outcome = self.one_by_one.train(index, rates)
        self.look_ahead.share = int(outcome.updates) / len(rates)
        return outcome

    def state(self) -> dict[str, Any]:
        return self.look_ahead.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.look_ahead.restore(state)
