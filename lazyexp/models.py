"""The networks."""

from __future__ import annotations

import math

import torch
from torch import nn

from lazyexp.config import ModelConfig
from lazyexp.seeding import generator

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def make_model(config: ModelConfig, shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """The network for images of `shape` (channels, height, width), on the CPU, initialised from `seed`.

    Two runs with one seed start from identical weights, whatever their rule or device.
    """
    activation = ACTIVATIONS[config.activation]
    sizes = [math.prod(shape)] + [config.width] * config.depth
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
    initialise(model, config.init, seed)
    return model


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
            layer.bias.uniform_(-bound, bound, generator=rng)
        else:
            gain = {"lecun_normal": 1.0, "kaiming": 2.0}[init]
            layer.weight.normal_(0, math.sqrt(gain / fan_in), generator=rng)
            layer.bias.zero_()
