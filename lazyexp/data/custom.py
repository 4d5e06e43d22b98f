"""Data of a custom class or function: arrays or tensors, or a pair of map-style data sets."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lazyexp.config.imports import attribute_errors, resolve
from lazyexp.data.arrays import PARTS, Array, as_array, make_raw
from lazyexp.data.images import unify
from lazyexp.data.raw import Raw
from lazyexp.errors import UserError
from lazyexp.utils.global_seed import fixed_global_seed
from lazyexp.utils.memory import require
from lazyexp.utils.terminal import NO_BAR, tqdm

WANTED = "(x_train, y_train, x_test, y_test), ((x_train, y_train), (x_test, y_test)), or two map-style data sets"
REPEATED = 8  # samples of a map-style data set that are read again, to notice random ones


def load_custom(path: str, options: dict[str, Any]) -> Raw:
    """The data that the callable at an import path returns, called with `options`.

    The global random generators of Python, NumPy and PyTorch have a fixed seed meanwhile, so that two runs get the
    same data. Raises UserError.
    """
    what = f"dataset._target_={path}"
    make = resolve(path, "dataset._target_")
    with fixed_global_seed(0):
        with attribute_errors(f"{what}, called with {options}"):
            found = make(**copy.deepcopy(options))
        return _convert(found, what)


def _convert(found: Any, what: str) -> Raw:
    if isinstance(found, (tuple, list)) and len(found) == 2 and all(_map_style(part) for part in found):
        return from_pair(found, [f"{what}: {part}" for part in ("train", "test")])
    if isinstance(found, (tuple, list)) and len(found) == 2:
        if not all(isinstance(part, (tuple, list)) and len(part) == 2 for part in found):
            kinds = " and ".join(type(part).__name__ for part in found)
            raise UserError(f"{what}: must return {WANTED}, not a pair of {kinds}")
        found = (*found[0], *found[1])
    if not isinstance(found, (tuple, list)) or len(found) != 4:
        raise UserError(f"{what}: must return {WANTED}, not a {type(found).__name__}")
    names = [f"{what}: {part}" for part in PARTS]
    return make_raw([_array(part, name) for part, name in zip(found, names, strict=True)], names)


def _map_style(part: Any) -> bool:
    plain = (tuple, list, dict, np.ndarray, Tensor)
    return not isinstance(part, plain) and hasattr(part, "__getitem__") and hasattr(part, "__len__")


def _array(values: Any, name: str) -> Array:
    if isinstance(values, np.memmap):
        return values  # stays on disk
    with attribute_errors(name):
        return as_array(values, name)


def from_pair(pair: Sequence[Any], names: list[str]) -> Raw:
    """Two map-style data sets, read once into memory: every item is an image or array, and its label."""
    read = [_items(dataset, name) for dataset, name in zip(pair, names, strict=True)]
    for dataset, name, (samples, labels) in zip(pair, names, read, strict=True):
        _check_repeatable(dataset, name, samples, labels)
    train, test = stack_samples([samples for samples, _ in read], names)
    labels = [_stacked(labels, name) for (_, labels), name in zip(read, names, strict=True)]
    return make_raw([train, labels[0], test, labels[1]], [names[0], names[0], names[1], names[1]])


def stack_samples(parts: Sequence[Sequence[Array]], names: Sequence[str], advice: str = "") -> list[Array]:
    """The samples of the training and the test set as two arrays of one type. Raises UserError."""
    together = unify([sample for part in parts for sample in part], names[0])
    split = [together[: len(parts[0])], together[len(parts[0]) :]]
    arrays = []
    for samples, name in zip(split, names, strict=True):
        shapes = sorted({sample.shape for sample in samples})
        if len(shapes) > 1:
            raise UserError(f"{name}: samples differ in size: {shapes[0]} and {shapes[1]}{advice}")
        arrays.append(np.stack(samples) if samples else np.empty((0, 1, 1), np.uint8))
    return arrays


def _items(dataset: Any, name: str) -> tuple[list[Array], list[Array]]:
    with attribute_errors(f"{name}, its length"):
        length = len(dataset)
    samples: list[Array] = []
    labels: list[Array] = []
    for index in tqdm(range(length), desc=f"reading {name}", unit=" samples", leave=False, disable=NO_BAR):
        sample, label = _item(dataset, index, name)
        samples.append(sample)
        labels.append(label)
        if index == 0:
            require(2 * length * sample.nbytes, name, "take fewer samples")
    return samples, labels


def _item(dataset: Any, index: int, name: str) -> tuple[Array, Array]:
    with attribute_errors(f"{name}, item {index}"):
        item = dataset[index]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise UserError(f"{name}, item {index}: must be (sample, label), not a {type(item).__name__}")
        return as_array(item[0], name), as_array(item[1], name)


def _check_repeatable(dataset: Any, name: str, samples: list[Array], labels: list[Array]) -> None:
    """Refuse random samples: they are read once, so their draws would be fixed, and differ in every run."""
    for index in np.unique(np.linspace(0, len(samples) - 1, min(REPEATED, len(samples)), dtype=int)).tolist():
        for _ in range(2):
            again = _item(dataset, index, name)
            for first, second in zip((samples[index], labels[index]), again, strict=True):
                if first.shape != second.shape or not _equal(first, second):
                    raise UserError(
                        f"{name}: item {index} differs when it is read again. Samples are read once, before "
                        "training: return them without random changes and set dataset.augment"
                    )


def _equal(first: Array, second: Array) -> bool:
    return bool(np.array_equal(first, second, equal_nan=first.dtype.kind == "f" and second.dtype.kind == "f"))


def _stacked(labels: list[Array], name: str) -> Array:
    if len({label.shape for label in labels}) > 1:
        raise UserError(f"{name}: labels differ in shape")
    return np.stack(labels) if labels else np.empty(0, np.int64)
