"""Scoring in bfloat16, for CPUs (AMX, AVX512-BF16) that multiply it several times as fast as float32.

These logits only select samples. The selected samples are forwarded again in the model's own precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Layers

BF16 = torch.bfloat16


class Bfloat16Scorer:
    """Logits of an MLP with inputs, weights and activations rounded to bfloat16 (8 bits) and sums in float32."""

    def __init__(self, spec: EngineSpec) -> None:
        if not Layers.fit(spec.model):
            raise UserError("packing.precision=bfloat16: is for model=mlp; use packing.precision=float32")
        self.layers, self.samples = Layers(spec.model), spec.samples
        self.weights = [torch.empty_like(weight, dtype=BF16) for weight in self.layers.weights]
        self.biases = [torch.empty_like(bias, dtype=BF16) for bias in self.layers.biases]
        self.offset = torch.tensor(spec.samples.offset, dtype=BF16, device=spec.samples.targets.device)
        self.current = False

    def weights_changed(self) -> None:
        self.current = False

    def again(self, samples: int) -> int:
        return 0

    @torch.inference_mode()
    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) of the samples `index` (b,) with the current weights, and their targets (b,)."""
        if not self.current:
            exact = [*self.layers.weights, *self.layers.biases]
            for rounded, value in zip([*self.weights, *self.biases], exact, strict=True):
                rounded.copy_(value)
            self.current = True
        pixels, targets = self.samples.bytes(index)
        h = torch.add(self.offset, pixels.to(BF16), alpha=self.samples.scale)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = torch.addmm(bias, h, weight.t())
            self.layers.activate(h, h)
        logits = torch.addmm(self.biases[-1], h, self.weights[-1].t())
        return logits.to(self.layers.weights[0].dtype), targets
