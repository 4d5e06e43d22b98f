"""The column of classes of a table: whole numbers, floats or text, as they are spelled."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd

from lazyexp.errors import UserError

# What pandas takes for an empty cell. In the column of classes they are names, such as NA for Namibia.
EMPTY = ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
         "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]  # fmt: skip


def sortable_labels(column: pd.Series[Any], label: str, source: str, notes: list[str]) -> list[Any]:
    """Labels that can be sorted: whole numbers, floats, or text. Raises UserError."""
    values = column.astype(object).tolist()
    empty = sum(_is_missing(_scalar(value)) for value in values)
    plain = [value.strip() if isinstance(value, str) else value for value in values]
    empty += sum(isinstance(value, str) and value == "" for value in plain)
    if empty:
        raise UserError(f"{source}: {empty} rows have no {label}")
    odd = next((value for value in plain if not isinstance(_scalar(value), (str, bool, int, float))), None)
    if odd is not None:
        raise UserError(f"{source}: {label} holds values of the type {type(odd).__name__}, not numbers or text")
    plain = [_scalar(value) for value in plain]
    numbers = [_number(value) for value in plain]
    whole = [number for number in numbers if number is not None]
    text = [str(value) for value in plain]
    if len(whole) == len(numbers):
        _note_spelling(dict(zip(text, whole, strict=True)), "one class", label, source, notes)
        if any(number != int(number) for number in whole):
            notes.append(f"{source}: the {len(set(whole))} numbers in {label}, not all whole, are one class each")
        return [int(number) if number == int(number) else number for number in whole]
    missing = sorted(set(text) & set(EMPTY))
    if missing:
        notes.append(f"{source}: {', '.join(missing)} in {label} is the name of a class, not a missing value")
    keys = {value: value.casefold() if _number(value) is None else _number(value) for value in text}
    _note_spelling(keys, "different classes", label, source, notes)
    return text


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _scalar(value: Any) -> Any:
    """A Python number of a NumPy one."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    if isinstance(value, str) and not re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", value):
        return None
    if isinstance(value, (bool, int)) and int(value) != number:
        return None
    return number if math.isfinite(number) else None


def _note_spelling(keys: dict[str, Any], verdict: str, label: str, source: str, notes: list[str]) -> None:
    """A note on labels that have the same key, and so differ in their spelling alone."""
    groups: dict[Any, list[str]] = {}
    for spelling, key in keys.items():
        groups.setdefault(key, []).append(spelling)
    for spellings in groups.values():
        if len(spellings) > 1:
            notes.append(f"{source}: {' and '.join(sorted(spellings)[:3])} in {label} are {verdict}")
            return
