"""The interface of an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from lazyexp.config.schema import OptimizerConfig, PackingConfig, PlasticityConfig
from lazyexp.data import Samples
from lazyexp.errors import UserError
from lazyexp.rules import Rule
from lazyexp.training.counters import Outcome
from lazyexp.training.energy import Energy

REDUCTIONS = ("batch", "selected", "full_batch")


@dataclass(frozen=True)
class EngineSpec:
    """What an engine trains: `model` on `samples` under `rule`, in batches of `batch_size`, its weight changes added
    to `energy`."""

    model: nn.Module
    samples: Samples
    rule: Rule
    optimizer: OptimizerConfig
    batch_size: int
    energy: Energy
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        rule = self.rule
        if rule.reduction not in REDUCTIONS:
            raise UserError(
                f"rule {type(rule).__name__}: reduction={rule.reduction!r}: must be one of {', '.join(REDUCTIONS)}"
            )

    @property
    def reduction(self) -> str:
        """Divisor of a batch's summed gradient, `batch` or `selected`: the setting, or the rule's default."""
        default = self.rule.reduction
        return self.optimizer.reduction or ("batch" if default == "full_batch" else default)

    @property
    def block_size(self) -> int:
        """Samples that packing scores at once; 0: no packing. A full batch for rules that queue their samples."""
        queues = self.rule.reduction == "full_batch" and self.batch_size > 1  # a single sample is a full batch
        return self.packing.block_size or (self.batch_size if queues else 0)


class Engine(Protocol):
    """Trains on samples in the order given."""

    #: When this engine is used, for the table in the documentation.
    applies: ClassVar[str]

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        """Why this engine cannot train `spec`, or None if it can."""
        ...

    def train(self, index: Tensor, rates: list[float]) -> Outcome:
        """Train on the samples `index` (m,) in batches, with one learning rate per batch."""
        ...

    def state(self) -> dict[str, Any]:
        """What a resumed run needs; tensors and plain values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        ...


class SpecEngine(Engine, Protocol):
    """An engine that is made from a spec alone."""

    def __init__(self, spec: EngineSpec) -> None: ...
