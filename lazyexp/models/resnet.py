"""The ResNet for small images of He et al. 2016 (arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from lazyexp.errors import UserError

CHANNELS_PER_GROUP = 8


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters.

    Where the block halves height and width, the shortcut takes every second pixel and adds channels of zeros (option
    A of the paper).
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module], act: type[nn.Module]
    ):
        super().__init__()
        self.stride, self.added = stride, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1, self.act1 = norm(outputs), act()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2, self.act2 = norm(outputs), act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        result: Tensor = self.act2(y + x)
        return result


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with groups of 8 channels, or fewer where 8 does not divide their number."""
    return nn.GroupNorm(channels // math.gcd(channels, CHANNELS_PER_GROUP), channels)


def resnet(shape: tuple[int, ...], classes: int, width: int, depth: int, activation: str, norm: str) -> nn.Sequential:
    """6n + 2 layers (`depth`): a convolution, three stages of n blocks with 1, 2 and 4 times `width` channels, and a
    linear layer on the mean over all pixels.

    `norm`: batch or group. Depth 20, 32 and 56 have 0.27, 0.46 and 0.85 million parameters at width 16.
    """
    from lazyexp.models.builtin import ACTIVATIONS

    if len(shape) != 3:
        raise UserError(f"model=resnet: is for images, not for samples of shape {shape}")
    normalise: Callable[[int], nn.Module] = nn.BatchNorm2d if norm == "batch" else group_norm
    block = partial(Block, norm=normalise, act=ACTIVATIONS[activation])
    layers: list[nn.Module] = [
        nn.Conv2d(shape[0], width, 3, 1, 1, bias=False), normalise(width), ACTIVATIONS[activation]()
    ]  # fmt: skip
    channels = width
    for stage in range(3):
        for number in range((depth - 2) // 6):
            outputs = width * 2**stage
            layers.append(block(channels, outputs, 2 if stage and not number else 1))
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
