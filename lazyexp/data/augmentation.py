"""Random changes of training images, in batches on the device. Draws depend on seed, epoch and sample alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.utils.seeding import generator


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for every image in every epoch.

    `padding`: a window of the image's size is cut, at a random position, from the image padded by so many pixels on
    every side; 0: off. `reflect`: the padding mirrors the image, otherwise it is 0. `flip`: mirrored left to right
    with probability 1/2. `cutout`: a square of this side around a random pixel is 0 after scaling, cut off at the
    borders of the image (DeVries & Taylor 2017, arXiv 1708.04552); 0: off.
    """

    padding: int = 0
    reflect: bool = False
    flip: bool = False
    cutout: int = 0

    def pad(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) padded on all four sides."""
        size = self.padding
        if not size:
            return images
        if not self.reflect:
            return F.pad(images, (size,) * 4)
        for dim in (2, 3):  # torch pads bytes with zeros alone
            images = images.index_select(dim, _mirrored(images.shape[dim], size, images.device))
        return images


def _mirrored(length: int, padding: int, device: torch.device) -> Tensor:
    """Positions (length + 2 padding,) that mirror a line of pixels at its ends, which are not repeated."""
    positions = torch.arange(-padding, length + padding, device=device).abs()
    return torch.where(positions < length, positions, 2 * (length - 1) - positions)


class Draws:
    """The draws of one epoch.

    `corner` (n,): offset of the window in a padded channel. `flip` (n,) bool. `centre` (2, n): row and column of the
    square.
    """

    def __init__(self, kind: Augmentation, shape: tuple[int, ...], samples: int, seed: int, epoch: int) -> None:
        self.kind, (self.height, self.width) = kind, shape[-2:]
        if kind.padding:
            sides = torch.randint(2 * kind.padding + 1, (2, samples), generator=generator(seed, "augment", epoch))
            self.corner = sides[0] * (self.width + 2 * kind.padding) + sides[1]
        if kind.flip:
            self.flip = torch.rand(samples, generator=generator(seed, "flip", epoch)) < 0.5
        if kind.cutout:
            places = torch.rand(2, samples, generator=generator(seed, "cutout", epoch))
            self.centre = (places * torch.tensor([[self.height], [self.width]])).long()

    def to(self, device: torch.device) -> Draws:
        for name in ("corner", "flip", "centre"):
            if name in vars(self):
                setattr(self, name, getattr(self, name).to(device))
        return self

    def mirror(self, images: Tensor, index: Tensor) -> Tensor:
        """`images` (b, channels, height, width) of the samples `index` (b,), some flipped, in place."""
        if not self.kind.flip:
            return images
        if images.is_cuda:  # the number of flipped images would have to be known on the host
            return torch.where(self.flip[index].view(-1, 1, 1, 1), images.flip(3), images)
        flipped = self.flip[index].nonzero().squeeze(1)
        return images.index_copy_(0, flipped, images.index_select(0, flipped).flip(3))

    def cut(self, inputs: Tensor, index: Tensor) -> Tensor:
        """Scaled `inputs` (b, channels, height, width) with a square of zeros each, in place."""
        size = self.kind.cutout
        if not size:
            return inputs
        row, column = self.centre[:, index].unsqueeze(2)
        rows = torch.arange(self.height, device=inputs.device) - (row - size // 2)
        columns = torch.arange(self.width, device=inputs.device) - (column - size // 2)
        inside = (_within(rows, size).unsqueeze(2) & _within(columns, size).unsqueeze(1)).unsqueeze(1)
        return inputs.masked_fill_(inside, 0.0)


def _within(offset: Tensor, size: int) -> Tensor:
    return (offset >= 0) & (offset < size)


class Windows:
    """Cuts windows from padded images by one strided gather, without an index per pixel."""

    def __init__(self, padded: Tensor, height: int, width: int) -> None:
        count, self.channels, rows, self.row = padded.shape
        self.height, self.width, self.plane = height, width, rows * self.row
        self.sample = self.channels * self.plane
        self.length = (self.channels - 1) * self.plane + (height - 1) * self.row + width
        flat = padded.reshape(-1)
        self._views = flat.as_strided((count * self.sample - self.length + 1, self.length), (1, 1))

    def __call__(self, row: Tensor, corner: Tensor) -> Tensor:
        """Windows (b, channels, height, width), contiguous, of the images `row` (b,) at the offsets `corner` (b,)."""
        lines = self._views.index_select(0, row * self.sample + corner)
        shape, strides = (self.channels, self.height, self.width), (self.plane, self.row, 1)
        return lines.as_strided((len(row), *shape), (self.length, *strides)).contiguous()
