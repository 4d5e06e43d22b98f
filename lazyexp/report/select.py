"""Select runs by their settings: `--where KEY=VALUE,VALUE`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lazyexp.errors import UserError
from lazyexp.report.formatting import setting_value

T = TypeVar("T")


def select(items: Sequence[T], where: Iterable[str], settings_of: Callable[[T], Mapping[str, Any]]) -> list[T]:
    """Keep the items whose settings have one of the values of every condition.

    Args:
        where: conditions such as `rule=lazy,backprop` or `model.width=100`. Raises UserError if one is malformed,
            names a setting that no item has, or leaves no item.
    """
    kept = list(items)
    for condition in where:
        key, equals, text = condition.partition("=")
        values = text.split(",")
        if not key or not equals or not all(values):
            raise UserError(f"--where {condition}: expected KEY=VALUE or KEY=VALUE,VALUE")
        known = [settings_of(item) for item in kept]
        if not any(key in settings for settings in known):
            keys = sorted({name for settings in known for name in settings})
            raise UserError(f"--where {condition}: no run has the setting {key}; there are {', '.join(keys)}")
        chosen = [
            item
            for item, settings in zip(kept, known, strict=True)
            if any(_equal(settings.get(key), v) for v in values)
        ]
        if not chosen:
            present = sorted({setting_value(settings.get(key)) for settings in known})
            raise UserError(f"--where {condition}: no such run; {key} is {', '.join(present[:20])}")
        kept = chosen
    return kept


def selectable(rule: str, options: str, seed: int, status: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All that `--where` can name: the settings, the rule and its options, the seed and the status."""
    named = {f"rule.{key}": value for key, value in json.loads(options or "{}").items()}
    return {**settings, **named, "rule": rule, "seed": seed, "status": status}


def _equal(value: Any, text: str) -> bool:
    if setting_value(value) == text or str(value) == text:
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(text)
    except (TypeError, ValueError):
        return False
