"""Tables of numbers with a column of classes, as .csv or .parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lazyexp.data.raw import Raw
from lazyexp.errors import UserError

KINDS = (".csv", ".parquet")
TEST_SHARE = 0.2


def find(path: Path) -> list[Path]:
    """The table at `path`, or the pair train and test in a folder, or nothing."""
    if path.is_file():
        return [path] if path.suffix.lower() in KINDS else []
    for kind in KINDS:
        pair = [path / f"train{kind}", path / f"test{kind}"]
        if all(file.is_file() for file in pair):
            return pair
    return []


def load(files: list[Path], label: str) -> Raw:
    """Rows as samples (columns,) float32; columns have mean 0 and variance 1 over the training rows.

    The classes are the sorted values of the column `label` in the training rows. A single table is split once and
    for all: a fifth of every class is the test set. Raises UserError.
    """
    frames = [_read(file, label) for file in files]
    if len(frames) == 1:
        frames = _split(frames[0], label, files[0])
    train, test = frames
    names, where = [str(file) for file in (files * 2)[:2]], "test rows"
    if set(train.columns) != set(test.columns):
        odd = min(map(str, set(train.columns) ^ set(test.columns)))
        raise UserError(f"{names[0]} and {names[1]} differ in their columns: {odd}")
    columns = [column for column in train.columns if column != label]
    if not columns:
        raise UserError(f"{names[0]}: there is no column besides {label}")
    values = [_numbers(frame[columns], name) for frame, name in zip(frames, names, strict=True)]
    classes = sorted(train[label].unique().tolist())
    unknown = set(test[label].unique().tolist()) - set(classes)
    if unknown:
        raise UserError(
            f"{names[1]}: {label} {min(map(str, unknown))} is in the {where} but not in the training rows"
        )
    places = {name: place for place, name in enumerate(classes)}
    targets = [torch.from_numpy(frame[label].map(places).to_numpy(np.int64, copy=True)) for frame in frames]
    mean, std = values[0].mean(0), values[0].std(0)
    std[std == 0] = 1.0
    x_train, x_test = (torch.from_numpy(((part - mean) / std).astype(np.float32)) for part in values)
    parts = ("train_images", "train_targets", "test_images", "test_targets")
    sources = dict(zip(parts, (names[0], names[0], names[1], names[1]), strict=True))
    return Raw(x_train, targets[0], x_test, targets[1], max(len(classes), 2), sources, white=1.0)


def _read(file: Path, label: str) -> Any:
    import pandas

    try:
        frame = pandas.read_csv(file) if file.suffix.lower() == ".csv" else pandas.read_parquet(file)
    except ImportError:
        raise UserError(f"{file}: reading it needs pyarrow; pip install pyarrow, or save it as .csv") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a readable table: {' '.join(str(error).split())[:150]}") from None
    if label not in frame.columns:
        raise UserError(f"{file}: no column {label}; dataset.options.label=NAME says which one holds the classes")
    if frame[label].isna().any():
        raise UserError(f"{file}: {int(frame[label].isna().sum())} rows have no {label}")
    return frame


def _split(frame: Any, label: str, file: Path) -> list[Any]:
    from sklearn.model_selection import train_test_split

    try:
        return train_test_split(frame, test_size=TEST_SHARE, stratify=frame[label], random_state=0)
    except ValueError as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"{file}: cannot be split into training and test rows ({reason})") from None


def _numbers(frame: Any, name: str) -> np.ndarray:
    for column in frame.columns:
        if frame[column].dtype.kind not in "iufb":
            raise UserError(f"{name}: column {column} does not hold numbers")
    values = frame.to_numpy(np.float64)
    if not np.isfinite(values).all():
        column = frame.columns[int(np.argwhere(~np.isfinite(values))[0, 1])]
        raise UserError(f"{name}: column {column} has empty or infinite entries")
    return values
