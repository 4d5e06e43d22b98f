"""A run's keys and a rule's options say on their field what they mean and what their values must be.

Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, field
from typing import Any

from lazyexp.errors import UserError


def setting(default: Any, help: str = "", **constraints: Any) -> Any:
    """A field: its default, its meaning, and what its values must be.

    `choices`: a dictionary from value to meaning ("" where the name says it all), or a sequence. `at_least`, `above`,
    `at_most`, `below`: bounds, of every element if the value is a list; no value with bounds may be infinite.
    `wanted`: how an error puts the bounds. None is always allowed where it is the default.
    """
    metadata = {"help": help, **constraints}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
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
        require(value in wanted["choices"], key, value, f"one of {', '.join(wanted['choices'])}")
    if not {"at_least", "above"} & set(wanted):
        return
    for number in value if isinstance(value, list) else [value]:
        inside = (
            math.isfinite(number)
            and number >= wanted.get("at_least", -math.inf)
            and number > wanted.get("above", -math.inf)
            and number <= wanted.get("at_most", math.inf)
            and number < wanted.get("below", math.inf)
        )
        require(inside, key, value, _bounds(wanted, type(number)))


def _bounds(wanted: Mapping[str, Any], kind: type) -> str:
    """What values must be, in words."""
    if "wanted" in wanted:
        return str(wanted["wanted"])
    if "above" in wanted:
        low, ends = f"a number above {wanted['above']:g}", " and"
    else:
        low, ends = f"{'at least' if kind is int else 'a number from'} {wanted['at_least']:g}", " to"
    if "below" in wanted:
        return f"{low}{ends} below {wanted['below']:g}"
    if "at_most" in wanted:
        return f"{low}{ends}{' at most' if 'above' in wanted else ''} {wanted['at_most']:g}"
    return low if kind is int or "above" in wanted else f"{low} up"
