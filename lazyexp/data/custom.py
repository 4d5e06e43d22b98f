"""Data that a class or function of the user's makes: arrays or tensors, or a pair of map-style data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyexp.config.imports import attribute_errors, resolve
from lazyexp.data.raw import Raw
from lazyexp.errors import UserError
from lazyexp.utils.memory import require
from lazyexp.utils.terminal import NO_BAR, tqdm

PARTS = ("train_images", "train_targets", "test_images", "test_targets")
WANTED = "(x_train, y_train, x_test, y_test), ((x_train, y_train), (x_test, y_test)), or two map-style data sets"


def load_custom(path: str, options: dict[str, Any]) -> Raw:
    """What the callable at an import path returns, called with `options`. Raises UserError.

    (n, height, width), (n, channels, height, width) and (n, height, width, 3 or 1) are images: whole numbers from 0
    to 255, or floats. Samples of any other shape are floats, or whole numbers, which reach the network unscaled, as
    int64. The training labels tell how many classes there are.
    """
    what = f"dataset._target_={path}"
    make = resolve(path, "dataset._target_")
    with attribute_errors(f"{what}, called with {options}"):
        found = make(**options)
    names = [f"{what}: {part}" for part in PARTS]
    if isinstance(found, (tuple, list)) and len(found) == 2 and all(_map_style(part) for part in found):
        return from_pair(found, [f"{what}: {part}" for part in ("train", "test")])
    if isinstance(found, (tuple, list)) and len(found) == 2:
        if not all(isinstance(part, (tuple, list)) and len(part) == 2 for part in found):
            raise UserError(f"{what}: must return {WANTED}")
        found = (*found[0], *found[1])
    if not isinstance(found, (tuple, list)) or len(found) != 4:
        raise UserError(f"{what}: must return {WANTED}, not a {type(found).__name__}")
    return from_arrays([_array(part, name) for part, name in zip(found, names, strict=True)], names)


def _map_style(part: Any) -> bool:
    plain = (tuple, list, dict, np.ndarray, Tensor)
    return not isinstance(part, plain) and hasattr(part, "__getitem__") and hasattr(part, "__len__")


def _array(values: Any, name: str) -> np.ndarray:
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    with attribute_errors(name):
        return np.asarray(values)


def from_pair(pair: Sequence[Any], names: list[str]) -> Raw:
    """Two map-style data sets, read once into memory: every item is an image or array, and its label."""
    arrays, labels = [], []
    for dataset, name in zip(pair, names, strict=True):
        samples, targets = [], []
        for place in tqdm(range(len(dataset)), desc=f"reading {name}", unit=" samples", leave=False, disable=NO_BAR):
            with attribute_errors(f"{name}, item {place}"):
                item, target = dataset[place]
                samples.append(_array(item, name))
                targets.append(int(target))
            if place == 0:
                require(2 * len(dataset) * samples[0].nbytes, name, "take fewer samples")
        samples = _coloured(samples)
        shapes = {sample.shape for sample in samples}
        if len(shapes) > 1:
            raise UserError(f"{name}: samples differ in size: {' and '.join(map(str, sorted(shapes)[:2]))}")
        arrays.append(np.stack(samples) if samples else np.empty((0, 1, 1), np.uint8))
        labels.append(np.array(targets, dtype=np.int64))
    ndims = {array.ndim for array in arrays}
    if ndims == {3, 4}:  # one part is grey throughout
        arrays = [np.stack([array] * 3, -1) if array.ndim == 3 else array for array in arrays]
    parts = [arrays[0], labels[0], arrays[1], labels[1]]
    return from_arrays(parts, [names[0], names[0], names[1], names[1]])


def _coloured(samples: list[np.ndarray]) -> list[np.ndarray]:
    """Grey images among coloured ones, with colours."""
    if {sample.ndim for sample in samples} != {2, 3}:
        return samples
    return [np.stack([sample] * 3, -1) if sample.ndim == 2 else sample for sample in samples]


def from_arrays(arrays: list[np.ndarray], names: list[str]) -> Raw:
    """The four `PARTS`, brought into the layout of `Raw`."""
    x_train, y_train, x_test, y_test = arrays
    inputs = [_inputs(x_train, names[0]), _inputs(x_test, names[2])]
    targets = [_targets(y_train, names[1]), _targets(y_test, names[3])]
    if inputs[0].dtype != inputs[1].dtype:
        raise UserError(f"{names[0]} and {names[2]} must both hold integers or both hold floats")
    if len(targets[0]) == 0:
        raise UserError(f"{names[1]} holds no labels")
    white = 255.0 if inputs[0].dtype == torch.uint8 else 1.0
    classes = max(int(targets[0].max()) + 1, 2)
    sources = dict(zip(PARTS, names, strict=True))
    return Raw(inputs[0], targets[0], inputs[1], targets[1], classes, sources, white=white)


def _inputs(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "iubf":
        raise UserError(f"{name}: samples must be numbers, not {array.dtype}")
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise UserError(f"{name}: shape {array.shape} is not (n, ...) with something in every sample")
    if array.ndim in (3, 4):
        if array.ndim == 3:
            array = array[:, None]
        elif array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
            array = array.transpose(0, 3, 1, 2)
        if array.dtype.kind != "f" and array.size and (array.min() < 0 or array.max() > 255):
            raise UserError(f"{name}: integer pixels must be from 0 to 255; tokens are (n, length)")
        kind: type[np.generic] = np.float32 if array.dtype.kind == "f" else np.uint8
    else:
        kind = np.float32 if array.dtype.kind == "f" else np.int64
    return torch.from_numpy(np.array(array, dtype=kind, order="C"))


def _targets(array: np.ndarray, name: str) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise UserError(f"{name}: labels must be (n,) whole numbers, not {array.shape} {array.dtype}")
    if array.size and (array.min() < 0 or array.max() > 99999):
        raise UserError(f"{name}: labels run from {array.min()} to {array.max()}, must be from 0")
    return torch.from_numpy(array.astype(np.int64))
