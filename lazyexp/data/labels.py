"""From labels of any kind to class numbers: the rules that arrays, folders and tables share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyexp.errors import UserError

LARGEST_LABEL = 99_999


@dataclass
class Targets:
    """Class numbers (n,) int64 from 0; `names` are the labels as they were given, None if those are the numbers."""

    train: Tensor
    test: Tensor
    classes: int
    names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def encode_labels(train: np.ndarray[Any, Any], test: np.ndarray[Any, Any], sources: tuple[str, str]) -> Targets:
    """Class numbers of label arrays: (n,), (n, 1) or one-hot (n, classes).

    Whole numbers from 0 are class numbers. Text, and whole numbers that do not start at 0 or leave out more than
    half of the numbers up to the largest one, become 0, 1, ... in sorted order, with a note. Raises UserError.
    """
    pair = [_one_per_sample(array, source) for array, source in zip((train, test), sources, strict=True)]
    if len(pair[0]) == 0:
        raise UserError(f"{sources[0]} holds no labels")
    text = [array.dtype.kind in "UO" for array in pair]
    if any(text):
        if not all(text) and len(pair[1]):
            raise UserError(f"{sources[0]} and {sources[1]} must both hold numbers or both hold text as labels")
        return encode_values(pair[0].tolist(), pair[1].tolist(), sources)
    distinct = np.unique(pair[0])
    largest = int(distinct[-1])
    notes = []
    if distinct[0] == 0 and 2 * len(distinct) > largest:
        if len(distinct) <= largest:
            missing = sorted(set(range(largest)) - set(distinct.tolist()))
            notes = [f"{sources[0]}: no sample has the label {_listed(missing)}; these classes are never trained"]
        targets = [torch.from_numpy(array) for array in pair]
        return Targets(targets[0], targets[1], max(largest + 1, 2), notes=notes)
    encoded = encode_values(pair[0].tolist(), pair[1].tolist(), sources)
    assert encoded.names is not None
    encoded.notes.append(
        f"{sources[0]}: the labels {_listed(encoded.names)} become the classes 0 to {len(encoded.names) - 1}"
    )
    return encoded


def encode_values(train: list[Any], test: list[Any], sources: tuple[str, str], what: str = "label") -> Targets:
    """Class numbers of labels that can be sorted: 0, 1, ... in the order of the training labels. Raises UserError."""
    values = sorted(set(train))
    numbers = {value: number for number, value in enumerate(values)}
    unknown = set(test) - set(values)
    if unknown:
        raise UserError(
            f"{sources[1]} is mislabelled: {what} {min(unknown)} of the test samples is not in the training samples "
            f"({_listed(values)})"
        )
    parts = [torch.tensor([numbers[value] for value in part], dtype=torch.int64) for part in (train, test)]
    return Targets(parts[0], parts[1], max(len(values), 2), [str(value) for value in values])


def _one_per_sample(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """(n,) int64 or text."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind in "iubf":
        one_hot = array.size and ((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()
        if not one_hot:
            raise UserError(f"{name}: {array.shape} are neither (n,) labels nor one-hot rows; {ORDER}")
        array = array.argmax(1)
    if array.ndim != 1:
        raise UserError(f"{name}: labels must be one number per sample, not of shape {array.shape}; {ORDER}")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "O" and array.size and all(isinstance(label, str) for label in array):
        array = array.astype(str)
    if array.dtype.kind == "U":
        if array.size and (np.char.strip(array) == "").any():
            raise UserError(f"{name}: some labels are empty")
        return array
    if array.dtype.kind not in "iubf":
        raise UserError(f"{name}: labels must be whole numbers or text, not {array.dtype}")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == array.round()).all()):
        raise UserError(f"{name} is mislabelled: labels must be whole numbers, not {_odd(array)}")
    if array.size and (array.min() < 0 or array.max() > LARGEST_LABEL):
        raise UserError(f"{name} is mislabelled: labels run from {array.min()} to {array.max()}, must be from 0")
    return array.astype(np.int64)


ORDER = "the order of arrays is x_train, y_train, x_test, y_test"


def _odd(array: np.ndarray[Any, Any]) -> float:
    return float(array[~np.isfinite(array) | (array != array.round())][0])


def _listed(values: list[Any], most: int = 10) -> str:
    shown = ", ".join(map(str, values[:most]))
    return shown if len(values) <= most else f"{shown}, ... {values[-1]}"
