"""Large arrays in pieces, so that no step needs memory for a second copy."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE = 2**20  # numbers


def rows_at_once(sample: Tensor | tuple[int, ...], numbers: int = PIECE) -> int:
    """How many samples of this shape hold about so many numbers; at least 1."""
    shape = tuple(sample.shape) if isinstance(sample, Tensor) else sample
    return max(numbers // max(torch.Size(shape).numel(), 1), 1)


def pieces(array: Tensor, index: Tensor | None = None) -> Iterator[Tensor]:
    """`array` (n, ...), or its rows `index` (m,), in pieces of about a million numbers."""
    size = rows_at_once(tuple(array.shape[1:]))
    if index is None:
        yield from array.split(size)
    else:
        for part in index.split(size):
            yield array[part]


def standardisation(pixels: Tensor, index: Tensor) -> tuple[float, float]:
    """(a, b) so that a * pixel + b has zero mean and unit variance over the samples `index` (m,) of `pixels`.

    Bytes are counted, which is exact; floats are summed in 64 bits, in two passes.
    """
    if pixels.is_floating_point():
        count = max(len(index) * torch.Size(pixels.shape[1:]).numel(), 1)
        mean = sum(float(part.double().sum()) for part in pieces(pixels, index)) / count
        square = sum(float((part.double() - mean).square_().sum()) for part in pieces(pixels, index))
        std = (square / count) ** 0.5
    else:
        counts = torch.zeros(256, dtype=torch.float64)
        for part in pieces(pixels, index):
            counts += torch.bincount(part.flatten(), minlength=256)
        values = torch.arange(256, dtype=torch.float64)
        mean = float((counts * values).sum() / counts.sum())
        std = float(((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt())
    std = std or 1.0  # all pixels are equal
    return 1.0 / std, -mean / std
