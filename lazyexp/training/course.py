"""What a run presents: its phases, the replays of a store, and the rules and engines that train on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from lazyexp.rules import Rule
from lazyexp.streams import Phase, Replay
from lazyexp.training.engine import Engine


class Stage(Enum):
    """Parts of a run with a rule and an engine each: under the base rule, under the rule, after a restart."""

    BASE = "base"
    MAIN = "main"
    RESTART = "restart"


@dataclass
class Course:
    """The phases of a run, in order.

    `make_parts` makes the rule and the engine of a stage; None if the whole run has one stage. `base` says whether
    the first phase has a rule of its own.
    """

    phases: list[Phase]
    replay: Replay | None = None
    make_parts: Callable[[Stage], tuple[Rule, Engine]] | None = None
    base: bool = False

    def stage(self, phase: int) -> Stage:
        """The stage of a phase, counted from 0."""
        if self.phases[phase].restart:
            return Stage.RESTART
        return Stage.BASE if self.base and phase == 0 else Stage.MAIN

    def first_epoch(self, phase: int) -> int:
        """Passes before a phase, counted from 0; behind the last one, all passes."""
        return sum(part.epochs for part in self.phases[:phase])

    def planned(self, targets: Tensor, classes: int) -> int:
        """Samples that the phases present, without replays and restart, to samples with the labels `targets` (n,)."""
        return sum(
            part.epochs * int(part.members(targets, classes).sum()) for part in self.phases if not part.restart
        )
