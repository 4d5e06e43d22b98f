"""A column of metrics.csv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyexp.training.context import EvalContext


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        kind: int, float or str.
        label: Name on an axis, with its unit.
        measure: Returns the value at an evaluation.
        later: Whether finished runs of an earlier version lack the column.
    """

    name: str
    kind: type
    label: str
    meaning: str
    measure: Callable[[EvalContext], Any] = lambda context: None
    later: bool = False
