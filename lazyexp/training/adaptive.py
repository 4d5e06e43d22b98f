"""Look ahead while learners are rare, go one by one while they are common; both learn the same."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lazyexp.accounting import Energy, Outcome
from lazyexp.config import OptimizerConfig
from lazyexp.data import Images
from lazyexp.rules import Rule
from lazyexp.training.deferred import BLOCK, Deferred
from lazyexp.training.direct import Direct
from lazyexp.training.lookahead import LookAhead

# Share of batches that learn above which judging ahead is mostly judging in vain (see docs/performance.md).
SWITCH = 0.5


class Adaptive:
    """Plain SGD on small batches under a rule that decides by a sample's own logits."""

    def __init__(
        self,
        model: nn.Sequential,
        images: Images,
        rule: Rule,
        config: OptimizerConfig,
        batch_size: int,
        energy: Energy,
    ) -> None:
        arguments = (model, images, rule, config, batch_size, energy)
        self.rule, self.batch_size = rule, batch_size
        self.ahead = LookAhead(*arguments)
        self.one_by_one = Deferred(*arguments) if batch_size <= BLOCK // 4 else Direct(*arguments)

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        """Presents the samples `index` (m,) in batches, with one learning rate per batch."""
        if self.rule.selects and self.ahead.share < SWITCH:
            return self.ahead.train(index, rates)
        outcome = self.one_by_one.train(index, rates)
        self.ahead.share = outcome.updates / len(rates)
        return outcome

    def state(self) -> dict[str, Any]:
        return self.ahead.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.ahead.restore(state)
