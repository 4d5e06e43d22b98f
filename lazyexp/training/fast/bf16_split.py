"""Scoring on tensor cores: bfloat16 products that are exact in the pixels and nearly exact in the weights.

A byte has 8 bits, as many as bfloat16 keeps, so pixels are exact. A weight is split into parts of 8 bits each,
w ~ w1 + w2 with |w - w1 - w2| <= 2^-16 |w|, and the products with the parts are summed in float32 (Henry, Tang &
Heinecke 2019, arXiv 1904.06376). The samples nearest to a decision boundary are scored again in full precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Layers

# One sample of this many is scored again in the model's own precision.
AGAIN = 16


class SplitScorer:
    """Logits of an MLP with the first layer as products of bfloat16 `parts` and the other layers unchanged.

    With pixels p, inputs a p + c and weights W ~ sum of W_i: z = a sum(W_i p) + c sum(W) + b.
    """

    def __init__(self, spec: EngineSpec, parts: int = 2) -> None:
        if not Layers.fit(spec.model) or spec.samples.pixels.dtype != torch.uint8:
            raise UserError(
                "packing.precision=bfloat16: is for model=mlp and images of bytes; use packing.precision=float32"
            )
        self.layers, self.samples, self.parts = Layers(spec.model), spec.samples, parts
        self.threshold = float(getattr(spec.rule, "threshold", 0.0))

    def weights_changed(self) -> None: ...

    def again(self, samples: int) -> int:
        return -(-samples // AGAIN)

    @torch.inference_mode()
    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) of the samples `index` (b,) with the current weights, and their targets (b,).

        Does not wait for a GPU: the number of samples that are scored again is fixed.
        """
        pixels, targets = self.samples.bytes(index)
        weight, samples = self.layers.weights[0], self.samples
        sums = product(pixels, split(weight, self.parts)).to(weight.dtype)
        z = sums.mul_(samples.scale).add_(weight.sum(1).mul_(samples.offset).add_(self.layers.biases[0]))
        logits = self.layers.rest(z)[2]
        doubtful = self._distance(logits, targets).topk(self.again(len(index)), largest=False).indices
        inputs = samples.batch(index.index_select(0, doubtful))[0].flatten(1)
        logits.index_copy_(0, doubtful, self.layers.rest(self.layers.first(inputs))[2])
        return logits, targets

    def _distance(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(b,) distance of the logits from a decision boundary: of the class, and of the rule's threshold."""
        of_target = logits.gather(1, targets.unsqueeze(1)).squeeze(1)
        best_other = logits.scatter(1, targets.unsqueeze(1), -torch.inf).amax(1)
        distance = (of_target - best_other).abs()
        if 0 < self.threshold < 1:
            log_confidence = logits.amax(1) - logits.logsumexp(1)
            distance = torch.minimum(distance, (log_confidence.exp() - self.threshold).abs())
        return distance


def split(weight: Tensor, parts: int) -> list[Tensor]:
    """bfloat16 tensors whose sum is `weight`, with 8 bits per part."""
    found, rest = [], weight.clone()
    for _ in range(parts):
        found.append(rest.to(torch.bfloat16))
        rest.sub_(found[-1])
    return found


def product(pixels: Tensor, weights: list[Tensor]) -> Tensor:
    """Sum of the products of pixels (b, in) with the parts (out, in), in float32: (b, out), smallest part first."""
    if pixels.is_cuda and hasattr(torch.ops.aten.mm, "dtype"):
        exact = pixels.to(torch.bfloat16)
        products = (torch.mm(exact, part.t(), out_dtype=torch.float32) for part in weights[::-1])
    else:  # other bfloat16 products of PyTorch round their sums to bfloat16
        exact = pixels.float()
        products = (torch.mm(exact, part.float().t()) for part in weights[::-1])
    return sum(products, pixels.new_zeros(len(pixels), len(weights[0]), dtype=torch.float32))
