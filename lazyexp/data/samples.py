"""Samples on the device: images stored as bytes, gathered, changed and scaled for every batch; or tokens."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lazyexp.data.augmentation import Augmentation, Draws, Windows
from lazyexp.data.pieces import standardisation
from lazyexp.data.raw import Raw
from lazyexp.data.read_ahead import ReadAhead
from lazyexp.errors import UserError

# Inputs in bfloat16 are kept up to so many bytes. They are computed for so many samples at once.
STORE, PART = 2**30, 2048


@dataclass(frozen=True)
class Scaling:
    """Inputs of the network are `scale` * pixel + `offset`, or as `channels` (2, channels) says per channel."""

    scale: float = 1.0
    offset: float = 0.0
    channels: Tensor | None = None


def scaling(raw: Raw, index: Tensor, scale: str) -> Scaling:
    """The scaling of inputs.

    `unit`: 0 to `raw.white` becomes 0 to 1. `standard`: zero mean, unit variance over the pixels of the training
    samples `index`, exactly (whole numbers are counted, not summed in floating point). `channel`: the same for every
    channel by itself. Tokens are never scaled. Raises UserError.
    """
    if scale == "channel" and raw.train_images.dim() != 4:
        shape = tuple(raw.train_images.shape[1:])
        raise UserError(
            f"dataset.scale=channel: is for images, not for samples of shape {shape}; use standard or unit"
        )
    if raw.train_images.dtype == torch.int64:
        return Scaling()
    if scale == "unit":
        return Scaling(1.0 / raw.white)
    if scale == "channel":
        values = [standardisation(raw.train_images[:, c : c + 1], index) for c in range(raw.train_images.shape[1])]
        return Scaling(channels=torch.tensor(values, dtype=torch.float64).t())
    return Scaling(*standardisation(raw.train_images, index))


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

    `augmentation` changes images at random; `max_shift` is short for one that pads by so many zeros. The draw depends
    on seed, epoch and sample alone, so it is the same for rules that skip samples. `channels` (2, channels) replaces
    `scale` and `offset` by factors and offsets per channel. With `rows` (n,), sample i is pixels[rows[i]], and
    `pixels` stay where they are, on disk; batches are read from there.

    Attributes:
        label_smoothing: Share of a target's probability that the loss spreads over all classes.
    """

    def __init__(
        self,
        pixels: Tensor,
        targets: Tensor,
        scale: float = 1.0,
        offset: float = 0.0,
        max_shift: int = 0,
        dtype: torch.dtype = torch.float32,
        augmentation: Augmentation | None = None,
        channels: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> None:
        self.shape = tuple(pixels.shape[1:])
        self.targets, self.scale, self.offset, self.dtype = targets, scale, offset, dtype
        self.augmentation = augmentation or Augmentation(padding=max_shift)
        self.channels = None if channels is None else channels.to(targets.device, dtype).view(2, -1, 1, 1)
        self.label_smoothing = 0.0
        self._draws: Draws | None = None
        self.rows = rows
        if rows is not None:
            self.pixels, self._ahead = pixels, ReadAhead(pixels)
            return
        if self.augmentation.padding:
            pixels = self.augmentation.pad(pixels)
            self._windows = Windows(pixels, *self.shape[1:])
        self.pixels = pixels.flatten(1)
        self._rounded: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def augmented(self) -> bool:
        """Whether images are changed at random."""
        return self.augmentation != Augmentation()

    @property
    def affine(self) -> bool:
        """Whether the inputs of a batch are `scale` * `bytes` + `offset`."""
        return self.channels is None and not self.augmentation.cutout

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """Scale and offset, (1,) or (channels,) float64 on the CPU."""
        if self.channels is None:
            return torch.tensor([self.scale], dtype=torch.float64), torch.tensor([self.offset], dtype=torch.float64)
        scale, offset = self.channels.double().flatten(1).cpu()
        return scale, offset

    def start_epoch(self, seed: int, epoch: int) -> None:
        """Draws this epoch's changes."""
        if self.augmented:
            self._draws = Draws(self.augmentation, self.shape, len(self), seed, epoch).to(self.targets.device)

    def read_ahead(self, order: Tensor) -> None:
        """Begin to read the samples `order` (m,), if they are on disk."""
        if self.rows is not None:
            self._ahead.start(self.rows[order.cpu()])

    def stop_reading(self) -> None:
        """End the thread that reads ahead."""
        if self.rows is not None:
            self._ahead.stop()

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, channels, height, width) and targets (b,) of the samples `index` (b,), as new tensors."""
        pixels, targets = self.bytes(index)
        inputs = self._scaled(pixels)
        return inputs if self._draws is None else self._draws.cut(inputs, index), targets

    def bytes(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The samples `index` (b,) before scaling and cutout: (b, channels * height * width) and (b,)."""
        targets = self.targets.index_select(0, index)
        if self._draws is None:
            assert not self.augmented, "start_epoch comes first"
            return self._stored(index), targets
        if not self.augmentation.padding:
            images = self._stored(index).view(-1, *self.shape)
        elif self.rows is None:
            images = self._windows(index, self._draws.corner[index])
        else:
            padded = self.augmentation.pad(self._stored(index).view(-1, *self.shape))
            here = torch.arange(len(index), device=index.device)
            images = Windows(padded, *self.shape[1:])(here, self._draws.corner[index])
        return self._draws.mirror(images, index).flatten(1), targets

    def rounded(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """As `batch`, with flat inputs (b, d) in bfloat16. They are kept unless they change or are too many."""
        if self.augmented or self.rows is not None or 2 * len(self) * math.prod(self.shape) > STORE:
            inputs, targets = self.batch(index)
            return inputs.flatten(1).to(torch.bfloat16), targets
        if self._rounded is None:
            self._rounded = self.targets.new_empty((len(self), math.prod(self.shape)), dtype=torch.bfloat16)
            for start in range(0, len(self), PART):
                self._rounded[start : start + PART] = self.part(start, start + PART)[0].flatten(1)
        return self._rounded.index_select(0, index), self.targets.index_select(0, index)

    def _stored(self, index: Tensor) -> Tensor:
        """The samples `index` (b,) as they are stored: (b, channels * height * width), new."""
        if self.rows is None:
            return self.pixels.index_select(0, index)
        found = self.pixels.index_select(0, self.rows[index.cpu()])
        self._ahead.advance(len(index))
        return found.contiguous().flatten(1).to(self.targets.device)

    def part(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets from start to stop without augmentation, for evaluation (without padding only).

        The inputs are new tensors: a network that changes them in place does not change the data.
        """
        if self.rows is not None:
            found = self.pixels.index_select(0, self.rows[start:stop]).contiguous().flatten(1)
            return self._scaled(found.to(self.targets.device)), self.targets[start:stop]
        pixels = self.pixels[start:stop]
        return self._scaled(pixels.clone() if pixels.dtype == torch.int64 else pixels), self.targets[start:stop]

    def head(self, number: int) -> Samples:
        """The first samples, without augmentation."""
        first = copy.copy(self)
        first.targets = self.targets[:number]
        if self.rows is None:
            first.pixels = self.pixels[:number]
        else:
            first.rows = self.rows[:number]
        return first

    def _scaled(self, pixels: Tensor) -> Tensor:
        if pixels.dtype == torch.int64:
            return pixels.view(-1, *self.shape)
        values = pixels.to(self.dtype, copy=True)
        if self.channels is not None:
            return values.view(-1, *self.shape).mul_(self.channels[0]).add_(self.channels[1])
        values.mul_(self.scale)
        if self.offset:
            values.add_(self.offset)
        return values.view(-1, *self.shape)
