"""Checks of custom models: inputs changed in place, state that a checkpoint does not save, the first forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazyexp.data import Samples
from lazyexp.data.pieces import rows_at_once
from lazyexp.errors import UserError
from lazyexp.utils.terminal import log

# Samples of the forward pass before training.
WARM_UP = 64


def forward(model: nn.Module, inputs: Tensor, precision: str = "float32") -> Tensor:
    """`model(inputs)`, under autocast for `precision` bfloat16. Raises UserError if the model changes its inputs.

    PyTorch counts the in-place changes of a tensor, so the check costs nothing.
    """
    version = inputs._version
    if precision == "bfloat16":
        with torch.autocast(inputs.device.type, torch.bfloat16):
            logits: Tensor = model(inputs)
        logits = logits.float() if logits.dtype == torch.bfloat16 else logits  # the loss in float32
    else:
        logits = model(inputs)
    if inputs._version != version:
        raise changes_its_input(model)
    return logits


def changes_its_input(model: nn.Module) -> UserError:
    """The error for a model that overwrites its input."""
    return UserError(f"model {type(model).__name__}: changes its input in place; use x = x.clone() first in forward")


def warm_up(model: nn.Module, samples: Samples, precision: str = "float32") -> None:
    """Let libraries start threads and choose kernels before the clock runs, by a step of a copy of the model.

    Raises UserError if the model changes its inputs in place, also by ways that PyTorch does not count (`x.data`).
    A model that cannot be copied is not warmed up.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception:  # whatever a custom class raises; only the copy needs it
        return
    inputs = samples.part(0, min(WARM_UP, rows_at_once(samples.shape, 2**22)))[0].clone()
    if len(inputs) == 1:  # batch normalisation needs two samples in training mode
        inputs = torch.cat([inputs, inputs])
    before = inputs.clone()
    forward(twin, inputs, precision).sum().backward()
    if not _equal(inputs, before):
        raise changes_its_input(model)


class HiddenState:
    """Logs a note, once, if state that a checkpoint lacks changes in training: a resumed run would lose it.

    Sees attributes that are tensors or numbers, not those inside lists, dictionaries and other objects.
    """

    def __init__(self, name: str, fix: str, find: Callable[[], dict[str, Any]]) -> None:
        self.name, self.fix, self.find, self.noted = name, fix, find, False
        self.before = {name: _copy(value) for name, value in find().items()}

    @classmethod
    def of_model(cls, model: nn.Module) -> HiddenState:
        """Watch the attributes and the non-persistent buffers of a model."""
        return cls(f"model {type(model).__name__}", "use register_buffer", lambda: _unsaved(model))

    @classmethod
    def of_optimizer(cls, optimizer: torch.optim.Optimizer) -> HiddenState:
        """Watch the attributes of an optimizer, but not the private ones, which PyTorch sets."""

        def find() -> dict[str, Any]:
            return {name: value for name, value in vars(optimizer).items() if name[0] != "_" and _is_state(value)}

        return cls(f"optimizer {type(optimizer).__name__}", "keep it in self.state or in a group", find)

    def check(self) -> None:
        """Compare with the start of training."""
        if self.noted:
            return
        changed = [name for name, value in self.find().items() if not _equal(value, self.before.get(name))]
        if changed:
            self.noted = True
            log(
                f"note: {self.name}: {', '.join(changed[:3])} changes in training but is not in state_dict, so a "
                f"resumed run may differ; {self.fix}"
            )


def _unsaved(model: nn.Module) -> dict[str, Any]:
    """Tensors and numbers of a model that its state_dict does not hold, by their names."""
    saved = {value.data_ptr() for value in model.state_dict().values() if isinstance(value, Tensor)}
    found: dict[str, Any] = {}
    for prefix, module in model.named_modules():
        buffers = {name: module._buffers[name] for name in module._non_persistent_buffers_set}
        for name, value in {**vars(module), **buffers}.items():
            aliased = isinstance(value, Tensor) and value.data_ptr() in saved
            if name != "training" and _is_state(value) and not aliased:
                found[f"{prefix}.{name}" if prefix else name] = value
    return found


def _is_state(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.layout == torch.strided and not value.is_meta
    return isinstance(value, (int, float))


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
