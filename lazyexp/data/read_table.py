"""Table files to data frames, through pandas: separators, comments, decimal commas, labels as they are spelled."""

from __future__ import annotations

import csv
import gzip
import json
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lazyexp.data.table_labels import EMPTY, sortable_labels
from lazyexp.errors import UserError

TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
KINDS = (*TEXT, ".parquet")
SEPARATORS = (",", ";", "\t", "|")
DECIMAL_COMMA = r"\s*[-+]?(\d+(,\d*)?|,\d+)([eE][-+]?\d+)?\s*"


@dataclass
class Table:
    """A data frame, notes on how it was read, and names of the classes if the file gives them."""

    frame: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    class_names: list[str] | None = None


def stem(file: Path) -> tuple[str, str]:
    """A file's name without its kind and without a shard's number, and its kind."""
    name = file.name.lower()
    kind = next(kind for kind in sorted(KINDS, key=len, reverse=True) if name.endswith(kind))
    return re.sub(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$", "", name.removesuffix(kind)), kind


def read_table(files: list[Path], label: str) -> Table:
    """The rows of all files, with whole numbers, floats or text in the column `label`. Raises UserError."""
    tables = []
    for file in files:
        try:
            tables.append(_read_parquet(file) if file.name.lower().endswith(".parquet") else _read_text(file, label))
        except ImportError:
            raise UserError(f"{file}: reading it needs pyarrow; pip install pyarrow, or save it as .csv") from None
        except UserError:
            raise
        except Exception as error:  # pandas and pyarrow meet damaged files with many types of exceptions
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise UserError(f"{file} is not a readable table: {reason}") from None
        _check_names(tables[-1].frame, label, file)
    columns = [set(table.frame.columns) for table in tables]
    for file, found in zip(files[1:], columns[1:], strict=True):
        if found != columns[0]:
            raise UserError(f"{files[0]} and {file} differ in their columns: {min(found ^ columns[0])}")
    whole = tables[0]
    if len(tables) > 1:
        whole = Table(pd.concat([table.frame for table in tables], ignore_index=True), [], tables[0].class_names)
        whole.notes = [note for table in tables for note in table.notes]
    whole.frame[label] = sortable_labels(whole.frame[label], label, str(files[0]), whole.notes)
    return whole


def _check_names(frame: pd.DataFrame, label: str, file: Path) -> None:
    doubled = [name for name, count in Counter(frame.columns).items() if count > 1]
    if doubled:
        raise UserError(f"{file}: {doubled[0] or 'an empty name'} is the name of more than one column")
    if label not in frame.columns:
        shown = ", ".join(frame.columns[:10]) + (", ..." if len(frame.columns) > 10 else "")
        raise UserError(
            f"{file}: no column {label} (it has {shown}); dataset.options.label=NAME names the column of the classes"
        )


def _read_parquet(file: Path) -> Table:
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(file)
    doubled = [name for name, count in Counter(schema.names).items() if count > 1]
    if doubled:
        raise UserError(f"{file}: {doubled[0]} is the name of more than one column")
    frame = pd.read_parquet(file)
    frame.columns = pd.Index([str(name) for name in frame.columns])
    return Table(frame.reset_index(drop=True), class_names=_hub_names(schema.metadata or {}))


def _hub_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    """The class names in a file of the Hugging Face hub."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        named = [feature["names"] for feature in features.values() if feature.get("_type") == "ClassLabel"]
        return [str(name) for name in named[0]] if len(named) == 1 else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _read_text(file: Path, label: str) -> Table:
    separator, names, skipped = _header(file, label)
    if len(names) > 1 and not names[-1]:  # a separator at the end of every row
        names = [*names[:-1], "\0"]
    if not names[0] and "Unnamed: 0" not in names:  # the index that pandas' to_csv writes
        names = ["Unnamed: 0", *names[1:]]
    if len(set(names)) < len(names):
        doubled = next(name for name, count in Counter(names).items() if count > 1)
        raise UserError(f"{file}: {doubled or 'an empty name'} is the name of more than one column")
    if label not in names:
        _check_names(pd.DataFrame(columns=names), label, file)
    frame = _parsed(file, separator, names, skipped, label, ".")
    notes = []
    text = [name for name in names if name not in (label, "\0") and not pd.api.types.is_numeric_dtype(frame[name])]
    if separator != "," and any(frame[name].dropna().astype(str).str.fullmatch(DECIMAL_COMMA).all() for name in text):
        frame = _parsed(file, separator, names, skipped, label, ",")
        notes.append(f"{file}: commas are read as decimal commas")
    if "\0" in names:
        if frame["\0"].notna().any():
            raise UserError(f"{file}: column {len(names)} has no name")
        frame = frame.drop(columns="\0")
    for position, name in enumerate(frame.columns[1:], 2):
        if not name:
            raise UserError(f"{file}: column {position} has no name")
    return Table(frame, notes)


def _parsed(file: Path, separator: str, names: list[str], skipped: int, label: str, decimal: str) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that are longer than the header
        try:
            frame: pd.DataFrame = pd.read_csv(
                file,
                sep=separator,
                header=None,
                names=names,
                skiprows=skipped,
                index_col=False,
                decimal=decimal,
                dtype={label: str},
                keep_default_na=False,
                na_values={name: EMPTY for name in names if name != label},
                skipinitialspace=True,
                low_memory=False,
                encoding="utf-8-sig",
            )
        except pd.errors.ParserWarning:
            raise UserError(f"{file}: some rows have more fields than the header, which has {len(names)}") from None
    return frame


def _header(file: Path, label: str) -> tuple[str, list[str], int]:
    """The separator, the names of the columns, and the number of lines up to the header.

    Lines that start with # before the header are comments; the last of them is the header if it alone has `label`.
    """
    comment: str | None = None
    packed = file.name.lower().endswith(".gz")
    with gzip.open(file, "rt", encoding="utf-8-sig") if packed else file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines):
            if line.startswith("#") and label not in _fields(line, label)[1]:
                comment = line
            elif line.strip() and not line.lower().startswith("sep="):
                separator, names = _fields(line, label)
                if label not in names and comment is not None:
                    other, commented = _fields(comment.lstrip("# "), label)
                    if label in commented:
                        return other, commented, number
                return separator, names, number + 1
    raise UserError(f"{file} is an empty table")


def _fields(line: str, label: str) -> tuple[str, list[str]]:
    """The separator that shows `label` in a line, else the one with most fields, and the fields."""
    found = {}
    for separator in SEPARATORS:
        row = next(csv.reader([line.rstrip("\r\n")], delimiter=separator, skipinitialspace=True), [])
        found[separator] = [name.strip() for name in row]
    best = max(found, key=lambda separator: (label in found[separator], len(found[separator])))
    return best, found[best]
