"""A custom network, rule and data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from lazyexp.rules import Rule, ScoredBatch


class Net(nn.Module):
    """One convolution with BatchNorm, and a linear layer."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 8) -> None:
        super().__init__()
        channels, height, columns = shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * height * columns, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@dataclass
class HalfLazy(Rule):
    """Select misclassified samples and those with a largest softmax below `threshold`."""

    threshold: float = 0.5

    def select(self, batch: ScoredBatch) -> Tensor:
        return batch.wrong | (batch.confidence < self.threshold)


def stripes(n: int = 600, size: int = 8) -> tuple[np.ndarray, ...]:
    """Noisy images of a bright row or a bright column: (n, size, size) uint8 and (n,); a quarter are test images."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 120, (n, size, size)), np.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        position = rng.integers(size)
        image[(position, slice(None)) if label else (slice(None), position)] = 200
    border = n * 3 // 4
    images = images.astype(np.uint8)
    return images[:border], labels[:border], images[border:], labels[border:]
