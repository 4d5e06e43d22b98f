"""The files of a run, read back: the one reader of what `results.py` writes. Nothing here imports torch."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from lazyexp.errors import UserError
from lazyexp.runs.columns import typed


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The complete rows of a CSV file by column: figures as numbers, None where a cell is empty; {} without a row.

    A last line that was cut off while being written is left out. Raises UserError if the file is damaged.
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
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder to do the run again") from None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """As `read_columns`, a dictionary for every row."""
    columns = read_columns(path)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file such as run.json; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
