"""The networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from lazyexp.config import ModelConfig
from lazyexp.errors import UserError
from lazyexp.memory import require
from lazyexp.seeding import generator

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def make_model(config: ModelConfig, shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """The network for images of `shape` (channels, height, width), on the CPU, initialised from `seed`.

    Two runs with one seed start from identical weights, whatever their rule or device.
    """
    make = {"mlp": _mlp, "cnn": _cnn}[config.name]
    _require_memory(make, config, shape, classes)
    model = make(config, shape, classes)
    initialise(model, config.init, seed)
    return model


def _require_memory(make: Callable[..., nn.Module], config: ModelConfig, *data: Any) -> None:
    """Refuses a network whose weights and gradients would not fit, before any of them is made."""
    what, mend = f"model.width={config.width}, model.depth={config.depth}", "choose smaller ones"
    if config.name == "cnn" and config.depth > 40:  # the number of channels alone is beyond counting
        raise UserError(f"{what}: channels double at every stage; {mend}")
    try:
        with torch.device("meta"):
            weights = sum(parameter.numel() for parameter in make(config, *data).parameters())
    except RuntimeError:  # more weights than 64 bits can count
        raise UserError(f"{what}: more weights than can be counted; {mend}") from None
    require(8 * weights, f"{what}: a network of {weights:,} weights", mend)


def _mlp(config: ModelConfig, shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """`depth` hidden layers of `width` units."""
    activation = ACTIVATIONS[config.activation]
    sizes = [math.prod(shape)] + [config.width] * config.depth
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def _cnn(config: ModelConfig, shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """`depth` stages of a 3x3 convolution and 2x2 max pooling; `width` channels, doubled at every stage.

    Pooling stops when there is but one pixel left, so any image size will do.
    """
    activation = ACTIVATIONS[config.activation]
    channels, height, width = shape
    layers: list[nn.Module] = []
    for stage in range(config.depth):
        out = config.width * 2**stage
        layers += [nn.Conv2d(channels, out, 3, padding=1), activation()]
        if min(height, width) >= 2:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, classes))


@torch.no_grad()
def initialise(model: nn.Module, init: str, seed: int) -> None:
    """Draws all weights anew: `uniform` U(-a, a), a = 1/sqrt(fan_in), biases too (PyTorch's own default);
    `lecun_normal` N(0, 1/fan_in), zero biases; `kaiming` N(0, 2/fan_in), zero biases (He et al. 2015)."""
    rng = generator(seed, "weights")
    for layer in model.modules():
        if not isinstance(layer, (nn.Linear, nn.Conv2d)):
            continue
        fan_in = layer.weight[0].numel()
        if init == "uniform":
            bound = 1 / math.sqrt(fan_in)
            layer.weight.uniform_(-bound, bound, generator=rng)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=rng)
        else:
            gain = {"lecun_normal": 1.0, "kaiming": 2.0}[init]
            layer.weight.normal_(0, math.sqrt(gain / fan_in), generator=rng)
            if layer.bias is not None:
                layer.bias.zero_()
