"""The clock of a run: training time, without bookkeeping and without time in which the process was suspended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Sums up the seconds inside `with clock:`, except those inside `with clock.off():`.

    On a GPU the seconds are those between two events of the device, read when `seconds` is asked for. There `off`
    has no effect: energy bookkeeping is a part of the captured graphs.

    Attributes:
        suspended: Seconds that were subtracted because the process was suspended.
    """

    def __init__(self, device: torch.device) -> None:
        self._seconds = self.suspended = 0.0
        self._cuda = device if device.type == "cuda" else None
        self._running = self._continued = False
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def seconds(self) -> float:
        """Waits for the GPU to reach the end of the last block."""
        if self._spans:
            torch.cuda.synchronize(self._cuda)
            self._seconds += sum(start.elapsed_time(end) for start, end in self._spans) / 1000
            self._spans.clear()
        return self._seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._seconds = value
        self._spans.clear()

    def continued(self) -> None:
        """Call when the process continues after it was suspended (SIGCONT)."""
        self._continued = self._running

    def __enter__(self) -> Clock:
        if self._cuda is not None:
            self._spans.append((_event(), _event()))
            self._spans[-1][0].record()
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        if self._cuda is not None:
            self._spans[-1][1].record()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Exclude the time inside."""
        interrupts = self._running and self._cuda is None
        if interrupts:
            self._stop()
        yield
        if interrupts:
            self._start()

    def _start(self) -> None:
        self._running = True
        self._began, self._busy = time.perf_counter(), time.thread_time()

    def _stop(self) -> None:
        elapsed = time.perf_counter() - self._began
        self._running = False
        if self._cuda is None:
            self._seconds += elapsed
        if self._continued:
            # A suspended process (Ctrl-Z, SLURM) uses no processor time; training uses it all the time.
            idle = max(elapsed - (time.thread_time() - self._busy), 0.0)
            self._seconds, self.suspended, self._continued = self._seconds - idle, self.suspended + idle, False


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)
