"""From arrays to checked samples: the rules that .npz and IDX files, image folders and custom data share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazyexp.data.labels import Targets, encode_labels
from lazyexp.data.raw import Raw
from lazyexp.errors import UserError

PARTS = ("train_images", "train_targets", "test_images", "test_targets")
Array = np.ndarray[Any, Any]


def make_raw(arrays: Sequence[Array], names: Sequence[str], targets: Targets | None = None) -> Raw:
    """The data set of four arrays in the order of `PARTS`, whose `names` are used in errors.

    (n, height, width), (n, channels, height, width) and (n, height, width, channels) are images: whole numbers from 0
    to 255, or floats. Samples of another shape are floats, or tokens if they are whole numbers. `targets` replaces
    the two label arrays. Raises UserError.
    """
    x_train, y_train, x_test, y_test = arrays
    notes: list[str] = []
    targets = targets or encode_labels(y_train, y_test, (names[1], names[3]))
    train, test = _samples(x_train, names[0], notes), _samples(x_test, names[2], [])
    if train.dtype != test.dtype:
        raise UserError(f"{names[0]} and {names[2]} must both hold integers or both hold floats")
    sources = dict(zip(PARTS, names, strict=True))
    raw = Raw(train, targets.train, test, targets.test, targets.classes, sources)
    raw.white, raw.class_names, raw.notes = white(train), targets.names, notes + targets.notes
    raw.on_disk = all(_on_disk(*pair) for pair in ((x_train, train), (x_test, test)))
    return raw


def _on_disk(array: Array, samples: Tensor) -> bool:
    """Whether `samples` are a view of a memory-mapped array."""
    return isinstance(array, np.memmap) and array.dtype == samples.numpy().dtype


def white(images: Tensor) -> float:
    """The value of a white pixel, as far as the largest one of the training images shows it: 1 or 255."""
    if images.dim() != 4 or not images.numel():
        return 1.0
    low, high = float(images.min()), float(images.max())
    if images.dtype == torch.uint8:
        return 1.0 if high <= 1 else 255.0
    return 255.0 if low >= 0 and 2 <= high <= 255 else 1.0


def as_array(values: Any, name: str) -> Array:
    """A copy of array-like values, tensors and Pillow images as a NumPy array. Raises UserError.

    A copy, because custom data sets may return the same buffer for every sample.
    """
    if isinstance(values, Tensor):
        return _from_tensor(values, name)
    if type(values).__module__.startswith("PIL."):
        from lazyexp.data.images import to_array

        return to_array(values, name)
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.getmaskarray(values).any():
            raise UserError(f"{name}: some entries are masked; fill them in")
        values = values.data
    return np.array(values)


def _from_tensor(values: Tensor, name: str) -> Array:
    if values.is_nested:
        raise UserError(f"{name}: a nested tensor; pad the samples to one size")
    if values.device.type == "meta":
        raise UserError(f"{name}: a meta tensor has no values")
    if values.layout != torch.strided:
        values = values.to_dense()
    if values.is_quantized:
        values = values.dequantize()
    if values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64):
        values = values.float()  # NumPy has no bfloat16
    return np.array(values.detach().resolve_conj().resolve_neg().cpu().numpy())


def _samples(array: Array, name: str, notes: list[str]) -> Tensor:
    if array.dtype.kind not in "iubf":
        raise UserError(f"{name}: samples must be numbers, not {array.dtype}")
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise UserError(f"{name}: shape {array.shape} must be (n, ...) with at least one number per sample")
    whole = array.dtype.kind != "f"
    if array.ndim in (3, 4):
        array = array[:, None] if array.ndim == 3 else _channels_first(array, name, notes)
        if whole and array.dtype != np.uint8 and array.size and (array.min() < 0 or array.max() > 255):
            raise UserError(
                f"{name}: integer pixels must be from 0 to 255, not {array.min()} to {array.max()}; divide and give "
                "floats, or give tokens as (n, length)"
            )
        dtype: type[np.generic] = np.uint8 if whole else np.float32
    else:
        dtype = np.int64 if whole else np.float32
    with np.errstate(over="ignore"):  # infinite values are refused later
        if isinstance(array, np.memmap) and array.dtype == dtype:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # it may be read-only, and is never written to
                return torch.from_numpy(array)  # stays on disk, with its layout
        return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))


def _channels_first(array: Array, name: str, notes: list[str]) -> Array:
    """(n, channels, height, width) of images in either layout; a note where the shape does not tell which."""
    _, first, middle, last = array.shape
    clear = True
    if first in (1, 3):
        in_front, clear = True, last > 4
    elif last in (1, 3):
        in_front = False
    elif (first <= 4) != (last <= 4):
        in_front = first <= 4
        clear = middle > 4
    elif first == middle != last:
        in_front = clear = False
    else:
        in_front, clear = True, middle == last != first
    if not in_front:
        array = array.transpose(0, 3, 1, 2)
    if not clear:
        channels, height, width = array.shape[1:]
        notes.append(f"{name}: samples {first, middle, last} are read as {channels} channels of {height} x {width}")
    return array
