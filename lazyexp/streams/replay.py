"""When the stored samples are presented again, and in which order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazyexp.config.streams import MemoryConfig
from lazyexp.streams.store import Store
from lazyexp.utils.seeding import generator

# Samples of the stream between two checks of memory.growth.
GROWTH_CHECK = 512
COUNTERS = ("presented", "number", "position", "passes")


class Replay:
    """Fills a store from the presented samples, and replays it as `memory.replay_every` or `memory.growth` says.

    A replay is `memory.replay_epochs` passes over the store, each in a new random order that depends on the seed and
    on the number of passes before. It starts after every `replay_every` samples of the stream, at the next border of
    a batch; or once the samples stored since the last replay exceed the share `growth` of the store's size then,
    which is checked after every 512 samples of the stream.
    """

    def __init__(self, config: MemoryConfig, store: Store, seed: int) -> None:
        self.config, self.store, self.seed = config, store, seed
        self.order: Tensor | None = None  # of the current pass
        self.presented = 0  # samples of the stream
        self.number = 0  # passes so far, this one included
        self.position = self.passes = 0  # in the current pass, and passes left after it

    @property
    def active(self) -> bool:
        """Whether the next samples come from the store."""
        return self.order is not None

    def limit(self) -> int | None:
        """Samples of the stream to present before the next check; None: any number."""
        every = self.config.replay_every or (GROWTH_CHECK if self.config.growth is not None else None)
        return None if every is None else every - self.presented % every

    def next(self, size: int) -> Tensor:
        """The next samples of the replay, `size` at most."""
        assert self.order is not None
        return self.order[self.position : self.position + size]

    def offer(self, index: Tensor, wrong: Tensor) -> None:
        """Store what is to be stored of the samples `index` (b,) of the stream, and start a replay if one is due."""
        before, self.presented = self.presented, self.presented + len(index)
        self.store.offer(index, wrong)
        if self._is_due(before):
            self.store.mark()
            self.passes = self.config.replay_epochs
            self._start_pass()

    def _is_due(self, before: int) -> bool:
        config, store = self.config, self.store
        if config.replay_every is not None:
            return self.presented // config.replay_every > before // config.replay_every
        if config.growth is None or self.presented // GROWTH_CHECK == before // GROWTH_CHECK:
            return False
        return store.added > 0 and store.added >= config.growth * store.size_at_mark

    def replayed(self, index: Tensor, wrong: Tensor) -> None:
        """Advance behind the samples `index` (b,), which the replay has presented."""
        if self.config.forget:
            self.store.forget(index, ~wrong)
        assert self.order is not None
        self.position += len(index)
        if self.position >= len(self.order):
            self._start_pass()

    def _start_pass(self) -> None:
        """Begin the next pass, or end the replay."""
        index = self.store.index
        self.position = 0
        if not self.passes or not len(index):
            self.order, self.passes = None, 0
            return
        self.passes, self.number = self.passes - 1, self.number + 1
        order = torch.randperm(len(index), generator=generator(self.seed, "replay", self.number))
        self.order = index[order.to(index.device)]

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        counters = {name: getattr(self, name) for name in COUNTERS}
        return {"store": self.store.state(), "order": self.order, **counters}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.store.restore(state["store"])
        self.order = state["order"]
        for name in COUNTERS:
            setattr(self, name, state[name])
