"""A run's keys and a rule's options say on their field what they mean and what their values must be.

Nothing here imports torch.
"""

from __future__ import annotations

import math
import operator
from dataclasses import Field, field
from typing import Any

from lazyexp.errors import UserError

# What keeps values in bounds, in words and in deed.
BOUNDS = {
    "at_least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "at_most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def setting(default: Any, help: str = "", **constraints: Any) -> Any:
    """A field: its default, its meaning, and what its values must be.

    `choices`: a dictionary from value to meaning ("" where the name says it all), or a sequence. `at_least`, `above`,
    `at_most`, `below`: bounds, of every element if the value is a list; no value with bounds may be infinite.
    `wanted`: how an error puts the bounds. None is always allowed where it is the default.
    """
    metadata = {"help": help, **constraints}
    if isinstance(default, (dict, list)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def require(condition: bool, key: str, value: Any, wanted: str) -> None:
    """Refuses a value in one line unless the condition holds. Raises UserError."""
    if not condition:
        raise UserError(f"{key}={value}: must be {wanted}")


def check_setting(entry: Field, key: str, value: Any) -> None:
    """Refuses a value that is out of the bounds on its field. Raises UserError."""
    wanted = entry.metadata
    if value is None:
        return
    if "choices" in wanted:
        for one in value if isinstance(value, list) else [value]:
            require(one in wanted["choices"], key, one, f"one of {', '.join(wanted['choices'])}")
    holds = [(word, wanted[name], compare) for name, (word, compare) in BOUNDS.items() if name in wanted]
    words = wanted.get("wanted", ", ".join(f"{word} {bound:g}" for word, bound, _ in holds))
    for number in value if isinstance(value, list) else [value]:
        if holds:
            require(math.isfinite(number), key, value, "finite")
            require(all(compare(number, bound) for _, bound, compare in holds), key, value, words)
