"""Accuracies by phase, and backward transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lazyexp.streams.phases import Phase


@dataclass(frozen=True)
class Progress:
    """Test accuracies at an evaluation in phase `phase`; None where there are no test samples.

    `old`: on the classes of earlier phases. `new`: on the classes of this phase. `by_phase`: on the classes of every
    phase so far, this one included. `average`: mean of `by_phase`. `backward_transfer`: mean over the earlier phases
    of their accuracy now minus their accuracy when they ended (Lopez-Paz & Ranzato 2017, arXiv 1706.08840, there at
    the end of the last phase).
    """

    phase: int
    old: float | None
    new: float | None
    by_phase: tuple[float | None, ...]
    average: float | None
    backward_transfer: float | None


def progress(
    phases: Sequence[Phase],
    current: int,
    counts: Sequence[float],
    correct: Sequence[float],
    at_end: Sequence[float | None],
) -> Progress:
    """The measures in phase number `current` (from 0).

    Args:
        counts: test samples of each class.
        correct: those of them that are classified correctly.
        at_end: accuracies of the earlier phases, each at its end.
    """

    def accuracy(part: Sequence[Phase]) -> float | None:
        labels = [label for phase in part for label in phase.classes]
        total = sum(counts[label] for label in labels)
        return sum(correct[label] for label in labels) / total if total else None

    by_phase = tuple(accuracy([phase]) for phase in phases[: current + 1] if phase.classes)
    changes = [
        now - before for now, before in zip(by_phase, at_end, strict=False) if now is not None and before is not None
    ]
    return Progress(
        phase=phases[current].number,
        old=accuracy(phases[:current]),
        new=accuracy(phases[current : current + 1]),
        by_phase=by_phase,
        average=_mean([value for value in by_phase if value is not None]),
        backward_transfer=_mean(changes),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
