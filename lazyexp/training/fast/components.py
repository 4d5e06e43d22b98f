"""Scoring on principal components: which samples are misclassified can be seen from a few dozen directions.

With x ~ m + V r, r = V^T (x - m), the first pre-activations are W x + b ~ (W V) r + (W m + b). A product with 64
components instead of 784 pixels is twelve times smaller. W V and W m + b follow the weights: an update by W += D^T X,
b += sum(D) changes them by D^T (X V) and D^T (X m + 1), which is small, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyexp.data.components import Components, principal_components
from lazyexp.data.samples import PART
from lazyexp.errors import UserError
from lazyexp.training.engine import EngineSpec
from lazyexp.training.fast.layers import Layers
from lazyexp.utils.products import add_outer

# Samples that are scored at once: their hidden units stay in the cache.
ROWS = 256
# The last layer is filled up to a multiple of so many classes: products with few columns are slow.
COLUMNS = 16


class ComponentScorer:
    """Logits of an MLP with the inputs replaced by their projection on `packing.components` principal components."""

    def __init__(self, spec: EngineSpec) -> None:
        count, precision = spec.packing.components, spec.packing.precision
        if not Layers.fit(spec.model) or spec.samples.targets.is_cuda:
            raise UserError(f"packing.components={count}: is for model=mlp and device=cpu; set it to null")
        assert count is not None
        self.layers, self.samples, self.count = Layers(spec.model), spec.samples, count
        self.dtype = torch.bfloat16 if precision == "bfloat16" else self.layers.weights[0].dtype
        self.components: Components | None = None
        self.current = self.follows = False

    def weights_changed(self) -> None:
        self.current = False

    def again(self, samples: int) -> int:
        return 0

    def follow(self, deltas: Tensor, inputs: Tensor, index: Tensor) -> None:
        """Account for an update of the first layer by W += deltas^T inputs, b += sum(deltas).

        `deltas` (b, width), `inputs` (b, in) of the samples `index` (b,).
        """
        assert self.components is not None
        if self.samples.augmented:
            inputs = inputs.to(deltas.dtype)
            r, s = inputs @ self.components.basis, inputs @ self.components.mean + 1
        else:
            r = self.table.index_select(0, index).to(deltas.dtype).add_(self.centre)
            s = self.along_mean.index_select(0, index)
        add_outer(self.first, deltas, r)
        self.bias.addmv_(deltas.t(), s)

    @torch.inference_mode()
    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b, classes) of the samples `index` (b,) with the current weights, and their targets (b,)."""
        if self.components is None:
            self._prepare(principal_components(self.samples, self._count(), "packing.components"))
        if not self.current:
            self._derive()
        logits = torch.cat([self._logits(part) for part in index.split(ROWS)])
        return logits.to(self.first.dtype), self.samples.targets.index_select(0, index)

    def _count(self) -> int:
        """The number of components: at most that of the inputs."""
        self.count = min(self.count, self.layers.inputs)
        return self.count

    def _prepare(self, components: Components) -> None:
        """Project all samples, unless they change from epoch to epoch, and the weights."""
        self.components, samples = components, self.samples
        self.centre = components.mean @ components.basis
        self.first = self.layers.weights[0] @ components.basis
        self.bias = torch.addmv(self.layers.biases[0], self.layers.weights[0], components.mean)
        self.current = False
        if samples.augmented:
            return
        self.table = self.first.new_empty(len(samples), self.count, dtype=self.dtype)
        self.along_mean = self.first.new_empty(len(samples))
        for start in range(0, len(samples), PART):
            inputs = samples.part(start, start + PART)[0].flatten(1)
            self.table[start : start + PART] = components.project(inputs)
            self.along_mean[start : start + PART] = torch.mv(inputs, components.mean).add_(1)

    def _derive(self) -> None:
        """The factors of the products, after an update."""
        assert self.components is not None
        if not self.follows:
            self.first = self.layers.weights[0] @ self.components.basis
            self.bias = torch.addmv(self.layers.biases[0], self.layers.weights[0], self.components.mean)
        last, classes = self.layers.weights[-1], self.layers.classes
        columns = -(-classes // COLUMNS) * COLUMNS
        filled = last.new_zeros(columns, last.shape[1]), last.new_zeros(columns)
        filled[0][:classes], filled[1][:classes] = last, self.layers.biases[-1]
        weights = [self.first, *self.layers.weights[1:-1], filled[0]]
        biases = [self.bias, *self.layers.biases[1:-1], filled[1]]
        self.factors = [
            (bias.to(self.dtype), weight.t().to(self.dtype)) for weight, bias in zip(weights, biases, strict=True)
        ]
        self.current = True

    def _logits(self, index: Tensor) -> Tensor:
        """(b, classes) of the samples `index` (b,)."""
        assert self.components is not None
        if self.samples.augmented:
            h = self.components.project(self.samples.batch(index)[0].flatten(1)).to(self.dtype)
        else:
            h = self.table.index_select(0, index)
        for bias, weight in self.factors[:-1]:
            h = torch.addmm(bias, h, weight)
            self.layers.activate(h, h)
        bias, weight = self.factors[-1]
        return torch.addmm(bias, h, weight)[:, : self.layers.classes]

    def state(self) -> dict[str, Any]:
        """Includes the followed weights: computing them again would round differently."""
        if self.components is None:
            return {}
        return {**self.components.state(), "first": self.first, "bias": self.bias}

    @torch.inference_mode()
    def restore(self, state: dict[str, Any]) -> None:
        if state:
            self._prepare(Components(state["mean"], state["basis"]))
            self.first.copy_(state["first"])
            self.bias.copy_(state["bias"])
