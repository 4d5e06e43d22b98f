"""Judging in bfloat16: for processors (AMX, AVX512-BF16) and GPUs that multiply it several times as fast as float32.

Nobody learns from these figures: those who must learn are forwarded again in the model's own precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.training.fast.layers import Layers
from lazyexp.training.job import Job

BF16 = torch.bfloat16


class Bfloat16Judge:
    """Logits of an MLP with inputs, weights and activations rounded to bfloat16 (8 bits), sums in float32."""

    def __init__(self, job: Job) -> None:
        if not Layers.fit(job.model):
            raise UserError("rule.judge=bfloat16: is for model=mlp; use rule.judge=float32")
        self.layers, self.images = Layers(job.model), job.images
        self.weights = [torch.empty_like(weight, dtype=BF16) for weight in self.layers.weights]
        self.biases = [torch.empty_like(bias, dtype=BF16) for bias in self.layers.biases]
        self.offset = torch.tensor(job.images.offset, dtype=BF16, device=job.images.targets.device)
        self.current = False

    def weights_changed(self) -> None:
        self.current = False

    def again(self, samples: int) -> int:
        return 0

    @torch.inference_mode()
    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) of the samples `index` (b,) with the present weights, and their targets (b,)."""
        if not self.current:
            for rounded, exact in zip(
                self.weights + self.biases, self.layers.weights + self.layers.biases, strict=True
            ):
                rounded.copy_(exact)
            self.current = True
        pixels, targets = self.images.bytes(index)
        h = torch.add(self.offset, pixels.to(BF16), alpha=self.images.scale)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = torch.addmm(bias, h, weight.t())
            self.layers.activate(h, h)
        logits = torch.addmm(self.biases[-1], h, self.weights[-1].t())
        return logits.to(self.layers.weights[0].dtype), targets
