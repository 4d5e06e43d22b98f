"""One named generator per source of randomness, so that runs that differ in one setting are matched in the rest."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *name: str | int) -> torch.Generator:
    """Return a CPU generator seeded by `seed` and `name`, for example `generator(0, "order", epoch)`.

    With the epoch in its name a generator needs no saving: a resumed run creates it again.
    """
    text = "/".join(str(part) for part in (seed, *name))
    state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(state)
