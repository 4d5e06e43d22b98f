"""Scoring in 8-bit integers, at a quarter of the cost of float32.

Pixels are bytes, so only the weights of the first layer are rounded, to 255 steps between their extremes. These
logits only select samples. The selected samples are forwarded again in the model's own precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Layers


class Int8Scorer:
    """Logits of an MLP with the first layer in int8 (int32 sums are exact) and the other layers unchanged.

    With pixels p, inputs a p + c and weights W ~ s Q, Q int8: z = a s Q (p - 128) + (128 a + c) s sum(Q) + b.
    """

    def __init__(self, spec: EngineSpec) -> None:
        samples = spec.samples
        if not Layers.fit(spec.model) or samples.pixels.dtype != torch.uint8 or samples.pixels.is_cuda:
            raise UserError(
                "packing.precision=int8: is for model=mlp, images of bytes and device=cpu; "
                "use packing.precision=float32"
            )
        self.layers, self.samples = Layers(spec.model), samples
        self.rounded = torch.empty_like(self.layers.weights[0])
        self.quantized = torch.empty_like(self.rounded, dtype=torch.int8)
        self.current = False

    def weights_changed(self) -> None:
        self.current = False

    def again(self, samples: int) -> int:
        return 0

    @torch.inference_mode()
    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) of the samples `index` (b,) with the current weights, and their targets (b,)."""
        if not self.current:
            self._round()
        pixels, targets = self.samples.bytes(index)
        centred = pixels.bitwise_xor(128).view(torch.int8)  # p - 128
        sums = torch._int_mm(centred, self.quantized.t())
        z = sums.to(self.shift.dtype).mul_(self.step * self.samples.scale).add_(self.shift)
        return self.layers.rest(z)[2], targets

    def _round(self) -> None:
        weight, bias = self.layers.weights[0], self.layers.biases[0]
        low, high = torch.aminmax(weight)
        self.step = torch.maximum(-low, high) / 127
        torch.mul(weight, 1 / self.step, out=self.rounded).round_()
        self.quantized.copy_(self.rounded)
        scale, offset = self.samples.scale, self.samples.offset
        sums = self.quantized.sum(1).to(weight.dtype)
        self.shift = sums.mul_(self.step * (128 * scale + offset)).add_(bias)
        self.current = True
