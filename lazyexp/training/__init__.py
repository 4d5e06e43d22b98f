"""Training: one trainer, several engines. `engines` chooses one; `autograd` is the reference for all of them."""

from lazyexp.training.engine import Engine, EngineSpec
from lazyexp.training.engines import make_engine
from lazyexp.training.evaluation import accuracy
from lazyexp.training.trainer import Trainer, TrainingSchedule

__all__ = ["Engine", "EngineSpec", "Trainer", "TrainingSchedule", "accuracy", "make_engine"]
