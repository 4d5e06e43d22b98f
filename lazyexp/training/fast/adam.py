"""DirectAdam: gradients without autograd, Adam's step by PyTorch's fused kernel."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.layers import Layers
from lazyexp.training.optimizers import Stepper, make_optimizer
from lazyexp.utils.products import outer

# Optimizers with a fused kernel; SGD has other engines.
OPTIMIZERS = ("adam", "adamw")


class DirectAdam(Direct):
    """`Direct` with Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019)."""

    applies: ClassVar[str] = "Adam and AdamW, any batch size, any rule"

    @staticmethod
    def misfit(spec: EngineSpec) -> str | None:
        if not Layers.fit(spec.model) or spec.optimizer.name not in OPTIMIZERS or spec.optimizer._target_:
            return "is for model=mlp with optimizer=adam or adamw"
        return None

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        self.parameters = self._parameters()
        self.gradients = [torch.empty_like(parameter) for parameter in self.parameters]
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        optimizer = make_optimizer(spec.optimizer, self.parameters, fused=True)
        self.stepper = Stepper(optimizer, spec.optimizer.lr, spec.energy)

    def _step(self, deltas: list[Tensor], inputs: list[Tensor], rate: float) -> None:
        layers = len(deltas)
        for layer, (delta, h) in enumerate(zip(deltas, inputs, strict=True)):
            outer(delta, h, out=self.gradients[layer])
            torch.sum(delta, 0, out=self.gradients[layers + layer])
        self.stepper.step(rate)

    def state(self) -> dict[str, Any]:
        return self.stepper.optimizer.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        self.stepper.optimizer.load_state_dict(state)
