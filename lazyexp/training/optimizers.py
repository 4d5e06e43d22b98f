"""The optimizers of the general loop: PyTorch's, or any other torch.optim.Optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lazyexp.config.imports import attribute_errors, resolve
from lazyexp.config.registry import OPTIMIZERS
from lazyexp.config.schema import OptimizerConfig
from lazyexp.errors import UserError
from lazyexp.training.energy import Energy


def make_optimizer(config: OptimizerConfig, parameters: Iterable[Tensor], **more: Any) -> torch.optim.Optimizer:
    """Called as target(parameters, lr=, **options, **more), with weight_decay and momentum where they are set.

    Raises UserError.
    """
    own = config._target_
    target = resolve(own, "optimizer._target_") if own else OPTIMIZERS[config.name]
    options: dict[str, Any] = {"lr": config.lr, **config.options, **more}
    for key in ("weight_decay", "momentum"):
        if getattr(config, key):
            options[key] = getattr(config, key)
    what = f"optimizer._target_={own}" if own else f"optimizer={config.name}"
    with attribute_errors(f"{what}, called with {options}"):
        optimizer = target(parameters, **options)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"{what}: made a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    return optimizer


def step(optimizer: torch.optim.Optimizer, rate: float, energy: Energy) -> None:
    """One step at a learning rate, its changes booked."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    energy.before_step()
    optimizer.step()
    energy.after_step()
