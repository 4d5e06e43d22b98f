"""Reading the files of a run, whichever version wrote them. Does not import torch."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from lazyexp.errors import UserError
from lazyexp.runs.columns import typed


def read_columns(path: Path) -> dict[str, list[Any]]:
    """Read the complete rows of a CSV file by column.

    Returns:
        Numbers as int or float, None for empty cells; no columns if there is no row. A last line without a line
        break, cut off while it was written, is left out.

    Raises:
        UserError: The file is damaged or cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:-1]
        names, *rows = list(csv.reader(lines)) or [[]]
        rows = [row for row in rows if row]
        if any(len(row) != len(names) for row in rows):
            raise ValueError("a row is too short or too long")
        columns = zip(names, zip(*rows, strict=True), strict=False)
        return {name: [typed(name, text) for text in texts] for name, texts in columns}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder to repeat the run") from None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """As `read_columns`, with one dictionary per row."""
    columns = read_columns(path)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def read_json(path: Path) -> dict[str, Any]:
    """Read a run.json, empty if it is missing or damaged.

    `settings`, if present, is a dictionary with `rule` and `dataset` as dictionaries, a rule's name as text, and only
    finite numbers among `targets`; what else another version or an editor has left there is removed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    settings = content.get("settings")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(key), dict) for key in ("rule", "dataset")):
        content.pop("settings", None)
    elif not isinstance(settings["rule"].get("name"), str):
        content.pop("settings")
    elif "targets" in settings:
        settings["targets"] = [target for target in _list(settings["targets"]) if _is_number(target)]
    return content


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
