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
        self.seconds = self.left_out = self._off = 0.0
        self._cuda = device if device.type == "cuda" else None
        self._runs = self._is_off = self._suspended = False

    def _now(self) -> float:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter()

    def continued(self) -> None:
        """To be called when the process was stopped and goes on, by a signal's handler."""
        if self._runs and not self._is_off:  # else the stop has not been counted
            self._suspended = True

    def __enter__(self) -> Clock:
        self._start, self._busy, self._off = self._now(), time.thread_time(), 0.0
        self._runs = True
        return self

    def __exit__(self, *error: object) -> None:
        self._runs = False
        counted = self._now() - self._start - self._off
        if self._suspended:
            # While stopped (Ctrl-Z, SLURM's suspend) a process uses no processor; training uses it all the time.
            idle = min(max(counted - (time.thread_time() - self._busy), 0.0), counted)
            counted, self.left_out, self._suspended = counted - idle, self.left_out + idle, False
        self.seconds += counted

    @contextmanager
    def off(self) -> Iterator[None]:
        if self._cuda is not None:
            yield
            return
        start, self._is_off = time.perf_counter(), True
        yield
        self._is_off = False
        self._off += time.perf_counter() - start
