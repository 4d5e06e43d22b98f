"""The clock of a run: what it leaves out, and what it makes of being stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds inside `with clock:`, less those inside `with clock.off():`.

    On a GPU the device itself notes when it comes by the beginning and the end of a block, and the host asks for
    these times, and waits for the last of them, only when somebody wants to know `seconds`. There `off` does nothing:
    energy is booked by the graphs that learn.
    """

    def __init__(self, device: torch.device) -> None:
        self._seconds = self.left_out = self._off = self._off_busy = 0.0
        self._cuda = device if device.type == "cuda" else None
        self._runs = self._is_off = self._suspended = False
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def seconds(self) -> float:
        """Waits for a GPU to come by the end of the last block."""
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
        """To be called when the process was stopped and goes on, by a signal's handler."""
        if self._runs and not self._is_off:  # else the stop has not been counted
            self._suspended = True

    def __enter__(self) -> Clock:
        self._start, self._busy = time.perf_counter(), time.thread_time()
        self._off = self._off_busy = 0.0
        self._runs = True
        if self._cuda is not None:
            self._spans.append((_passing(), _passing(now=False)))
        return self

    def __exit__(self, *error: object) -> None:
        self._runs = False
        counted = time.perf_counter() - self._start - self._off
        if self._cuda is None:
            self._seconds += counted
        else:
            self._spans[-1][1].record()
        if self._suspended:
            # While stopped (Ctrl-Z, SLURM's suspend) a process uses no processor; training uses it all the time.
            busy = time.thread_time() - self._busy - self._off_busy
            idle = min(max(counted - busy, 0.0), counted)
            self._seconds, self.left_out, self._suspended = self._seconds - idle, self.left_out + idle, False

    @contextmanager
    def off(self) -> Iterator[None]:
        if self._cuda is not None:
            yield
            return
        start, busy, self._is_off = time.perf_counter(), time.thread_time(), True
        yield
        self._is_off = False
        self._off += time.perf_counter() - start
        self._off_busy += time.thread_time() - busy


def _passing(now: bool = True) -> torch.cuda.Event:
    """An event with a time, that of the device's coming by here if `now`."""
    event = torch.cuda.Event(enable_timing=True)
    if now:
        event.record()
    return event
