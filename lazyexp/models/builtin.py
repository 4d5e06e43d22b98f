"""The networks: the built-in ones, and the door through which every network comes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lazyexp.config.imports import attribute_errors, resolve
from lazyexp.config.registry import MODELS
from lazyexp.config.schema import ModelConfig
from lazyexp.errors import UserError
from lazyexp.utils.memory import require
from lazyexp.utils.seeding import generator

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


def make_model(config: ModelConfig, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """The network for samples of `shape`, (channels, height, width) for images, on the CPU, initialised from `seed`.

    Its class or function is called as target(shape=shape, classes=classes, **options), whoever wrote it, with
    PyTorch's generator seeded. Two runs with one seed start from identical weights, whatever their rule or device.
    Raises UserError.
    """
    own = config._target_
    target = resolve(own, "model._target_") if own else MODELS[config.name]
    parameters = inspect.signature(target).parameters
    keys = [] if own else [entry.name for entry in fields(config) if entry.name in parameters]
    options = {**{key: getattr(config, key) for key in keys if key != "options"}, **config.options}
    builtin = "activation" in keys
    if builtin:
        _require_memory(target, config, dict(shape=shape, classes=classes, **options))
    what = f"model={config.name}" if not own else f"model._target_={own}"
    with (
        torch.random.fork_rng(devices=[]),
        attribute_errors(f"{what}, called with shape={shape}, classes={classes}, {options}"),
    ):
        torch.manual_seed(generator(seed, "weights").initial_seed())
        model = target(shape=shape, classes=classes, **options)
    if not isinstance(model, nn.Module):
        raise UserError(f"{what}: returned a {type(model).__name__}, not a torch.nn.Module")
    if builtin:
        initialise(model, config.init, seed)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"{what}: has no parameters to train")
    return model


@torch.no_grad()
def check_output(model: nn.Module, inputs: Tensor, classes: int, what: str) -> None:
    """Refuses a network that does not make (b, classes) floats of `inputs` (b, ...). Raises UserError."""
    training = model.training
    model.eval()
    with attribute_errors(f"{what}, given {tuple(inputs.shape)} {inputs.dtype}"):
        output = model(inputs)
    model.train(training)
    wanted = (len(inputs), classes)
    if not isinstance(output, Tensor):
        raise UserError(f"{what}: its output is a {type(output).__name__}, not a tensor of shape {wanted}")
    if output.shape != wanted or not output.is_floating_point():
        raise UserError(f"{what}: its output is {tuple(output.shape)} {output.dtype}, must be {wanted} floats")


def _require_memory(target: Callable[..., nn.Module], config: ModelConfig, arguments: dict[str, Any]) -> None:
    """Refuses a network whose weights and gradients would not fit, before any of them is made."""
    what, mend = f"model.width={config.width}, model.depth={config.depth}", "choose smaller ones"
    if config.name == "cnn" and config.depth > 40:  # the number of channels alone is beyond counting
        raise UserError(f"{what}: channels double at every stage; {mend}")
    try:
        with torch.device("meta"):
            weights = sum(parameter.numel() for parameter in target(**arguments).parameters())
    except RuntimeError:  # more weights than 64 bits can count
        raise UserError(f"{what}: more weights than can be counted; {mend}") from None
    require(8 * weights, f"{what}: a network of {weights:,} weights", mend)


def mlp(shape: tuple[int, ...], classes: int, width: int, depth: int, activation: str) -> nn.Sequential:
    """`depth` hidden layers of `width` units."""
    sizes = [math.prod(shape)] + [width] * depth
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def cnn(shape: tuple[int, ...], classes: int, width: int, depth: int, activation: str) -> nn.Sequential:
    """`depth` stages of a 3x3 convolution and 2x2 max pooling; `width` channels, doubled at every stage.

    Pooling stops when there is but one pixel left, so any image size will do.
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
