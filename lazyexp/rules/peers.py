"""Published methods that skip samples, to be compared with every forward pass counted.

The defaults are those of the authors' code; what is different here is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.rules.base import Judged, Rule, RunInfo
from lazyexp.schema import setting
from lazyexp.seeding import generator


@dataclass
class TopLoss(Rule):
    """The q largest losses of the batch learn, their gradient divided by q: Ordered SGD (Kawaguchi & Lu 2020,
    arXiv 1907.04371).

    `q` 0 is the authors' schedule: the whole batch, then 1/2, 1/4, 1/8 and 1/16 of it once the training accuracy
    of an epoch was at least 80, 90, 95 and 99.5 %; it never grows again. `q` at least the batch size is backprop.
    Not as in their code: training accuracy is that of the samples as they were judged, not of a pass of its own at
    the end of the epoch, and at 99.5 % the learning rate stays what optimizer.schedule says (they divide it by ten).
    """

    reduction: ClassVar[str] = "selected"
    q: int = setting(0, at_least=0)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.right, self.seen = (torch.zeros((), dtype=torch.int64, device=info.device) for _ in range(2))
        self.halvings = torch.zeros((), dtype=torch.int64)

    def visit(self, epoch: int) -> Tensor:
        accuracy = int(self.right) / max(int(self.seen), 1)
        self.halvings.clamp_(min=sum(accuracy >= step for step in (0.8, 0.9, 0.95, 0.995)))
        self.number = self.q or max(self.info.batch_size >> int(self.halvings), 1)
        self.right.zero_()
        self.seen.zero_()
        return super().visit(epoch)

    def weigh(self, judged: Judged) -> Tensor:
        largest = judged.loss.topk(min(self.number, len(judged.targets))).indices
        return torch.zeros_like(judged.wrong).index_fill_(0, largest, True)

    def remember(self, judged: Judged) -> None:
        self.right += (~judged.wrong).sum()
        self.seen += len(judged.targets)

    def state(self) -> dict[str, Tensor]:
        return {"right": self.right, "seen": self.seen, "halvings": self.halvings}


@dataclass
class InfoBatch(Rule):
    """Each epoch drops, at random, a share `ratio` of the samples whose last loss is below the mean, and scales the
    gradients of those of them that stay by 1 / (1 - ratio), so that the expected gradient is unchanged (Qin et al.,
    InfoBatch, ICLR 2024, arXiv 2303.04947). `ratio` 0 is backprop.

    Nobody is dropped in epoch e = 0, 1, … of E if e + 1 > `anneal` * E: at 0.875 the last E / 8, rounded up, are
    whole. Not as in the authors' code: there the weights of the last pruned epoch stay on in the whole ones if
    `anneal` * E is no whole number; here they are 1, as the paper has it.
    """

    # Known before the forward pass.
    prior: ClassVar[bool] = True
    ratio: float = setting(0.5, at_least=0, at_most=0.9)
    anneal: float = setting(0.875, at_least=0, at_most=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.full((info.samples,), 3.0, device=info.device)  # all alike: nobody is below the mean

    def visit(self, epoch: int) -> Tensor:
        order = super().visit(epoch).to(self.info.device)
        self.weight = torch.ones_like(self.last_loss)
        if epoch + 1 > self.anneal * self.info.epochs:
            return order
        draw = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        easy = (self.last_loss < self.last_loss.mean()).nonzero().squeeze(1)
        shuffled = easy[draw.to(self.info.device)[easy].argsort()]
        kept = int((1 - self.ratio) * len(easy))
        self.weight[shuffled[:kept]] = 1 / (1 - self.ratio)
        dropped = torch.zeros_like(self.weight, dtype=torch.bool).index_fill_(0, shuffled[kept:], True)
        return order[~dropped[order]]

    def weigh(self, judged: Judged) -> Tensor:
        return self.weight[judged.index]

    def remember(self, judged: Judged) -> None:
        self.last_loss[judged.index] = judged.loss.float()

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss}


@dataclass
class Kakurenbo(Rule):
    """Each epoch hides those of the F lowest losses that were right with a softmax of at least `sure`. The others
    learn 1 / (1 - F) as fast, however many are hidden; the hidden ones are forwarded at the end of the epoch to
    refresh their loss (Nguyen et al., KAKURENBO, NeurIPS 2023, arXiv 2310.10102). `fraction` 0 is backprop.

    F is `fraction`, times 0.8, 0.6 and 0.4 from 30, 60 and 80 % of the epochs on: the authors' steps at epochs 60,
    120 and 160 of 200, which are also those of their learning rate. The first epoch, their warm-up, is backprop's.
    Not as in their code: faster learning is a weight on the gradient, which for plain SGD is the same as a larger
    rate; and the softmax is over classes, as the paper has it (theirs is over the samples of the batch).
    """

    # Known before the forward pass.
    prior: ClassVar[bool] = True
    # In the batch in which the shown and the hidden meet, the shown are divided by their own number.
    reduction: ClassVar[str] = "selected"
    fraction: float = setting(0.3, at_least=0, below=1)
    sure: float = setting(0.7, at_least=0, at_most=1)

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.full((info.samples,), float("inf"), device=info.device)
        self.certain = torch.zeros(info.samples, dtype=torch.bool, device=info.device)

    def visit(self, epoch: int) -> Tensor:
        order = super().visit(epoch).to(self.info.device)
        steps = sum(10 * epoch >= tenths * self.info.epochs for tenths in (3, 6, 8))
        fraction = self.fraction * (1.0, 0.8, 0.6, 0.4)[steps] if epoch else 0.0
        lowest = self.last_loss.topk(int(fraction * len(order)), largest=False).indices
        hidden = torch.zeros_like(self.certain).index_fill_(0, lowest, True) & self.certain
        self.weight = torch.where(hidden, 0.0, 1 / (1 - fraction))
        return torch.cat([order[~hidden[order]], order[hidden[order]]])

    def weigh(self, judged: Judged) -> Tensor:
        return self.weight[judged.index]

    def remember(self, judged: Judged) -> None:
        self.last_loss[judged.index] = judged.loss.float()
        self.certain[judged.index] = ~judged.wrong & (judged.confidence >= self.sure)

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss, "certain": self.certain}
