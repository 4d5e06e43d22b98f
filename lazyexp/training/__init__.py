"""Training: a trainer, and several engines that do its work. `engines` chooses one; `autograd` is their reference."""

from lazyexp.training.context import Callback, EvalContext
from lazyexp.training.engine import Engine, EngineSpec
from lazyexp.training.engines import make_engine
from lazyexp.training.evaluation import accuracy
from lazyexp.training.isolation import isolated
from lazyexp.training.schedules import TrainingSchedule
from lazyexp.training.trainer import Trainer

__all__ = [
    "Callback",
    "Engine",
    "EngineSpec",
    "EvalContext",
    "Trainer",
    "TrainingSchedule",
    "accuracy",
    "isolated",
    "make_engine",
]
