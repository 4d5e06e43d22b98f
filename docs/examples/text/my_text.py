"""Next-character prediction, through lazyexp's doors: a text that ships with Python, and a small transformer."""

from __future__ import annotations

import math
import pydoc_data.topics

import numpy as np
import torch
from torch import Tensor, nn


def windows(length: int = 32, train: int = 60_000, test: int = 10_000) -> tuple[np.ndarray, ...]:
    """Windows of `length` characters (n, length) and the character after each (n,), from Python's help texts.

    The text is cut in two before windows are drawn, nine parts to train and one to test, so that no test window
    overlaps a training window. Characters outside printable ASCII become a space. The text differs a little between
    versions of Python.
    """
    text = "\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    tokens = np.where((codes >= 32) & (codes < 127), codes - 31, 0).astype(np.int64)  # 0: a new line and all else
    border = len(tokens) * 9 // 10
    rng = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    for part, number in ((tokens[:border], train), (tokens[border:], test)):
        starts = rng.choice(len(part) - length, number, replace=False)
        parts += [part[starts[:, None] + np.arange(length)], part[starts + length]]
    return tuple(parts)


class Transformer(nn.Module):
    """Characters (b, length) int64 to logits (b, classes) of the next one, read off the last place.

    PyTorch's encoder layers, normalised first; every place sees the whole window, all of which is past. No dropout.
    """

    def __init__(
        self, shape: tuple[int], classes: int, width: int = 64, depth: int = 2, heads: int = 4, letters: int = 96
    ) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, width)
        self.places = nn.Parameter(torch.randn(shape[0], width) / math.sqrt(width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.encoder(self.letters(x) + self.places)[:, -1]))
