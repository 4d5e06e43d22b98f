"""A network, a rule and a data set as anybody might bring them along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from lazyexp.rules import Judged, Rule


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
    """The misclassified learn, and whoever is less sure than `threshold`."""

    threshold: float = 0.5

    def weigh(self, judged: Judged) -> Tensor:
        return judged.wrong | (judged.confidence < self.threshold)


def stripes(n: int = 600, size: int = 8) -> tuple[np.ndarray, ...]:
    """Noisy images, a bright row or a bright column: (n, size, size) uint8 and (n,); a quarter are for testing."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 120, (n, size, size)), np.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        place = rng.integers(size)
        image[(place, slice(None)) if label else (slice(None), place)] = 200
    border = n * 3 // 4
    images = images.astype(np.uint8)
    return images[:border], labels[:border], images[border:], labels[border:]
