"""What a training says of its samples besides who learned: scores by which coresets are chosen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules import ScoredBatch


class Scores:
    """For every training sample, from how it was judged whenever it was presented; nothing is forwarded for it.

    `forgotten` (n,) int: how often it was misclassified after having been right the time before (forgetting events;
    Toneva et al. 2019, arXiv 1812.05159). `el2n` (n,) float: the length of softmax - onehot when it was last
    presented (EL2N; Paul et al. 2021, arXiv 2107.07075, who take the mean of ten networks early in training: ten
    short runs, and `dataset.subset` with wildcards, which takes their mean).
    """

    def __init__(self, samples: int, device: torch.device) -> None:
        self.was_right = torch.zeros(samples, dtype=torch.bool, device=device)
        self.forgotten = torch.zeros(samples, dtype=torch.int32, device=device)
        self.el2n = torch.zeros(samples, device=device)

    def add(self, judged: ScoredBatch) -> None:
        """Books what was presented; no sample may be in it twice."""
        index, wrong = judged.index, judged.wrong
        self.forgotten[index] += (self.was_right[index] & wrong).int()
        self.was_right[index] = ~wrong
        onehot = F.one_hot(judged.targets, judged.logits.shape[1])
        self.el2n[index] = (judged.logits.softmax(1) - onehot).norm(dim=1).float()

    def state(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("was_right", "forgotten", "el2n")}

    def restore(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)
