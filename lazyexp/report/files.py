"""The three files of a run, read without trusting them."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

REQUIRED = ("samples_seen", "test_accuracy", "train_seconds", "backward_samples", "updates", "forward_samples")
OPTIONAL = ("epoch", "energy_l1", "energy_l0", "val_accuracy", "train_accuracy", "train_loss", "distinct_learned")


class Unreadable(Exception):
    """A folder that looks like a run and cannot be used; the message says why."""


def complete_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, without a last one that was cut off while being written."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    return list(csv.DictReader(io.StringIO("".join(lines))))


def numbers(lines: list[dict[str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(lines)
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        raise Unreadable(f"metrics.csv lacks the columns {', '.join(missing)}")
    table = table.reindex(columns=[*REQUIRED, *OPTIONAL]).apply(pd.to_numeric, errors="coerce").astype(float)
    if table[["samples_seen", "train_seconds"]].isna().any(axis=None):
        raise Unreadable("metrics.csv has rows that are not numbers")
    return table


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def flat_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of run.json with dotted keys, values as `plain_value` gives them."""
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


def summary_settings(summary: dict[str, str]) -> dict[str, Any]:
    """The settings in a summary.csv: the columns between the measured ones and `best_test_accuracy`."""
    names = ("epochs", "eval_every", "targets", "stop_at", "energy", "engine", "batch_size", "seed", "rule")
    dotted = ("dataset.", "model.", "optimizer.")
    settings = {key: plain_value(value) for key, value in summary.items() if key in names or key.startswith(dotted)}
    return {**settings, "rule_options": summary.get("rule_options") or "{}"} if settings else {}


def plain_value(value: Any) -> Any:
    """One form for a value from JSON or from CSV: whole numbers as int, lists as JSON, nothing as None."""
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
