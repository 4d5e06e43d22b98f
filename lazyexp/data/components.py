"""Inputs on principal components: most of an image's variance lies in a few directions, and products with them are
small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lazyexp.data.samples import PART, Samples
from lazyexp.errors import UserError
from lazyexp.utils.products import affine, matmul, outer
from lazyexp.utils.seeding import generator

# Samples from which the components are estimated, fewer if they do not fit into so many numbers.
SAMPLE, NUMBERS = 4096, 2**26
# Up to so many inputs the eigenvectors are computed exactly, beyond by subspace iteration with EXTRA directions.
EXACT, EXTRA, ITERATIONS = 256, 10, 2


@dataclass(frozen=True)
class Components:
    """Mean (d,) and orthonormal principal directions (d, k) of inputs; x is close to mean + basis projection(x)."""

    mean: Tensor
    basis: Tensor

    def project(self, inputs: Tensor) -> Tensor:
        """Coordinates basis^T (x - mean) of inputs (b, d): (b, k)."""
        return affine(inputs, self.basis.t(), -(self.mean @ self.basis))

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint saves: another machine may compute other directions."""
        return {"mean": self.mean, "basis": self.basis}


@torch.no_grad()
def principal_components(samples: Samples, count: int, key: str) -> Components:
    """The `count` directions of largest variance of the inputs, in falling order of variance.

    Estimated from at most 4,096 evenly spaced samples. Exact for up to 256 inputs, else by randomised subspace
    iteration (Halko, Martinsson & Tropp 2011, arXiv 0909.4061, algorithm 4.4).

    Args:
        samples: the training samples; augmentation of the current epoch included.
        count: number of components.
        key: the setting that asks for them, for errors.

    Raises:
        UserError: there are fewer inputs than components, or the inputs are tokens.
    """
    size = samples.pixels[0].numel() if not samples.augmented else samples.batch(_first(samples))[0].numel()
    if samples.pixels.dtype == torch.int64:
        raise UserError(f"{key}={count}: is for images and numbers, not for tokens")
    if not 0 < count <= size:
        raise UserError(f"{key}={count}: must be at most {size}, the inputs of a sample")
    number = max(min(len(samples), SAMPLE, NUMBERS // size), 1)
    index = torch.arange(number, device=samples.targets.device) * (len(samples) // number)
    inputs = samples.batch(index)[0].flatten(1)
    mean = inputs.mean(0)
    inputs.sub_(mean)
    if size <= max(EXACT, 2 * (count + EXTRA)):
        directions = torch.linalg.eigh(outer(inputs, inputs))[1]
        return Components(mean, directions[:, -count:].flip(1).contiguous())
    start = torch.randn(size, count + EXTRA, generator=generator(0, "components")).to(inputs)
    subspace = start
    for _ in range(ITERATIONS):
        subspace = torch.linalg.qr(outer(inputs, matmul(inputs, subspace)))[0]
    seen = matmul(inputs, subspace)
    rotation = torch.linalg.eigh(outer(seen, seen))[1]
    return Components(mean, (subspace @ rotation[:, -count:]).flip(1).contiguous())


def _first(samples: Samples) -> Tensor:
    return torch.zeros(1, dtype=torch.int64, device=samples.targets.device)


class ComponentSamples(Samples):
    """Samples whose inputs are their principal components (b, k).

    Without augmentation they are computed once, else for every batch.
    """

    def __init__(self, samples: Samples, components: Components) -> None:
        super().__init__(samples.pixels[:0], samples.targets, dtype=samples.dtype)
        self.original, self.label_smoothing = samples, samples.label_smoothing
        self.shape = (components.basis.shape[1],)
        self.restore(components.state())

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Project on the components of a checkpoint."""
        self.components = Components(state["mean"], state["basis"])
        original, self._rounded = self.original, None
        if original.augmented:
            self.pixels = original.pixels
            return
        self.pixels = original.targets.new_empty((len(original), *self.shape), dtype=self.dtype)
        for start in range(0, len(original), PART):
            inputs = original.part(start, start + PART)[0].flatten(1)
            self.pixels[start : start + PART] = self.components.project(inputs)

    @property
    def augmented(self) -> bool:
        return self.original.augmented

    def start_epoch(self, seed: int, epoch: int) -> None:
        self.original.start_epoch(seed, epoch)

    def bytes(self, index: Tensor) -> tuple[Tensor, Tensor]:
        if not self.augmented:
            return super().bytes(index)
        inputs, targets = self.original.batch(index)
        return self.components.project(inputs.flatten(1)), targets
