"""One named generator per source of randomness, so that runs that differ in one setting are matched in the rest."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def generator(seed: int, *name: str | int) -> torch.Generator:
    """Return a CPU generator seeded by `seed` and `name`, for example `generator(0, "order", epoch)`.

    With the epoch in its name a generator needs no saving: a resumed run creates it again.
    """
    text = "/".join(str(part) for part in (seed, *name))
    state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(state)


@contextmanager
def fixed_global_seed(seed: int) -> Iterator[None]:
    """Seed the global CPU generators of Python, NumPy and PyTorch; restore their states at the end."""
    import numpy as np  # imported late: LazyLoss and SpacedSampler need torch alone

    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
