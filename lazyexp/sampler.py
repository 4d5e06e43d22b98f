"""Spaced review for custom training loops: samples that are confidently right are not loaded for some epochs.

Imports torch alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, IterableDataset, Sampler

from lazyexp.loss import is_wrong, per_sample
from lazyexp.rules.scores import confidence
from lazyexp.rules.spacing import Spacing
from lazyexp.utils.distributed import rank_and_size
from lazyexp.utils.seeding import generator


class Indexed(Dataset[tuple[int, Any]]):
    """A map-style data set whose items come with their index: item i is `(i, dataset[i])`.

    So a batch tells which samples it holds, whichever worker loaded it and in whatever order. Raises TypeError for an
    IterableDataset, whose samples have no index.
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise TypeError(f"Indexed needs a data set with a length and an index, not {type(dataset).__name__}")
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]

    def __getitems__(self, index: Sequence[int]) -> list[tuple[int, Any]]:
        """The items of a whole batch; DataLoader calls it, and some data sets fetch a batch in one go."""
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(list(index)) if fetch else [self.dataset[i] for i in index]
        return list(zip(index, items, strict=True))


class SpacedSampler(Sampler[int]):
    """A sampler that skips confidently right samples for growing numbers of epochs: `rule=spaced` for any DataLoader.

    Three lines of a loop change:

        loader = DataLoader(Indexed(train), batch_size=64, sampler=SpacedSampler(len(train)))
        for epoch in range(10):
            for index, (x, y) in loader:
                logits = model(x)
                ...
                loader.sampler.update(index, logits, y)

    A sample that `update` finds right, with a largest softmax of at least `threshold`, is skipped for 1, 2, 4, ...
    epochs, at most `max_interval`. A wrong or less confident sample is presented in the next epoch, and so is one
    that `update` does not report. An epoch may be empty.

    An epoch begins with every `iter(loader)`, or with `set_epoch` as in torch.utils.data.DistributedSampler. `len` is
    the length of the current epoch and differs from epoch to epoch.

    With torch.distributed each process gets its share of an epoch's samples. No sample is in two shares, and all
    shares have the same length, so up to one sample less than there are processes is left for the next epoch. What
    the processes report is merged when an epoch begins; all of them must begin it.

    Args:
        samples: Size of the training set.
        threshold: Least confidence of a skipped sample (0: right is enough; 1: no sample is skipped).
        skip_threshold: Below 1, a right sample with at least this confidence is skipped for `max_interval` epochs at
            once.
        order: A sampler of indices whose order is kept; None: shuffled by `seed` and the number of the epoch.
        shard: With torch.distributed, give each process its share. False: give all samples to all processes, in the
            same order, for a loader that shards by itself (accelerate).

    Raises:
        ValueError: An option is out of range.
        TypeError: `order` is a DistributedSampler.
    """

    def __init__(
        self,
        samples: int,
        max_interval: int = 8,
        threshold: float = 0.9,
        skip_threshold: float = 1.0,
        order: Iterable[int] | None = None,
        seed: int = 0,
        shard: bool = True,
    ) -> None:
        if samples < 0:
            raise ValueError(f"samples={samples}: must be the number of samples of the data set")
        if (
            not 1 <= max_interval <= 2**30
        ):  # epochs are counted in 32 bits, and an interval is doubled before it is capped
            raise ValueError(f"max_interval={max_interval}: must be from 1 to 2^30")
        for name, value in (("threshold", threshold), ("skip_threshold", skip_threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must be from 0 to 1")
        if isinstance(order, DistributedSampler):
            raise TypeError("SpacedSampler shares samples among processes itself: remove the DistributedSampler")
        self.samples, self.threshold, self.skip_threshold = samples, threshold, skip_threshold
        self.order, self.seed, self.shard = order, seed, shard
        self.spacing = Spacing(samples, max_interval)
        self.epoch = -1  # none has begun
        self._active: Tensor | None = None  # samples of the current epoch, of all processes, in order
        self._waiting = False  # an epoch has begun, and its iteration has not
        self._exhausted = False
        self._reports: list[tuple[Tensor, Tensor, Tensor]] = []  # not read yet, so that a GPU is not waited for
        self._forget()

    def _forget(self) -> None:
        """Clear what was reported in this epoch: (samples,) bool each. A sample can be reported several times."""
        self._reported, self._selected, self._hesitant = torch.zeros(3, self.samples, dtype=torch.bool)

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch, or the rest of it if it is the current one. Raises ValueError if it is past."""
        if epoch < self.epoch:
            raise ValueError(f"epoch={epoch} is past (the current one is {self.epoch}): epochs cannot be repeated")
        if epoch != self.epoch or not self._waiting:
            self._begin(epoch)

    def __iter__(self) -> Iterator[int]:
        return _Epoch(self)

    def __len__(self) -> int:
        """Samples of the current epoch, or of the first one, for this process."""
        if self._active is not None:
            return len(self._active) // self._share()[1]
        return int((self._planned().next_epoch <= self.epoch + 1).sum()) // self._share()[1]

    def _start(self) -> list[int]:
        """Begin the iteration of an epoch. Returns this process's samples, in order."""
        if not self._waiting:
            self._begin(self.epoch + 1)
        assert self._active is not None
        self._waiting = False
        rank, processes = self._share()
        samples: list[int] = self._active[rank::processes].tolist()
        return samples

    def _continue(self, left: list[int]) -> None:
        """An iterator continues the current epoch with the samples `left` of this process."""
        self._waiting = False
        self._active = torch.tensor(left * self._share()[1], dtype=torch.int64)

    def _share(self) -> tuple[int, int]:
        """The number of this process's share, and the number of shares."""
        return rank_and_size() if self.shard else (0, 1)

    def _begin(self, epoch: int) -> None:
        self.merge()
        self._warn_of_double_sharding()
        self.spacing = self._planned()
        self._forget()
        if self.order is None:
            order = torch.randperm(self.samples, generator=generator(self.seed, "order", epoch))
        else:
            order = _agreed(torch.as_tensor(list(self.order), dtype=torch.int64))
        active = self.spacing.active(order, epoch)
        surplus = len(active) % self._share()[1]
        if surplus:  # other samples are left out in every epoch, whatever the order
            left_out = (epoch * surplus + torch.arange(surplus)) % len(active)
            active = active[torch.ones(len(active), dtype=torch.bool).index_fill_(0, left_out, False)]
        self._active, self.epoch, self._waiting, self._exhausted = active, epoch, True, False

    def _warn_of_double_sharding(self) -> None:
        reported = int(self._reported.sum())
        sharded = self._share()[1] > 1 and self._exhausted
        if sharded and self._active is not None and 0 < reported <= 0.6 * len(self._active):
            warnings.warn(
                f"SpacedSampler: only {reported} of the {len(self._active)} samples of epoch {self.epoch} were "
                "reported by update(). If another library shards the loader, too, set SpacedSampler(shard=False)",
                stacklevel=2,
            )

    @torch.no_grad()
    def update(self, index: Tensor, logits: Tensor, targets: Tensor, ignore_index: int = -100) -> None:
        """Report a scored batch: index (n,), logits (n, classes, ...), targets as for nn.CrossEntropyLoss.

        A sample with several targets is right if all of them are; the least confidence counts. Does not wait for a
        GPU. Raises ValueError if the shapes do not fit.
        """
        if len(index) != len(logits) or logits.ndim < 2:
            raise ValueError(
                f"{len(index)} indices for logits of shape {tuple(logits.shape)}: must be (n, classes, ...)"
            )
        wrong, counted = is_wrong(logits, targets, ignore_index)
        largest = confidence(logits)
        selected = (wrong | ~(largest >= self.threshold)) & counted if self.threshold < 1 else counted
        confident = (largest >= self.skip_threshold) | ~counted
        if self.skip_threshold == 1:
            confident = torch.zeros_like(selected)
        self.update_selected(index, per_sample(selected).any(1), per_sample(confident).all(1))

    def update_selected(self, index: Tensor, selected: Tensor, confident: Tensor | None = None) -> None:
        """Report a batch whose selection is known, such as `criterion.selected` of `LazyLoss`; (n,) each.

        selected: presented in the next epoch. confident: skipped for `max_interval` epochs at once if not selected.
        """
        index, selected = torch.as_tensor(index), torch.as_tensor(selected)
        confident = torch.zeros_like(selected) if confident is None else torch.as_tensor(confident)
        self._reports.append((index.detach(), selected.detach(), confident.detach()))

    def _read_reports(self) -> None:
        for report in self._reports:
            index, selected, confident = (values.cpu() for values in report)
            self._mark(index.long(), selected.bool(), ~confident.bool())
        self._reports.clear()

    def _mark(self, index: Tensor, selected: Tensor, hesitant: Tensor) -> None:
        self._reported[index] = True
        # Accumulated, which for bool is a logical or: a sample reported twice is skipped only if both allow it.
        self._selected.index_put_((index,), selected, accumulate=True)
        self._hesitant.index_put_((index,), hesitant, accumulate=True)

    def _planned(self) -> Spacing:
        """The spacing after this epoch's reports."""
        self._read_reports()
        spacing, index = deepcopy(self.spacing), self._reported.nonzero().squeeze(1)
        spacing.update(index, self._selected[index], self.epoch, ~self._hesitant[index])
        return spacing

    def merge(self) -> None:
        """Exchange the reports of all processes of torch.distributed; all of them must call it.

        Every epoch begins with it. Call it before `state_dict` if one process saves for all.
        """
        self._read_reports()
        processes = rank_and_size()[1]
        if processes > 1:
            index = self._reported.nonzero().squeeze(1)
            parts: list[Any] = [None] * processes
            dist.all_gather_object(parts, (index, self._selected[index], self._hesitant[index]))
            for part in parts:
                self._mark(*part)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed loop needs. Within an epoch, the resumed one presents the samples not reported yet."""
        spacing = self._planned()
        left = torch.zeros(0, dtype=torch.int64) if self._active is None else self._active
        return {"epoch": self.epoch, **spacing.state(), "left": left[~self._reported[left]]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError if it belongs to something else."""
        missing = {"epoch", "left", *Spacing.STATE} - set(state)
        if missing:
            raise ValueError(f"not a state of SpacedSampler: {', '.join(sorted(missing))} missing")
        if len(state["next_epoch"]) != self.samples:
            raise ValueError(f"this state is of {len(state['next_epoch'])} samples, not of {self.samples}")
        self.epoch = int(state["epoch"])
        self.spacing.restore({name: state[name].clone() for name in Spacing.STATE})
        left = state["left"].cpu()
        left = left[: len(left) - len(left) % self._share()[1]]
        self._reports.clear()
        self._forget()
        self._waiting, self._exhausted = len(left) > 0, False
        self._active = left if self._waiting else None


class _Epoch(Iterator[int]):
    """An epoch's samples of one process. It begins with the first sample, so an unused iterator has no effect.

    torchdata's StatefulDataLoader saves and restores it together with the sampler.
    """

    def __init__(self, sampler: SpacedSampler) -> None:
        self._sampler = sampler
        self._left: list[int] | None = None  # in reverse; None: not begun

    def __next__(self) -> int:
        if self._left is None:
            self._left = self._sampler._start()[::-1]
        if not self._left:
            self._sampler._exhausted = True
            raise StopIteration
        return self._left.pop()

    def state_dict(self) -> dict[str, Any]:
        """The samples not handed out yet, in order; None before the first one."""
        return {"left": None if self._left is None else self._left[::-1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the samples that `state_dict` returned."""
        if state["left"] is not None:
            self._left = list(state["left"])[::-1]
            self._sampler._continue(self._left)


def _agreed(order: Tensor) -> Tensor:
    """The order of the first process: the others may have drawn another one."""
    if rank_and_size()[1] == 1:
        return order
    orders = [order]
    dist.broadcast_object_list(orders)
    return orders[0]
