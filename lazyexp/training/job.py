"""What an engine is given, and what it must do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from lazyexp.accounting import Outcome
from lazyexp.config import OptimizerConfig, PlasticityConfig
from lazyexp.data import Images
from lazyexp.energy import Energy
from lazyexp.rules import Rule


@dataclass(frozen=True)
class Job:
    """Train `model` on `images` under `rule`, in batches of `batch_size`, and book the changes in `energy`."""

    model: nn.Module
    images: Images
    rule: Rule
    optimizer: OptimizerConfig
    batch_size: int
    energy: Energy
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)
    seed: int = 0

    @property
    def reduction(self) -> str:
        """What the gradient is divided by: `batch` or `selected`; the rule's own if the settings leave it open."""
        return self.optimizer.reduction or self.rule.reduction


class Engine(Protocol):
    """Learns from samples in the order given."""

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        """Presents the samples `index` (m,) in batches, with one learning rate per batch."""
        ...

    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...
