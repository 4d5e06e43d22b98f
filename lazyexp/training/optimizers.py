"""Optimizers of the autograd engine: PyTorch's, or any other torch.optim.Optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lazyexp.config.imports import attribute_errors, resolve
from lazyexp.config.registry import OPTIMIZERS
from lazyexp.config.schema import OptimizerConfig
from lazyexp.errors import UserError
from lazyexp.training.energy import Energy
from lazyexp.training.updates import KnownUpdates


def make_optimizer(config: OptimizerConfig, parameters: Iterable[Tensor], **more: Any) -> torch.optim.Optimizer:
    """Make the optimizer that `config` names.

    The target is called as target(parameters, lr=, **options, **more), with weight_decay and momentum if they are not
    0. Raises UserError.
    """
    custom = config._target_
    what = f"optimizer._target_={custom}" if custom else f"optimizer={config.name}"
    options: dict[str, Any] = {"lr": config.lr, **config.options, **more}
    if "lr" in config.options:
        raise UserError(f"optimizer.options.lr={config.options['lr']}: set optimizer.lr, which the schedule follows")
    for key in ("weight_decay", "momentum"):
        value = getattr(config, key)
        if value and key in config.options:
            raise UserError(f"optimizer.options.{key}={config.options[key]}: optimizer.{key}={value} is set, too")
        if value:
            options[key] = value
    if config.nesterov:
        options["nesterov"] = True
    given = list(parameters)  # a target may look at them twice, for two groups
    with attribute_errors(f"{what}, called with {options}"):
        target = resolve(custom, "optimizer._target_") if custom else OPTIMIZERS[config.name]
        optimizer = target(given, **options)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"{what}: made a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    if custom:
        _check_groups(optimizer, given, config, what)
    return optimizer


def _check_groups(optimizer: torch.optim.Optimizer, given: list[Tensor], config: OptimizerConfig, what: str) -> None:
    """Refuse an optimizer of other parameters than the model's, or without the lr that a schedule needs."""
    known = {id(parameter) for parameter in given}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not held or not held <= known:
        raise UserError(f"{what}: its parameters are not those of the model that it was called with")
    constant = config.schedule == "constant" and config.warmup == 0
    if not constant and not all("lr" in group for group in optimizer.param_groups):
        raise UserError(f"{what}: has no lr, so no schedule can apply; set optimizer.schedule=constant")


class Stepper:
    """An optimizer under a learning-rate schedule, with its weight changes added to `energy`.

    Groups with different learning rates keep their ratios: the schedule of optimizer.lr scales each of them from its
    initial value.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, lr: float, energy: Energy) -> None:
        self.optimizer, self.energy = optimizer, energy
        rates = [float(group["lr"]) if "lr" in group else None for group in optimizer.param_groups]
        self.known = KnownUpdates(optimizer) if energy.enabled and KnownUpdates.fit(optimizer) else None
        self.ratios = [None if rate is None else rate / lr for rate in rates]
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.zeroes_itself = type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad

    def zero_grad(self) -> None:
        """Forget the gradients. PyTorch's own way also notes the call for its profiler, which takes longer."""
        if self.zeroes_itself:
            self.optimizer.zero_grad()
        else:
            for parameter in self.parameters:
                parameter.grad = None

    def step(self, rate: float) -> None:
        """One step at the learning rate `rate` of the schedule."""
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            if ratio is not None:
                group["lr"] = rate if ratio == 1 else rate * ratio
        if self.known is not None and self._dense():
            self.optimizer.step()
            with self.energy.clock.off():
                self.energy.add(*self.known.measure())
            return
        self.energy.before_step()
        self.optimizer.step()
        self.energy.after_step()

    def _dense(self) -> bool:
        """Whether no gradient is sparse."""
        groups = self.optimizer.param_groups
        return not any(p.grad is not None and p.grad.is_sparse for group in groups for p in group["params"])

    @contextmanager
    def training(self) -> Iterator[None]:
        """Inside, an optimizer with train() and eval() (schedule-free) is in training mode, outside in evaluation
        mode: the weights outside are those to evaluate and to save."""
        train, evaluate = getattr(self.optimizer, "train", None), getattr(self.optimizer, "eval", None)
        if not (callable(train) and callable(evaluate)):
            yield
            return
        train()
        try:
            yield
        finally:
            evaluate()
