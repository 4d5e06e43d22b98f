"""A clock of training seconds that leaves out bookkeeping and the time in which the process is suspended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Seconds inside `with clock:`, without those inside `with clock.off():`.

    On a GPU, CUDA events time the start and the end of every block, and the host waits for them only when `seconds`
    is read. `off` then has no effect: the energy is computed inside the captured graphs.
    """

    def __init__(self, device: torch.device) -> None:
        self._seconds = self.left_out = self._off = self._off_busy = 0.0
        self._cuda = device if device.type == "cuda" else None
        self._runs = self._is_off = self._suspended = False
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def seconds(self) -> float:
        """Seconds so far. On a GPU this waits for the end of the last block."""
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
        """Note that the process was suspended and continues; called by the handler of SIGCONT."""
        if self._runs and not self._is_off:  # otherwise the suspended time was not counted
            self._suspended = True

    def __enter__(self) -> Clock:
        self._start, self._busy = time.perf_counter(), time.thread_time()
        self._off = self._off_busy = 0.0
        self._runs = True
        if self._cuda is not None:
            self._spans.append((_event(), _event(record=False)))
        return self

    def __exit__(self, *error: object) -> None:
        self._runs = False
        counted = time.perf_counter() - self._start - self._off
        if self._cuda is None:
            self._seconds += counted
        else:
            self._spans[-1][1].record()
        if self._suspended:
            # A suspended process (Ctrl-Z, SLURM) uses no processor time; training uses it all the time.
            busy = time.thread_time() - self._busy - self._off_busy
            idle = min(max(counted - busy, 0.0), counted)
            self._seconds, self.left_out, self._suspended = self._seconds - idle, self.left_out + idle, False

    @contextmanager
    def off(self) -> Iterator[None]:
        """Do not count the seconds inside this block (on a CPU)."""
        if self._cuda is not None:
            yield
            return
        start, busy, self._is_off = time.perf_counter(), time.thread_time(), True
        yield
        self._is_off = False
        self._off += time.perf_counter() - start
        self._off_busy += time.thread_time() - busy


def _event(record: bool = True) -> torch.cuda.Event:
    """A CUDA event with a time; recorded now if `record`."""
    event = torch.cuda.Event(enable_timing=True)
    if record:
        event.record()
    return event
