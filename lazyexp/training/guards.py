"""Checks of custom models: inputs changed in place, state that a checkpoint does not save, the first forward pass."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lazyexp.data import Samples
from lazyexp.errors import UserError
from lazyexp.utils.terminal import log

# Samples of the forward pass before training.
WARM_UP = 64


def forward(model: nn.Module, inputs: Tensor) -> Tensor:
    """`model(inputs)`. Raises UserError if the model changes its inputs in place.

    PyTorch counts the in-place changes of a tensor, so the check costs nothing.
    """
    version = inputs._version
    logits: Tensor = model(inputs)
    if inputs._version != version:
        raise changes_its_input(model)
    return logits


def changes_its_input(model: nn.Module) -> UserError:
    return UserError(f"model {type(model).__name__}: changes its input in place; use x = x.clone() first in forward")


def warm_up(model: nn.Module, samples: Samples) -> None:
    """Let libraries start threads and choose kernels before the clock runs, by a step of a copy of the model.

    Raises UserError if the model changes its inputs in place, also by ways that PyTorch does not count (`x.data`).
    A model that cannot be copied is not warmed up.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception:  # whatever a custom class raises; only the copy needs it
        return
    inputs = samples.part(0, WARM_UP)[0].clone()
    if len(inputs) == 1:  # batch normalisation needs two samples in training mode
        inputs = torch.cat([inputs, inputs])
    before = inputs.clone()
    forward(twin, inputs).sum().backward()
    if not _equal(inputs, before):
        raise changes_its_input(model)


class HiddenState:
    """Notes once if state of a model that its state_dict lacks changes in training: a resumed run would lose it.

    Looks at non-persistent buffers and at attributes of modules that are tensors or numbers.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.noted = model, False
        self.before = {name: _copy(value) for name, value in self._found()}

    def check(self) -> None:
        """Compare with the start of training; to be called when a row is written."""
        if self.noted:
            return
        changed = [name for name, value in self._found() if not _equal(value, self.before.get(name))]
        if changed:
            self.noted = True
            log(
                f"note: model {type(self.model).__name__}: {', '.join(changed[:3])} changes in training but is not "
                "in state_dict, so a resumed run may differ; use register_buffer"
            )

    def _found(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []
        saved = {value.data_ptr() for value in self.model.state_dict().values() if isinstance(value, Tensor)}
        for prefix, module in self.model.named_modules():
            path = f"{prefix}." if prefix else ""
            buffers = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
            for name, value in {**vars(module), **buffers}.items():
                if isinstance(value, Tensor):
                    kept = value.layout != torch.strided or value.is_meta or value.data_ptr() in saved
                else:
                    kept = name == "training" or not isinstance(value, (int, float))
                if not kept:
                    found.append((f"{path}{name}", value))
        return found


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _equal(value: Any, before: Any) -> bool:
    """Whether two tensors or numbers are the same; NaN equals NaN."""
    if not isinstance(value, Tensor):
        return bool(value == before) or (value != value and before != before)
    if not isinstance(before, Tensor) or value.shape != before.shape or value.dtype != before.dtype:
        return False
    value = value.detach()
    return bool(((value == before) | ((value != value) & (before != before))).all())
