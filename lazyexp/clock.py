"""The clock of a run: what it leaves out, and what it makes of being stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds inside `with clock:`, less those inside `with clock.off():`.

    On a GPU it is read only after a synchronise, and `off` does nothing: two synchronisations for every update
    would cost more than what they leave out.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = self.left_out = 0.0
        self.suspended = False  # set by whoever notices that the process was stopped and goes on
        self._cuda = device if device.type == "cuda" else None

    def _now(self) -> float:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter()

    def __enter__(self) -> Clock:
        self._start, self._busy = self._now(), time.thread_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += self._now() - self._start
        if self.suspended:
            # While stopped (Ctrl-Z, SLURM's suspend) a process uses no processor; training uses it all the time.
            idle = max(time.perf_counter() - self._start - (time.thread_time() - self._busy), 0.0)
            self.seconds, self.left_out, self.suspended = self.seconds - idle, self.left_out + idle, False

    @contextmanager
    def off(self) -> Iterator[None]:
        if self._cuda is not None:
            yield
            return
        start = time.perf_counter()
        yield
        self.seconds -= time.perf_counter() - start
