"""The networks `mlp` and `cnn`, and the function that makes every network, built-in or custom."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from lazyexp.config.imports import attribute_errors, resolve
from lazyexp.config.registry import MODELS
from lazyexp.config.schema import ModelConfig
from lazyexp.errors import UserError
from lazyexp.models.checks import check_state
from lazyexp.utils.global_seed import fixed_global_seed
from lazyexp.utils.memory import require
from lazyexp.utils.seeding import generator

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
# Networks of convolutions, which are faster if the channels of a pixel are neighbours in memory.
CHANNELS_LAST = ("resnet", "torchvision")
_made: WeakSet[nn.Module] = WeakSet()  # networks of this process


def make_model(config: ModelConfig, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """The network for samples of `shape`, (channels, height, width) for images, on the CPU, initialised from `seed`.

    Built-in and custom networks are called alike: target(shape=shape, classes=classes, **options), with the global
    random generators seeded. Runs of one seed start from identical weights, whatever their rule or device. Raises
    UserError.
    """
    path = config._target_
    target = resolve(path, "model._target_") if path else MODELS[config.name]
    parameters = inspect.signature(target).parameters
    keys = [] if path else [entry.name for entry in fields(config) if entry.name in parameters]
    options = {**{key: getattr(config, key) for key in keys if key != "options"}, **copy.deepcopy(config.options)}
    builtin = "activation" in keys
    if builtin:
        _require_memory(target, config, dict(shape=shape, classes=classes, **options))
    what = f"model._target_={path}" if path else f"model={config.name}"
    dtype = torch.get_default_dtype()
    with (
        fixed_global_seed(generator(seed, "weights").initial_seed()),
        attribute_errors(f"{what}, called with shape={shape}, classes={classes}, {options}"),
    ):
        model = target(shape=shape, classes=classes, **options)
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
        raise UserError(f"{what}: changes PyTorch's default dtype; give a dtype to its layers instead")
    if not isinstance(model, nn.Module):
        raise UserError(f"{what}: returned a {type(model).__name__}, not a torch.nn.Module")
    if model in _made:
        raise UserError(f"{what}: returned the same network as before; it must make a new one at every call")
    _made.add(model)
    if builtin:
        initialise(model, config.init, seed)
    if not path and config.name in CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"{what}: has no parameters to train")
    if path:
        check_state(model, what)
    return model


def _require_memory(target: Callable[..., nn.Module], config: ModelConfig, arguments: dict[str, Any]) -> None:
    """Refuse a network whose weights and gradients need more than the free memory, before it is made."""
    what, advice = f"model.width={config.width}, model.depth={config.depth}", "choose smaller ones"
    if config.name == "cnn" and config.depth > 40:  # 2^40 channels
        raise UserError(f"{what}: channels double at every stage; {advice}")
    try:
        with torch.device("meta"):
            weights = sum(parameter.numel() for parameter in target(**arguments).parameters())
    except RuntimeError:
        raise UserError(f"{what}: more weights than 64 bits can count; {advice}") from None
    require(8 * weights, f"{what}: a network of {weights:,} weights", advice)


def mlp(shape: tuple[int, ...], classes: int, width: int, depth: int, activation: str) -> nn.Sequential:
    """`depth` hidden layers of `width` units."""
    sizes = [math.prod(shape)] + [width] * depth
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def cnn(shape: tuple[int, ...], classes: int, width: int, depth: int, activation: str) -> nn.Sequential:
    """`depth` stages of a 3x3 convolution and 2x2 max pooling; `width` channels, doubled at every stage.

    Pooling stops at a height or width of one pixel, so images may have any size.
    """
    if len(shape) != 3:
        raise UserError(f"model=cnn: is for images, not for samples of shape {shape}")
    channels, height, columns = shape
    layers: list[nn.Module] = []
    for stage in range(depth):
        out = width * 2**stage
        layers += [nn.Conv2d(channels, out, 3, padding=1), ACTIVATIONS[activation]()]
        if min(height, columns) >= 2:
            layers.append(nn.MaxPool2d(2))
            height, columns = height // 2, columns // 2
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * columns, classes))


@torch.no_grad()
def initialise(model: nn.Module, init: str, seed: int) -> None:
    """Draw all weights: `uniform` U(-a, a), a = 1/sqrt(fan_in), biases too (PyTorch's default); `lecun_normal`
    N(0, 1/fan_in), zero biases; `kaiming` N(0, 2/fan_in), zero biases (He et al. 2015).
    """
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
