"""Image files to arrays without loss: orientation, transparency and more than 8 bits are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from lazyexp.data.arrays import Array
from lazyexp.errors import UserError

DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # modes of Pillow with more than 8 bits


def decode(file: str | Path | BinaryIO, name: str, size: tuple[int, int] | None = None) -> Array:
    """The image in a file, upright, as `to_array`. `name` is used in errors. Raises UserError."""
    try:
        with Image.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # the further frames of an MPO are previews
                raise UserError(f"{name} holds {frames} frames; save one image per file")
            return to_array(ImageOps.exif_transpose(image), name, size)
    except UserError:
        raise
    except Exception as error:  # Pillow meets damaged files with many types of exceptions
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(f"{name} is not a readable image: {reason}") from None


def to_array(image: Image.Image, name: str, size: tuple[int, int] | None = None) -> Array:
    """(height, width), (height, width, 3), or with transparency (height, width, 4), uint8.

    Grey images of 16 bits become float32 from 0 to 1, floating-point images keep their values. `size` (height, width)
    resizes by bilinear interpolation. Raises UserError.
    """
    if image.mode in DEEP:
        values = np.asarray(image).astype(np.float32)
        if image.mode != "F":
            if values.min() < 0 or values.max() > 65535:
                raise UserError(f"{name}: pixels from {values.min():g} to {values.max():g}; save it with 16 bits")
            values /= 65535
        return np.array(_resized(Image.fromarray(values), size))
    if {"A", "a"} & set(image.getbands()) or "transparency" in image.info:
        clear = image.convert("RGBA")
        if clear.getchannel("A").getextrema() != (255, 255):
            return np.array(_resized(clear, size))
    return np.array(_resized(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), size))


def _resized(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    return image if size is None else image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def unify(samples: Sequence[Array], name: str) -> list[Array]:
    """Images of one type and number of channels: 8-bit images beside 16-bit ones become floats from 0 to 1, grey
    images beside coloured ones get three channels, opaque ones beside transparent ones a fourth. Raises UserError.
    """
    samples = list(samples)
    kinds = {"f" if sample.dtype.kind == "f" else "i" for sample in samples}
    if kinds == {"f", "i"}:
        floats = [sample for sample in samples if sample.dtype.kind == "f"]
        integers = [sample for sample in samples if sample.dtype.kind != "f"]
        if any(sample.size and sample.max() > 1 for sample in floats) or any(i.dtype != np.uint8 for i in integers):
            raise UserError(f"{name}: some samples are integers, others floats beyond 1; give one type")
        samples = [
            sample if sample.dtype.kind == "f" else (sample / np.float32(255)).astype(np.float32)
            for sample in samples
        ]
    depths = {sample.shape[2] if sample.ndim == 3 else 1 for sample in samples if sample.ndim in (2, 3)}
    mixed = len(depths) > 1 and depths <= {1, 3, 4} and all(sample.ndim in (2, 3) for sample in samples)
    return [_with_channels(sample, max(depths)) for sample in samples] if mixed else samples


def _with_channels(sample: Array, channels: int) -> Array:
    """A grey, coloured or transparent image with 3 or 4 channels."""
    if sample.ndim == 2:
        sample = np.stack([sample] * 3, -1)
    elif sample.shape[2] == 1:
        sample = np.repeat(sample, 3, 2)
    if sample.shape[2] == 3 and channels == 4:
        opaque = np.full((*sample.shape[:2], 1), 1 if sample.dtype.kind == "f" else 255, sample.dtype)
        sample = np.concatenate([sample, opaque], 2)
    return sample
