"""Trials of a network before training: its output, and what it does to its inputs, its state and global state."""

from __future__ import annotations

import copy
import io
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lazyexp.config.imports import attribute_errors
from lazyexp.errors import UserError
from lazyexp.utils.global_seed import fixed_global_seed
from lazyexp.utils.seeding import generator
from lazyexp.utils.terminal import log

MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
COPY = "let it work on a copy, x = x.clone()"


@torch.no_grad()
def materialize(model: nn.Module, inputs: Tensor, seed: int, what: str) -> None:
    """Draw the weights of lazy modules, such as LazyLinear, from `seed`, for `inputs` (b, ...) on the model's device.

    PyTorch draws them in the first forward pass, from the caller's generator. Raises UserError.
    """
    if not any(is_lazy(parameter) for parameter in (*model.parameters(), *model.buffers())):
        return
    training = model.training
    with (
        fixed_global_seed(generator(seed, "lazy weights").initial_seed()),
        attribute_errors(f"{what}, called with {tuple(inputs.shape)} {inputs.dtype}"),
    ):
        model.eval()(inputs.clone())
    model.train(training)


@torch.no_grad()
def check_output(model: nn.Module, inputs: Tensor, classes: int, what: str) -> None:
    """Refuse a network whose output for `inputs` (b, ...) is not (b, classes) floats, or that changes its input.

    PyTorch counts the in-place changes of a tensor, except those through `x.data` or NumPy, which the values show.
    Prints a note if training mode changes lists or dictionaries of the network, which no state_dict saves, or draws
    from a random generator without a seed. Raises UserError.
    """
    inputs = inputs.clone()
    before, version = inputs.clone(), inputs._version
    training = model.training
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    model.eval()
    try:
        with (
            torch.random.fork_rng(devices=devices),
            fixed_global_seed(0),
            attribute_errors(f"{what}, called with {tuple(inputs.shape)} {inputs.dtype}"),
        ):
            output = model(inputs)
    except UserError as error:
        if inputs.dtype != torch.int64:
            raise
        raise UserError(
            f"{error}; whole-number samples of shape {tuple(inputs.shape[1:])} are tokens: for a table of numbers "
            "give floats, such as x.astype('float32')"
        ) from None
    finally:
        model.train(training)
    wanted = (len(inputs), classes)
    if not isinstance(output, Tensor):
        raise UserError(f"{what}: its output is a {type(output).__name__}, not a tensor of shape {wanted}")
    if output.shape != wanted or not output.is_floating_point():
        raise UserError(f"{what}: its output is {tuple(output.shape)} {output.dtype}, must be {wanted} floats")
    if inputs._version != version or not torch.equal(inputs, before):
        raise UserError(f"{what}: changes its input in place; {COPY}")
    _check_training_mode(model, before, what)


def single_sample_warning(model: nn.Module, batch_size: int, what: str) -> str | None:
    """A warning if a network with batch normalisation is to be trained on batches of one sample."""
    if batch_size > 1 or not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        return None
    return (
        f"warning: {what}: has batch normalisation, and batch_size=1 normalises every sample by itself: training is "
        "slow and learns little; set for example batch_size=128 optimizer.lr=0.1 optimizer.momentum=0.9"
    )


def check_state(model: nn.Module, what: str) -> None:
    """Refuse a network whose state_dict cannot be saved and loaded again. Raises UserError."""
    try:
        state = model.state_dict()
    except Exception as error:
        raise UserError(f"{what}: its state_dict cannot be made ({type(error).__name__}: {error})") from None
    for name, value in state.items():
        if isinstance(value, Tensor):
            continue
        stream = io.BytesIO()
        try:
            torch.save(value, stream)
            stream.seek(0)
            torch.load(stream, weights_only=True)
        except Exception:
            raise UserError(
                f"{what}: {name} of its state_dict is a {type(value).__name__}, which cannot be saved safely; "
                "get_extra_state must return tensors, numbers, text, lists or dictionaries"
            ) from None


def _check_training_mode(model: nn.Module, inputs: Tensor, what: str) -> None:
    """Two forward passes of a copy in training mode. Errors are left to the training, which reports them."""
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    given = inputs.clone()
    with torch.random.fork_rng(devices=devices), fixed_global_seed(0):
        try:
            trial = copy.deepcopy(model).train()
            trial(given)
            changed = given._version > 0 or not torch.equal(given, inputs)
            first, generators = _hidden_state(trial), _generators()
            trial(inputs.clone())
            second, drawn = _hidden_state(trial), _generators() != generators
        except Exception:
            return
    if changed:
        raise UserError(f"{what}: changes its input in place in training mode; {COPY}")
    hidden = sorted(name for name in first if name in second and first[name] != second[name])
    if hidden:
        log(
            f"note: {what} keeps {hidden[0]} outside of its state_dict: a resumed run starts without it; "
            "use register_buffer or get_extra_state"
        )
    if drawn:
        log(
            f"note: {what} draws from the random generators of Python or NumPy, which have no seed: runs do not "
            "repeat; draw with torch"
        )


def _generators() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest


def _hidden_state(model: nn.Module) -> dict[str, Any]:
    """The lists, dictionaries and similar attributes of all modules, in a form that can be compared.

    Changes of numbers and of tensors outside of the state_dict are noted while training.
    """
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        kind = type(module)
        if kind.get_extra_state is not nn.Module.get_extra_state or kind.__module__.startswith("torch."):
            continue
        for name, value in vars(module).items():
            if name not in MODULE_ATTRIBUTES and isinstance(value, (list, set, deque, dict)):
                found[f"{path}.{name}".lstrip(".")] = _comparable(value)
    return found


def _comparable(value: Any, depth: int = 3) -> Any:
    """Something that is equal for equal values; of unknown objects, their type alone."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy().tobytes() if value.layout == torch.strided else None
    if isinstance(value, (int, float, str, type(None))):
        return value
    if isinstance(value, Mapping) and depth:
        return [(str(key), _comparable(item, depth - 1)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set, deque)) and depth:
        return [_comparable(item, depth - 1) for item in value]
    return type(value).__name__
