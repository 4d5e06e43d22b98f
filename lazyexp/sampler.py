"""Spaced review in people's own training loops: samples that are surely right sleep, so that nobody loads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, IterableDataset, Sampler

from lazyexp.loss import confidence, is_wrong
from lazyexp.utils.seeding import generator


class Indexed(Dataset):
    """A map-style data set whose items come with their index: item i is `(i, dataset[i])`.

    So a batch says itself which samples it holds, whoever loaded it and in whatever order. Raises TypeError for an
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
        """A whole batch, which some data sets fetch at once; DataLoader asks for it."""
        together = getattr(self.dataset, "__getitems__", None)
        items = together(list(index)) if together else [self.dataset[i] for i in index]
        return list(zip(index, items, strict=True))


class SpacedSampler(Sampler[int]):
    """Leaves out of an epoch the samples that sleep; the spacing of `rule=spaced` for a DataLoader of one's own.

    Three lines change in a loop:

        loader = DataLoader(Indexed(train), batch_size=64, sampler=SpacedSampler(len(train)))
        for epoch in range(10):
            for index, (x, y) in loader:
                logits = model(x)
                ...
                loader.sampler.update(index, logits, y)

    A sample that `update` finds right, with a largest softmax of at least `threshold` (0: being right is enough; 1:
    nobody ever sleeps), sleeps for 1, 2, 4, ... epochs, at most `max_interval`, then comes again; one that is wrong
    or hesitant is in the next epoch. With `sure` below 1 a sample with at least that softmax sleeps `max_interval`
    epochs at once. A sample that `update` is not told of stays awake. An epoch may have nobody awake.

    `order`: an existing sampler of indices, whose order is kept; None: shuffled anew in every epoch, by `seed` and
    the number of the epoch alone. An epoch begins with every `iter(loader)`, or with `set_epoch`, as
    torch.utils.data.DistributedSampler has it. `len` is that of the epoch that goes on, so it differs from epoch to
    epoch.

    Under torch.distributed every process gets its share of an epoch's samples, none of them two processes, all
    shares as long (up to one sample less than there are processes may have to wait for the next epoch); what they
    have learned of the samples is merged when an epoch begins, so all processes must begin it.

    Raises ValueError for options out of range, TypeError for a DistributedSampler as `order`.
    """

    def __init__(
        self,
        samples: int,
        max_interval: int = 8,
        threshold: float = 0.9,
        sure: float = 1.0,
        order: Iterable[int] | None = None,
        seed: int = 0,
    ) -> None:
        if samples < 0:
            raise ValueError(f"samples={samples}: must be the number of samples of the data set")
        if not 1 <= max_interval <= 2**30:  # epochs are counted in 32 bits, and a sleep is doubled before it is cut
            raise ValueError(f"max_interval={max_interval}: must be from 1 to 2^30")
        for name, value in (("threshold", threshold), ("sure", sure)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must be from 0 to 1")
        if isinstance(order, DistributedSampler):
            raise TypeError("SpacedSampler shares out among processes itself: leave the DistributedSampler out")
        self.samples, self.max_interval, self.threshold, self.sure = samples, max_interval, threshold, sure
        self.order, self.seed = order, seed
        self.epoch = -1  # none has begun
        # Epochs that a sample sleeps after the next time it is right, and when it comes again.
        self.interval = torch.ones(samples, dtype=torch.int32)
        self.due = torch.zeros(samples, dtype=torch.int32)
        self._awake: Tensor | None = None  # of the epoch that goes on, for all processes together, in order
        self._waiting = False  # an epoch has begun, and nobody has iterated over it yet
        self._told: list[tuple[Tensor, Tensor, Tensor]] = []  # not looked at yet: a GPU need not be waited for
        self._unmerged = torch.zeros(samples, dtype=torch.bool)

    def set_epoch(self, epoch: int) -> None:
        """Begins this epoch, or what is left of it if it is the one that goes on. Raises ValueError if it is past."""
        if epoch < self.epoch:
            raise ValueError(f"epoch={epoch} is past (this is {self.epoch}): samples sleep until an epoch's number")
        if epoch != self.epoch or not self._waiting:
            self._begin(epoch)

    def __iter__(self) -> Iterator[int]:
        if not self._waiting:
            self._begin(self.epoch + 1)
        assert self._awake is not None
        self._waiting = False
        rank, processes = _process()
        yield from self._awake[rank::processes].tolist()

    def __len__(self) -> int:
        """Samples of the epoch that goes on, or else of the coming one, for this process."""
        if self._awake is not None:
            return len(self._awake) // _process()[1]
        self._look()
        return int((self.due <= self.epoch + 1).sum()) // _process()[1]

    def _begin(self, epoch: int) -> None:
        self.merge()
        if self.order is None:
            order = torch.randperm(self.samples, generator=generator(self.seed, "order", epoch))
        else:
            order = self._agreed(torch.as_tensor(list(self.order), dtype=torch.int64))
        awake = order[self.due[order] <= epoch]
        too_many = len(awake) % _process()[1]
        if too_many:  # another one waits in every epoch, whatever the order
            waits = (epoch * too_many + torch.arange(too_many)) % len(awake)
            awake = awake[torch.ones(len(awake), dtype=torch.bool).index_fill_(0, waits, False)]
        self._awake, self.epoch, self._waiting = awake, epoch, True

    def _agreed(self, order: Tensor) -> Tensor:
        """The order of the first process: in the others, chance may have drawn another one."""
        if _process()[1] == 1:
            return order
        orders = [order]
        dist.broadcast_object_list(orders)
        return orders[0]

    @torch.no_grad()
    def update(self, index: Tensor, logits: Tensor, targets: Tensor, ignore_index: int = -100) -> None:
        """Tells how samples were judged. index (n,), logits (n, classes, ...), targets as for nn.CrossEntropyLoss.

        Of a sample with several targets (n, ...) all must be right, and the least sure one counts. Does not wait for
        a GPU. Raises ValueError if the three do not fit.
        """
        if len(index) != len(logits) or logits.ndim < 2:
            raise ValueError(
                f"{len(index)} indices for logits of shape {tuple(logits.shape)}: must be (n, classes, ...)"
            )
        wrong, counted = is_wrong(logits, targets, ignore_index)
        largest = confidence(logits)
        learned = (wrong | ~(largest >= self.threshold)) & counted if self.threshold < 1 else counted
        sure = (largest >= self.sure) | ~counted if self.sure < 1 else torch.zeros_like(learned)
        self.update_selected(index, _per_sample(learned).any(1), _per_sample(sure).all(1))

    def update_selected(self, index: Tensor, learned: Tensor, sure: Tensor | None = None) -> None:
        """Tells what `update` cannot judge. index; learned: stays awake; sure: sleeps longest; all (n,)."""
        index, learned = torch.as_tensor(index), torch.as_tensor(learned)
        sure = torch.zeros_like(learned) if sure is None else torch.as_tensor(sure)
        self._told.append((index.detach(), learned.detach(), sure.detach()))

    def _look(self) -> None:
        """The spacing itself; see `remember` in lazyexp/rules/mistakes.py."""
        for told in self._told:
            index, learned, sure = (values.cpu() for values in told)
            sleep = self.interval[index].masked_fill(sure, self.max_interval)
            self.due[index] = self.epoch + 1 + torch.where(learned, 0, sleep).int()
            longer = (2 * sleep).clamp_max(self.max_interval)
            self.interval[index] = torch.where(learned, 1, longer).int()
            self._unmerged[index] = True
        self._told.clear()

    def merge(self) -> None:
        """Exchanges what the processes of torch.distributed were told since the last time; all of them must call it.

        It happens by itself when an epoch begins; call it before `state_dict` if one process saves for all.
        """
        self._look()
        processes = _process()[1]
        if processes > 1:
            index = self._unmerged.nonzero().squeeze(1)
            parts: list[Any] = [None] * processes
            dist.all_gather_object(parts, (index, self.interval[index], self.due[index]))
            for index, interval, due in parts:
                self.interval[index], self.due[index] = interval, due
        self._unmerged.zero_()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed loop needs; in the midst of an epoch it goes on with those not yet told of."""
        self._look()
        left = torch.zeros(0, dtype=torch.int64) if self._awake is None else self._awake
        left = left[self.due[left] <= self.epoch]
        return {"epoch": self.epoch, "interval": self.interval.clone(), "due": self.due.clone(), "left": left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave. Raises ValueError if it is of another data set."""
        if len(state["due"]) != self.samples:
            raise ValueError(f"this state is of {len(state['due'])} samples, not of {self.samples}")
        self.epoch = int(state["epoch"])
        self.interval, self.due = state["interval"].cpu().clone(), state["due"].cpu().clone()
        left = state["left"].cpu()
        left = left[: len(left) - len(left) % _process()[1]]
        self._told.clear()
        self._unmerged.zero_()
        self._waiting = len(left) > 0
        self._awake = left if self._waiting else None


def _process() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _per_sample(values: Tensor) -> Tensor:
    """(n, ...) as (n, all targets of a sample)."""
    return values.unsqueeze(-1).flatten(1)
