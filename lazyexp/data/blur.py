"""Gaussian blur of images, before training."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from lazyexp.errors import UserError

PART = 2000  # images at once


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Images (n, channels, height, width) blurred by a Gaussian of this standard deviation in pixels.

    The Gaussian is cut at three standard deviations. Outside of an image there are zeros. Bytes stay bytes, rounded.
    Raises UserError for samples that are not images.
    """
    shape = tuple(images.shape[1:])
    if images.dim() != 4:
        raise UserError(f"dataset.blur={deviation:g}: must be 0 for samples of shape {shape}, which are not images")
    reach = math.ceil(3 * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = (weights / weights.sum()).view(1, 1, 1, -1)
    parts = []
    for part in images.split(PART):
        values = part.float().flatten(0, 1).unsqueeze(1)
        values = conv2d(values, kernel, padding=(0, reach))
        values = conv2d(values, kernel.transpose(2, 3), padding=(reach, 0)).view(part.shape)
        parts.append((values if part.is_floating_point() else values.round()).to(part.dtype))
    return torch.cat(parts)
