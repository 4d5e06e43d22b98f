"""A text that ships with Python, as windows of characters, and a small transformer that predicts the next one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor, nn

LETTERS = 64  # code 0 for all rare characters, then the 63 most frequent ones, the rarest of them first


def windows(length: int = 32, train: int = 8000, test: int = 2000) -> tuple[np.ndarray, ...]:
    """Windows (n, length) of the documentation of Python's own statements, and the characters that follow, (n,).

    The test windows are from the last fifth of the text, so that no character is in both parts.
    """
    from pydoc_data import topics

    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    # The most frequent character has the highest code: the largest training label defines the number of classes.
    frequent = [letter for letter, _ in Counter(text).most_common(LETTERS - 1)]
    codes_of = {letter: LETTERS - 1 - rank for rank, letter in enumerate(frequent)}
    codes = np.array([codes_of.get(letter, 0) for letter in text])
    border = len(codes) * 4 // 5
    rng = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    for start, stop, number in ((0, border, train), (border, len(codes), test)):
        starts = rng.choice(np.arange(start, stop - length), number, replace=False)
        parts += [codes[starts[:, None] + np.arange(length)], codes[starts + length]]
    return tuple(parts)


class Transformer(nn.Module):
    """Attention over a window of characters; the output is that of the last position."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.letters = nn.Embedding(classes, width)
        self.positions = nn.Parameter(0.02 * torch.randn(shape[0], width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, classes)

    def forward(self, codes: Tensor) -> Tensor:
        """(b, length) int64 to (b, classes)."""
        return self.out(self.body(self.letters(codes) + self.positions)[:, -1])
