"""The settings of a run as one flat dictionary, from either of the files that contain them."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

from lazyexp.config.run_id import NOT_IN_RUN_ID
from lazyexp.config.schema import Config
from lazyexp.config.validation import ENTRIES

# Not settings of a comparison: the rule, the seed, directories, and the targets whose crossings were recorded.
NOT_COMPARED = (*NOT_IN_RUN_ID, "seed", "rule", "rule_options", "dataset.path", "dataset.mirror", "targets")


def flat_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Flatten the settings of run.json: dotted keys, values as from `plain_value`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "rule":
            flat["rule"] = value["name"]
            flat["rule_options"] = json.dumps({k: v for k, v in value.items() if k != "name"}, sort_keys=True)
        elif isinstance(value, dict):
            flat.update({f"{key}.{name}": plain_value(entry) for name, entry in value.items()})
        else:
            flat[key] = plain_value(value)
    return flat


def summary_settings(summary: dict[str, Any]) -> dict[str, Any]:
    """Extract the settings from the columns of a summary.csv."""
    groups = tuple(f"{entry.name}." for entry in fields(Config))
    settings = {key: plain_value(value) for key, value in summary.items() if key in ENTRIES or key.startswith(groups)}
    return {**settings, "rule_options": summary.get("rule_options") or "{}"} if settings else {}


def plain_value(value: Any) -> Any:
    """Normalise a value from JSON or CSV: whole numbers as int, lists as JSON, an empty cell as None."""
    if isinstance(value, str):
        try:
            value = {"": None, "True": True, "False": False}[value]
        except KeyError:
            try:
                value = json.loads(value)
            except ValueError:
                return value
    if isinstance(value, list | dict):
        return json.dumps(value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value
