"""Samples on the device: images stored as bytes, gathered, shifted and scaled for every batch; or tokens."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from lazyexp.data.raw import Raw
from lazyexp.utils.seeding import generator

# Inputs in bfloat16 are kept up to so many bytes. They are computed for so many samples at once.
STORE, PART = 2**30, 2048


def scaling(raw: Raw, index: Tensor, scale: str) -> tuple[float, float]:
    """(a, b) so that a * pixel + b is the input of the network.

    `unit`: 0 to `raw.white` becomes 0 to 1. `standard`: zero mean, unit variance over the pixels of the training
    samples `index`, exactly (whole numbers are counted, not summed in floating point). Tokens are never scaled.
    """
    if raw.train_images.dtype == torch.int64:
        return 1.0, 0.0
    if scale == "unit":
        return 1.0 / raw.white, 0.0
    if raw.train_images.is_floating_point():
        pixels = raw.train_images[index].double()
        mean, std = float(pixels.mean()), float(pixels.std(unbiased=False))
    else:
        counts = torch.zeros(256, dtype=torch.float64)
        for part in torch.split(index, 20000):  # bincount needs 8 bytes a pixel
            counts += torch.bincount(raw.train_images[part].flatten(), minlength=256)
        values = torch.arange(256, dtype=torch.float64)
        mean = float((counts * values).sum() / counts.sum())
        std = float(((counts * (values - mean) ** 2).sum() / counts.sum()).sqrt())
    std = std or 1.0  # all pixels are equal
    return 1.0 / std, -mean / std


def unit_notes(raw: Raw) -> list[str]:
    """A note if the pixels do not show which value is white, for `scale=unit`."""
    if raw.train_images.dtype == torch.int64:
        return []
    low, high = float(raw.train_images.min()), float(raw.train_images.max())
    name, fits = raw.sources["train_images"], low >= -0.001 and 0.5 * raw.white <= high <= 1.001 * raw.white
    if fits and (raw.white == 1 or not raw.train_images.is_floating_point()):
        return []
    change = "leaves them as they are" if raw.white == 1 else f"divides them by {raw.white:g}"
    return [f"{name}: values run from {low:g} to {high:g}; dataset.scale=unit {change}"]


class Samples:
    """Labelled samples on a device. `pixels` (n, channels, height, width) uint8 or float, `targets` (n,).

    Samples may have another shape (n, ...); int64 entries are tokens, which reach the network unscaled.

    With `max_shift` every sample is shifted by up to that many pixels in each direction and the edges are filled with
    zeros. The draw depends on seed, epoch and sample alone, so it is the same for rules that skip samples.
    """

    def __init__(
        self,
        pixels: Tensor,
        targets: Tensor,
        scale: float = 1.0,
        offset: float = 0.0,
        max_shift: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.shape = tuple(pixels.shape[1:])
        self.targets, self.scale, self.offset, self.dtype = targets, scale, offset, dtype
        self.max_shift = max_shift
        if max_shift:
            pixels = torch.nn.functional.pad(pixels, (max_shift,) * 4)
            height, width = pixels.shape[2:]
            window = torch.arange(height * width).view(1, height, width)
            window = window + height * width * torch.arange(self.shape[0]).view(-1, 1, 1)
            self._window = window[:, : self.shape[1], : self.shape[2]].flatten().to(pixels.device)
            self._row = width
        self.pixels = pixels.flatten(1)
        self._rounded: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def augmented(self) -> bool:
        """Whether the inputs of a sample change from epoch to epoch."""
        return bool(self.max_shift)

    def start_epoch(self, seed: int, epoch: int) -> None:
        """Draws this epoch's shifts."""
        if self.max_shift:
            draws = torch.randint(
                2 * self.max_shift + 1, (2, len(self)), generator=generator(seed, "augment", epoch)
            ).to(self.pixels.device)
            self._corner = draws[0] * self._row + draws[1]

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, channels, height, width) and targets (b,) of the samples `index` (b,), as new tensors."""
        pixels, targets = self.bytes(index)
        return self._scaled(pixels), targets

    def bytes(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The samples `index` (b,) before scaling: (b, channels * height * width) and (b,)."""
        if self.max_shift:
            positions = (self._corner[index] + index * self.pixels.shape[1])[:, None] + self._window
            pixels = self.pixels.view(-1)[positions]
        else:
            pixels = self.pixels.index_select(0, index)
        return pixels, self.targets.index_select(0, index)

    def rounded(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """As `batch`, with flat inputs (b, d) in bfloat16. They are kept unless they change or are too many."""
        if self.augmented or 2 * len(self) * math.prod(self.shape) > STORE:
            inputs, targets = self.batch(index)
            return inputs.flatten(1).to(torch.bfloat16), targets
        if self._rounded is None:
            self._rounded = self.targets.new_empty((len(self), math.prod(self.shape)), dtype=torch.bfloat16)
            for start in range(0, len(self), PART):
                self._rounded[start : start + PART] = self.part(start, start + PART)[0].flatten(1)
        return self._rounded.index_select(0, index), self.targets.index_select(0, index)

    def part(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets from start to stop without augmentation, for evaluation (max_shift=0 only).

        The inputs are new tensors: a network that changes them in place does not change the data.
        """
        pixels = self.pixels[start:stop]
        return self._scaled(pixels.clone() if pixels.dtype == torch.int64 else pixels), self.targets[start:stop]

    def head(self, number: int) -> Samples:
        """The first samples, without augmentation."""
        first = copy.copy(self)
        first.pixels, first.targets = self.pixels[:number], self.targets[:number]
        return first

    def _scaled(self, pixels: Tensor) -> Tensor:
        if pixels.dtype == torch.int64:
            return pixels.view(-1, *self.shape)
        values = pixels.to(self.dtype, copy=True).mul_(self.scale)
        if self.offset:
            values.add_(self.offset)
        return values.view(-1, *self.shape)
