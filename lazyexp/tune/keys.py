"""The keys of a search: those given on the command line, and whether a key can have a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from lazyexp.config.compose import parse
from lazyexp.config.fields import check_setting
from lazyexp.config.messages import unknown_key
from lazyexp.config.registry import NAMES, RULES
from lazyexp.config.settings_files import preset_values
from lazyexp.config.validation import ENTRIES
from lazyexp.errors import UserError

# Keys that a search or its finals set themselves, and what to do.
RESERVED = {"runs_dir": "is FOLDER/runs in a search; set --folder", "overwrite": "a trial is trained once"}
GROUPS = (*NAMES, "plasticity", "stream", "memory")


def plain_key(key: str) -> str:
    """The key as a search space writes it: `optimizer.name` is `optimizer`."""
    group, _, rest = key.partition(".")
    return group if group in GROUPS and rest == "name" else key


def given_values(overrides: Sequence[str]) -> dict[str, Any]:
    """The values of the keys that are given. Raises UserError for what a search cannot have."""
    parsed = parse(list(overrides))
    values = {plain_key(key): value for key, value in preset_values(parsed).items()}
    values.pop("runs_dir", None)  # the search has its own
    for item in parsed:
        if item.is_sweep_override():
            raise UserError(f"{item.input_line}: several values; a search needs one, or none to search the key")
        key = plain_key(item.key_or_group)
        if key in RESERVED:
            raise UserError(f"{key}: {RESERVED[key]}")
        if item.key_or_group in GROUPS:
            values.setdefault(key, item.value())  # a preset has the name of its part
        else:
            values[key] = item.value()
        group, _, rest = key.partition(".")
        if rest == "_target_" and group in GROUPS:  # a custom part: no name of a built-in one replaces it
            values.setdefault(group, None)
    return values


def check_key(key: str, values: Sequence[Any], rule: str) -> None:
    """Raise UserError unless every value can be set for the key."""
    if key in RESERVED:
        raise UserError(f"{key}: {RESERVED[key]}")
    if key in NAMES:
        _check_choices(key, values, NAMES[key])
        return
    entry = ENTRIES.get(f"{key}.name" if key in GROUPS else key)
    group, _, option = key.partition(".")
    if group == "rule" and rule in RULES:
        options = {item.name: item for item in fields(RULES[rule])}
        if option not in options:
            raise UserError(f"{key}: unknown option of rule {rule} (options: {', '.join(options) or 'none'})")
        entry = options[option]
    elif group in GROUPS and (group == "rule" or option.startswith("options.")):
        return  # of a custom part, which checks it
    if entry is None:
        raise UserError(unknown_key(key))
    for value in values:
        try:
            check_setting(entry, key, value)
        except TypeError:
            raise UserError(f"{key}={value}: must be a number") from None


def _check_choices(key: str, values: Sequence[Any], names: Mapping[str, Any]) -> None:
    for value in values:
        if value not in names:
            raise UserError(f"{key}={value}: must be one of {', '.join(names)}")
