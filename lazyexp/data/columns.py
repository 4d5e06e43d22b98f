"""Columns of a table that should not be used for training: row numbers, and copies of the label."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lazyexp.data.arrays import Array

# Names that programs and people give to row numbers.
INDEX_NAME = re.compile(
    r"(?i:unnamed:? ?\d*|level_\d+|__index_level_\d+__|index|idx|id|row|row[ _.-]?\w*|no\.?|nr\.?|num|number|#|key"
    r"|.*[ _.-](id|idx|index|no|nr))?|.*[a-z]I[dD]"
)
FEW = 20  # rows below which whole numbers without gaps may be a coincidence


def quoted(name: str) -> str:
    """A column's name as a setting takes it."""
    return name if re.fullmatch(r"[\w.-]+", name) else "'" + name.replace("'", "\\'") + "'"


def counting_columns(
    frame: pd.DataFrame, columns: Sequence[str], keep: Sequence[str], source: str
) -> tuple[list[str], list[str]]:
    """Columns that count the rows, and notes on them and on those that may.

    A column counts the rows if its whole numbers rise by a fixed step from row to row, if they are all numbers of a
    range in any order, or if they are all different and the column has the name of an index.
    """
    found = []
    notes = []
    for name in columns:
        if name in keep or frame[name].dtype.kind not in "iuf" or len(frame) < 3:
            continue
        values = frame[name].to_numpy()
        named = INDEX_NAME.fullmatch(name) is not None
        if _counts(values, named):
            found.append(name)
            notes.append(
                f"{source}: column {name} counts the rows and is left out; "
                f"dataset.options.keep=[{quoted(name)}] uses it"
            )
        elif named or _rises(values):
            why = "has the name of an index" if named else "rises from row to row and may count the rows"
            notes.append(f"{source}: column {name} {why}; dataset.options.drop=[{quoted(name)}] leaves it out")
    return found, notes


def _counts(values: Array, named: bool) -> bool:
    if not np.isfinite(values).all() or (values.dtype.kind == "f" and (values != values.round()).any()):
        return False
    with np.errstate(all="ignore"):
        steps = np.diff(values.astype(np.float64))
    if steps[0] != 0 and (steps == steps[0]).all():
        return True
    whole_range = len(values) >= FEW and float(values.max()) - float(values.min()) == len(values) - 1
    return (named or whole_range) and len(np.unique(values)) == len(values)


def _rises(values: Array) -> bool:
    with np.errstate(all="ignore"):
        steps = np.diff(values)
    return len(values) >= FEW and bool((steps > 0).all() or (steps < 0).all())


def repeated_labels(frame: pd.DataFrame, columns: Sequence[str], label: str, source: str) -> list[str]:
    """A note for every column that tells the classes one to one."""
    codes, classes = pd.factorize(frame[label])
    notes = []
    for name in columns:
        try:
            if len(classes) < 2 or frame[name].head(1000).nunique() > len(classes):
                continue
            others, values = pd.factorize(frame[name])
        except TypeError:  # lists
            continue
        if len(values) == len(classes) == len(set(zip(codes.tolist(), others.tolist(), strict=True))):
            notes.append(
                f"{source}: column {name} tells the classes of {label} one to one; "
                f"dataset.options.drop=[{quoted(name)}] leaves it out"
            )
    return notes
