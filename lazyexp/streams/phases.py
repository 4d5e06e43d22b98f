"""The phases of a stream: which classes are presented when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyexp.config.fields import require
from lazyexp.errors import UserError


@dataclass(frozen=True)
class Phase:
    """A part of a run: `epochs` passes over the samples of some classes.

    `number` counts from 1. `classes` begin with this phase. `presented` are the classes whose samples it presents.
    `restart` marks the last phase of `memory.restart_epochs`, which trains a new network on the stored samples alone.
    """

    number: int
    classes: tuple[int, ...]
    presented: tuple[int, ...]
    epochs: int
    restart: bool = False

    def members(self, targets: Tensor, classes: int) -> Tensor:
        """(n,) bool: the samples with the labels `targets` (n,) that this phase presents."""
        presented = torch.zeros(classes, dtype=torch.bool, device=targets.device)
        presented[list(self.presented)] = True
        return presented[targets]


def make_phases(phases: Any, present: str, classes: int, epochs: int, restart_epochs: int = 0) -> list[Phase]:
    """The phases of the settings `stream.phases` and `stream.present`, for data of so many classes.

    Args:
        phases: classes of each phase; a number of phases that share the classes in order, in sizes that differ by
            one at most; None: one phase.
        present: `new` or `all`.
        classes: classes of the data.
        epochs: passes of each phase.
        restart_epochs: passes of a last phase on the stored samples; 0: none.

    Raises:
        UserError: a class is unknown, or there are more phases than classes.
    """
    if phases is None or isinstance(phases, int):
        number = phases or 1
        require(number <= classes, "stream.phases", phases, f"at most {classes}, the number of classes")
        parts = [tuple(part.tolist()) for part in torch.tensor_split(torch.arange(classes), number)]
    else:
        parts = [tuple(part) for part in phases]
        unknown = next((label for part in parts for label in part if label >= classes), None)
        if unknown is not None:
            raise UserError(f"stream.phases={phases}: class {unknown} is unknown; the classes are 0 to {classes - 1}")
    made: list[Phase] = []
    for number, new in enumerate(parts, 1):
        old = made[-1].presented if made and present == "all" else ()
        made.append(Phase(number, new, (*old, *new), epochs))
    if restart_epochs:
        everything = tuple(label for part in parts for label in part)
        made.append(Phase(len(parts) + 1, (), everything, restart_epochs, restart=True))
    return made


def check_members(phases: list[Phase], targets: Tensor, classes: int) -> None:
    """Raise UserError if a phase has no training samples."""
    counts = torch.bincount(targets, minlength=classes).tolist()
    for phase in phases:
        if not sum(counts[label] for label in phase.presented):
            raise UserError(f"stream.phases: phase {phase.number} has no training samples")
