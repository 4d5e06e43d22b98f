"""Published methods that skip samples, to be compared with every forward pass counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.rules.base import Judged, Rule, RunInfo
from lazyexp.seeding import generator


def _require(condition: bool, name: str, value: float, wanted: str) -> None:
    if not condition:
        raise UserError(f"rule.{name}={value}: must be {wanted}")


@dataclass
class TopLoss(Rule):
    """The q largest losses of the batch learn: Ordered SGD (Kawaguchi & Lu 2020, arXiv 1907.04371).

    `q` 0 is the paper's schedule: the whole batch, then 1/2, 1/4, 1/8 and 1/16 of it once the training accuracy
    of the last epoch is at least 80, 90, 95 and 99.5 %. `q` at least the batch size is backprop. The paper
    divides by q: optimizer.reduction=selected.
    """

    q: int = 0

    def check(self) -> None:
        _require(self.q >= 0, "q", self.q, "at least 0 (0: the published schedule)")

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.right, self.seen = (torch.zeros((), dtype=torch.int64, device=info.device) for _ in range(2))

    def visit(self, epoch: int) -> Tensor:
        accuracy = int(self.right) / max(int(self.seen), 1)
        halvings = sum(accuracy >= step for step in (0.8, 0.9, 0.95, 0.995))
        self.number = self.q or max(self.info.batch_size >> halvings, 1)
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
        return {"right": self.right, "seen": self.seen}


@dataclass
class SelectiveBackprop(Rule):
    """A sample learns with probability CDF(loss)^beta, the CDF being that of the last `history` losses, its own
    batch included (Jiang et al. 2019, arXiv 1910.00762, section 3). `beta` 0 is backprop; 2 and 3 are usual.
    """

    beta: float = 1.0
    history: int = 1024

    def check(self) -> None:
        _require(0 <= self.beta < float("inf"), "beta", self.beta, "a number from 0 up")
        _require(self.history >= 1, "history", self.history, "at least 1")

    def start(self, info: RunInfo) -> None:
        super().start(info)
        # A ring; places not yet filled hold infinity and count for nothing.
        self.losses = torch.full((self.history,), float("inf"), device=info.device)
        self.count = torch.zeros((), dtype=torch.int64)

    def visit(self, epoch: int) -> Tensor:
        draws = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        self.draw = draws.to(self.info.device)
        return super().visit(epoch)

    def weigh(self, judged: Judged) -> Tensor:
        loss, before = judged.loss.float(), int(self.count)
        newest = loss[-self.history :]
        places = (torch.arange(len(newest), device=loss.device) + before) % self.history
        self.losses[places] = newest
        self.count += len(newest)
        filled = min(before + len(newest), self.history)
        # searchsorted counts the losses at most as large; unfilled places are larger than any loss.
        at_most = torch.searchsorted(self.losses.sort().values, loss, right=True).clamp_max(filled)
        return self.draw[judged.index] < (at_most / filled) ** self.beta

    def state(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "count": self.count}


@dataclass
class InfoBatch(Rule):
    """Each epoch drops a random share `ratio` of the samples whose last loss is below the mean and scales the
    gradients of those of them that stay by 1 / (1 - ratio), so that the expected gradient is unchanged; from
    `anneal` of the epochs on nobody is dropped (Qin et al., InfoBatch, ICLR 2024). `ratio` 0 is backprop.
    """

    prior: ClassVar[bool] = True
    ratio: float = 0.5
    anneal: float = 0.875

    def check(self) -> None:
        _require(0 <= self.ratio < 1, "ratio", self.ratio, "from 0 to below 1")
        _require(0 <= self.anneal <= 1, "anneal", self.anneal, "from 0 to 1")

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.ones(info.samples, device=info.device)  # all alike: nobody is below the mean

    def visit(self, epoch: int) -> Tensor:
        order = super().visit(epoch).to(self.info.device)
        self.weight = torch.ones_like(self.last_loss)
        if epoch >= self.anneal * self.info.epochs:
            return order
        draw = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        easy = self.last_loss < self.last_loss.mean()
        self.weight[easy] = 1 / (1 - self.ratio)
        dropped = easy & (draw.to(self.info.device) < self.ratio)
        return order[~dropped[order]]

    def weigh(self, judged: Judged) -> Tensor:
        return self.weight[judged.index]

    def remember(self, judged: Judged) -> None:
        self.last_loss[judged.index] = judged.loss.float()

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss}


@dataclass
class Kakurenbo(Rule):
    """Each epoch hides those of the `fraction` lowest losses that were right with a softmax of at least `sure`
    (Nguyen et al., KAKURENBO, NeurIPS 2023). The others learn 1 / (1 - hidden share) as fast; the hidden ones are
    forwarded at the end of the epoch to refresh their loss. `fraction` 0 is backprop.

    Faster learning is a weight on the gradient here, which for plain SGD is the same as a larger learning rate.
    The paper lowers the fraction in steps over a long training; here it is constant.
    """

    prior: ClassVar[bool] = True
    fraction: float = 0.3
    sure: float = 0.7

    def check(self) -> None:
        _require(0 <= self.fraction < 1, "fraction", self.fraction, "from 0 to below 1")
        _require(0 <= self.sure <= 1, "sure", self.sure, "from 0 to 1")

    def start(self, info: RunInfo) -> None:
        super().start(info)
        self.last_loss = torch.full((info.samples,), float("inf"), device=info.device)
        self.certain = torch.zeros(info.samples, dtype=torch.bool, device=info.device)

    def visit(self, epoch: int) -> Tensor:
        order = super().visit(epoch).to(self.info.device)
        lowest = self.last_loss.topk(int(self.fraction * len(order)), largest=False).indices
        hidden = torch.zeros_like(self.certain).index_fill_(0, lowest, True) & self.certain
        share = int(hidden.sum()) / len(order)
        self.weight = torch.where(hidden, 0.0, 1 / (1 - share))
        return torch.cat([order[~hidden[order]], order[hidden[order]]])

    def weigh(self, judged: Judged) -> Tensor:
        return self.weight[judged.index]

    def remember(self, judged: Judged) -> None:
        self.last_loss[judged.index] = judged.loss.float()
        self.certain[judged.index] = ~judged.wrong & (judged.confidence >= self.sure)

    def state(self) -> dict[str, Tensor]:
        return {"last_loss": self.last_loss, "certain": self.certain}
