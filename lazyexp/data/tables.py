"""Tables of numbers, or of image files, with a column of classes: .csv, .tsv (also .gz) and .parquet."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.data.arrays import Array, make_raw
from lazyexp.data.columns import counting_columns, quoted, repeated_labels
from lazyexp.data.custom import stack_samples
from lazyexp.data.images import decode
from lazyexp.data.labels import Targets, encode_values
from lazyexp.data.raw import Raw
from lazyexp.data.read_table import KINDS, Table, read_table, stem
from lazyexp.data.splits import find_parts
from lazyexp.errors import UserError

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Options:
    """The options of tables: the column with the classes, columns to leave out, and columns to use in any case."""

    label: str = "label"
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    @classmethod
    def checked(cls, label: Any, drop: Any = None, keep: Any = None) -> Options:
        """The options, or a UserError that names the one of the wrong type."""
        if isinstance(label, bool) or not isinstance(label, (str, int, float)):
            raise UserError(f"dataset.options.label={label}: must be the name of one column")
        return cls(str(label), _names("drop", drop), _names("keep", keep))


def _names(key: str, given: Any) -> tuple[str, ...]:
    values = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    if not all(isinstance(value, (str, int, float)) for value in values):
        raise UserError(f"dataset.options.{key}={given}: must be names of columns")
    return tuple(map(str, values))


def find(path: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of the table at `path`: under `all`, or in a folder under train and test; and notes.

    Parts of the Hugging Face hub (train-00000-of-00002.parquet, ...) belong together. Raises UserError.
    """
    if path.is_file():
        return ({"all": [path]} if path.name.lower().endswith(KINDS) else {}), []
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    shards: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        if file.name.lower().endswith(KINDS):
            shards.setdefault(stem(file), []).append(file)
    entries = [(name, group[0]) for (name, _), group in shards.items()]
    found, notes = find_parts(entries, path)
    return {part: shards[stem(file)] for part, file in found.items()}, notes


def load(files: dict[str, list[Path]], options: Options, size: tuple[int, int] | None = None) -> Raw:
    """Rows as samples (columns,) float32; columns have mean 0 and variance 1 over the training rows.

    The classes are the sorted values of the column `options.label` in the training rows. A single table has a fixed
    split: a fifth of every class is the test set. Columns that count the rows are left out, with a note. A column of
    image files makes images of the rows. Raises UserError.
    """
    tables = {part: read_table(paths, options.label) for part, paths in files.items()}
    notes = [note for table in tables.values() for note in table.notes]
    names = [str(paths[0]) for paths in files.values()]
    first = next(iter(tables.values()))
    frames = [table.frame for table in tables.values()]
    columns = _columns(frames, names, options, first)
    images = [name for name in columns if _holds_images(first.frame[name])]
    if images:
        if len(columns) > 1:
            notes.append(f"{names[0]}: only the images of the column {images[0]} are read, of {len(columns)} columns")
        columns = images[:1]
    elif size is not None:
        raise UserError(f"dataset.options.size={size}: must be left out, {names[0]} holds no images")
    else:
        notes += repeated_labels(first.frame, columns, options.label, names[0])
        counting, more = counting_columns(first.frame, columns, options.keep, names[0])
        columns = [name for name in columns if name not in counting]
        notes += more
        if not columns:
            raise UserError(
                f"{names[0]}: no column is left besides {options.label}; {counting[0]} counts the rows, "
                f"dataset.options.keep=[{quoted(counting[0])}] uses it"
            )
    if len(frames) == 1:
        frames, names = _split(frames[0], options.label, names[0]), names * 2
    targets = encode_values(
        frames[0][options.label].tolist(), frames[1][options.label].tolist(), (names[0], names[1]), options.label
    )
    targets.notes += notes
    _name_classes(targets, first)
    if images:
        samples = [_decoded(frame[columns[0]], name, size) for frame, name in zip(frames, names, strict=True)]
        arrays = stack_samples(samples, names, "; dataset.options.size=N resizes them to N x N")
    else:
        arrays = _standardised([_numbers(frame[columns], name) for frame, name in zip(frames, names, strict=True)])
    labels = [targets.train.numpy(), targets.test.numpy()]
    return make_raw([arrays[0], labels[0], arrays[1], labels[1]], [names[0], names[0], names[1], names[1]], targets)


def _columns(frames: list[pd.DataFrame], names: list[str], options: Options, first: Table) -> list[str]:
    """The columns of samples, equal in all files. Raises UserError."""
    for frame, name in zip(frames[1:], names[1:], strict=True):
        odd = set(frames[0].columns) ^ set(frame.columns)
        if odd - set(options.drop):
            raise UserError(f"{names[0]} and {name} differ in their columns: {min(map(str, odd))}")
    for key in ("drop", "keep"):
        unknown = [name for name in getattr(options, key) if not any(name in frame.columns for frame in frames)]
        if unknown:
            raise UserError(f"dataset.options.{key}={unknown[0]}: {names[0]} has no such column")
    if options.label in options.drop:
        raise UserError(f"dataset.options.drop={options.label}: is the column of the classes")
    columns = [name for name in frames[0].columns if name != options.label and name not in options.drop]
    if not columns:
        raise UserError(f"{names[0]}: there is no column besides {options.label}")
    return columns


def _split(frame: pd.DataFrame, label: str, name: str) -> list[pd.DataFrame]:
    from sklearn.model_selection import train_test_split

    try:
        parts: list[pd.DataFrame] = train_test_split(
            frame, test_size=TEST_SHARE, stratify=frame[label].astype(str), random_state=0
        )
        return parts
    except ValueError as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"{name}: cannot be split into training and test rows ({reason})") from None


def _name_classes(targets: Targets, table: Table) -> None:
    """Names of whole numbers that a file of the Hugging Face hub gives."""
    numbers = targets.names or []
    if table.class_names and all(name.isdecimal() and int(name) < len(table.class_names) for name in numbers):
        targets.names = [table.class_names[int(name)] for name in numbers]


def _numbers(frame: pd.DataFrame, name: str) -> Array:
    for column in frame.columns:
        if not pd.api.types.is_numeric_dtype(frame[column].dtype) or frame[column].dtype.kind not in "iufb":
            raise UserError(
                f"{name}: column {column} does not hold numbers ({_sample(frame[column])}); encode it, or leave "
                f"it out by dataset.options.drop=[{quoted(column)}]"
            )
        if frame[column].isna().any():
            raise UserError(f"{name}: column {column} has empty or infinite entries")
    values: Array = frame.to_numpy(np.float64)
    if not np.isfinite(values).all():
        column = frame.columns[int(np.argwhere(~np.isfinite(values))[0, 1])]
        raise UserError(f"{name}: column {column} has empty or infinite entries")
    return values


def _sample(column: pd.Series[Any]) -> str:
    odd = [value for value in column.head(100_000) if not isinstance(value, (int, float, np.number))]
    return repr(odd[0] if odd else column.dtype)[:40]


def _standardised(parts: list[Array]) -> list[Array]:
    """Columns with mean 0 and variance 1 over the first part; constant columns become 0. Raises UserError."""
    with np.errstate(all="ignore"):
        mean, std = parts[0].mean(0), parts[0].std(0)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise UserError("a column of the table holds numbers too large for double precision; scale it")
    std[std <= 1e-12 * np.abs(mean)] = 1.0  # constant but for rounding
    with np.errstate(all="ignore"):  # infinite values are refused later
        return [((part - mean) / std).astype(np.float32) for part in parts]


def _holds_images(column: pd.Series[Any]) -> bool:
    first = next((value for value in column if value is not None), None)
    return isinstance(first, (bytes, bytearray)) or (isinstance(first, dict) and "bytes" in first)


def _decoded(column: pd.Series[Any], name: str, size: tuple[int, int] | None) -> list[Array]:
    samples = []
    for row, value in enumerate(column):
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, (bytes, bytearray)):
            raise UserError(f"{name}: row {row} of the column {column.name} holds no image")
        samples.append(decode(BytesIO(content), f"{name}, row {row}", size))
    return samples
