"""Scores of training samples, by which coresets are chosen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules import ScoredBatch


class Scores:
    """Scores of every training sample, computed from the logits by which it was scored; needs no extra forward pass.

    `forgotten` (n,) int: how often the sample was misclassified after it had been classified correctly when it was
    presented before (forgetting events; Toneva et al. 2019, arXiv 1812.05159). `el2n` (n,) float: length of
    softmax - onehot when it was last presented (EL2N; Paul et al. 2021, arXiv 2107.07075). They take the mean of ten
    networks early in training: ten short runs, and `dataset.subset` with wildcards, which takes their mean.
    """

    NAMES = ("was_right", "forgotten", "el2n")

    def __init__(self, samples: int, device: torch.device) -> None:
        self.was_right = torch.zeros(samples, dtype=torch.bool, device=device)
        self.forgotten = torch.zeros(samples, dtype=torch.int32, device=device)
        self.el2n = torch.zeros(samples, device=device)

    def add(self, batch: ScoredBatch) -> None:
        """Update the scores of the presented samples; no sample may occur twice."""
        index, wrong = batch.index, batch.wrong
        self.forgotten[index] += (self.was_right[index] & wrong).int()
        self.was_right[index] = ~wrong
        onehot = F.one_hot(batch.targets, batch.logits.shape[1])
        self.el2n[index] = (batch.logits.softmax(1) - onehot).norm(dim=1).float()

    def state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.NAMES}

    def restore(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)
