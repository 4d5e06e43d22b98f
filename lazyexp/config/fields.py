"""Fields of settings and of rules: their meaning, their bounds, and one walk over nested settings.

Nothing here imports torch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import Field, FrozenInstanceError, field, fields, is_dataclass
from typing import Any

from lazyexp.errors import UserError

# The bounds of a field, in words and as comparisons.
BOUNDS = {
    "at_least": ("at least", operator.ge),
    "above": ("greater than", operator.gt),
    "at_most": ("at most", operator.le),
    "below": ("less than", operator.lt),
}


class Freezable:
    """Settings that become read-only with `freeze`; a copy made by `dataclasses.replace` is writable.

    Not a frozen dataclass: OmegaConf would make every value of one read-only before overrides are applied.
    """

    def freeze(self) -> None:
        """Refuse assignments from now on."""
        object.__setattr__(self, "_frozen", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_frozen", False):
            raise FrozenInstanceError(f"cannot assign to {name}: these settings have been checked")
        object.__setattr__(self, name, value)


def setting(default: Any, help: str = "", **constraints: Any) -> Any:
    """A dataclass field with its default, its meaning and its bounds.

    Args:
        default: the default; a dictionary or list is copied.
        help: the meaning, a phrase that can be read by itself.
        constraints: `choices`: a dictionary from value to meaning ("" where the name suffices) or a sequence;
            `at_least`, `above`, `at_most`, `below`: bounds of a number, or of every element of a list; a number with
            bounds must be finite; `wanted`: the bounds in words, for the error. None is allowed if it is the default.
    """
    metadata = {"help": help, **constraints}
    if isinstance(default, (dict, list)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def require(condition: bool, key: str, value: Any, wanted: str) -> None:
    """Raise UserError `key=value: must be wanted` unless the condition holds."""
    if not condition:
        raise UserError(f"{key}={value}: must be {wanted}")


def check_setting(entry: Field[Any], key: str, value: Any) -> None:
    """Raise UserError if `value` is outside the bounds of its field."""
    constraints = entry.metadata
    if value is None:
        return
    elements = value if isinstance(value, list) else [value]
    if "choices" in constraints:
        for element in elements:
            require(element in constraints["choices"], key, element, f"one of {', '.join(constraints['choices'])}")
    bounds = [(word, constraints[name], compare) for name, (word, compare) in BOUNDS.items() if name in constraints]
    if not bounds:
        return
    words = constraints.get("wanted", ", ".join(f"{word} {bound:g}" for word, bound, _ in bounds))
    for number in elements:
        require(is_number(number), key, value, "a number")
        inside = math.isfinite(number) and all(compare(number, bound) for _, bound, compare in bounds)
        require(inside, key, value, words)


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float, but not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def default_of(entry: Field[Any]) -> Any:
    """The default of a field."""
    return entry.default_factory() if callable(entry.default_factory) else entry.default


def walk(schema: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Dotted key and field of every setting of a dataclass or an instance of one, in order of definition.

    A field that is a dataclass is a group: its own settings follow, with its name before them.
    """
    for entry in fields(schema):
        group = entry.default_factory if isinstance(schema, type) else getattr(schema, entry.name)
        if is_dataclass(group):
            yield from walk(group, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, entry


def value_at(settings: Any, key: str) -> Any:
    """The value of a dotted key in nested settings, dataclasses or dictionaries. Raises KeyError."""
    for name in key.split("."):
        if isinstance(settings, dict):
            settings = settings[name]
        elif hasattr(settings, name):
            settings = getattr(settings, name)
        else:
            raise KeyError(key)
    return settings
