"""The store for replay: which of the presented samples are kept."""

from __future__ import annotations

from bisect import bisect_right

import torch
from torch import Tensor

from lazyexp.utils.seeding import generator


class Store:
    """Training samples kept for replay, at most `capacity` of them (None: unlimited).

    `mistakes` offers the misclassified samples for storage, `reservoir` and `balanced` offer all presented samples.
    Every training sample has a fixed random key. A full store keeps the offered samples with the smallest keys, so it
    is a uniform random sample without replacement of the distinct samples offered so far: sample i of n is in it with
    probability capacity / n, as with reservoir sampling (Vitter 1985). `balanced` does this within every class; a
    full store makes room by dropping the largest key of the class with most stored samples (class-balancing
    reservoir, Chrysakis & Moens 2020; GDumb, Prabhu et al. 2020).

    The content depends on the seed, on the offered samples and, where sizes are tied, on the order of the classes. A
    sample that was dropped for another one does not return when it is offered again. `added` counts the samples
    stored since `mark`, and `size_at_mark` is the size then.
    """

    def __init__(self, kind: str, capacity: int | None, targets: Tensor, classes: int, seed: int) -> None:
        self.kind, self.capacity, self.targets, self.classes = kind, capacity, targets, classes
        keys = torch.rand(len(targets), generator=generator(seed, "memory"), dtype=torch.float64)
        self.keys = keys.to(targets.device)
        self.stored = torch.zeros(len(targets), dtype=torch.bool, device=targets.device)
        self.added = self.size_at_mark = 0

    def __len__(self) -> int:
        """The number of stored samples; waits for a GPU."""
        return int(self.stored.sum())

    @property
    def index(self) -> Tensor:
        """The stored samples in ascending order: (k,) int64."""
        return self.stored.nonzero().squeeze(1)

    def offer(self, index: Tensor, wrong: Tensor) -> None:
        """Offer the presented samples `index` (b,), of which those in `wrong` (b,) bool were misclassified."""
        before = self.stored.clone()
        self.stored[index] |= wrong if self.kind == "mistakes" else True
        if self.capacity is not None:
            candidates = self.index
            if len(candidates) > self.capacity:
                self.stored[candidates[self._dropped(candidates, self.capacity)]] = False
        self.added += int((self.stored & ~before).sum())

    def _dropped(self, candidates: Tensor, capacity: int) -> Tensor:
        """Positions in `candidates` (k,) that do not fit into the capacity."""
        if self.kind != "balanced":
            return self.keys[candidates].argsort()[capacity:]
        labels = self.targets[candidates]
        quota = torch.tensor(_levelled(torch.bincount(labels, minlength=self.classes).tolist(), capacity))
        order = self.keys[candidates].argsort()
        order = order[labels[order].argsort(stable=True)]  # by class, then by key
        counts = torch.bincount(labels, minlength=self.classes)
        rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[labels[order]]
        return order[rank >= quota.to(order.device)[labels[order]]]

    def forget(self, index: Tensor, right: Tensor) -> None:
        """Drop those of the samples `index` (b,) that are in `right` (b,) bool."""
        self.stored[index] &= ~right

    def mark(self) -> None:
        """Count `added` from here."""
        self.added, self.size_at_mark = 0, len(self)

    def state(self) -> dict[str, Tensor | int]:
        """What a resumed run needs."""
        return {"stored": self.stored, "added": self.added, "size_at_mark": self.size_at_mark}

    def restore(self, state: dict[str, Tensor | int]) -> None:
        """Restore what `state` returned."""
        self.stored.copy_(torch.as_tensor(state["stored"]))
        self.added, self.size_at_mark = int(state["added"]), int(state["size_at_mark"])


def _levelled(counts: list[int], capacity: int) -> list[int]:
    """The sizes of classes after taking samples from the largest class, the first one of equals, until they fit."""
    level = bisect_right(range(max(counts) + 1), capacity, key=lambda size: _total(counts, size)) - 1
    rest = capacity - _total(counts, level)
    sizes = [min(count, level) for count in counts]
    for label in range(len(counts) - 1, -1, -1):  # one more for the last of the classes that are above the level
        if rest and counts[label] > level:
            sizes[label] += 1
            rest -= 1
    return sizes


def _total(counts: list[int], level: int) -> int:
    """Samples of all classes, cut to `level` each."""
    return sum(min(count, level) for count in counts)
