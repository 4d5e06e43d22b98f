"""Progress of a parallel sweep, shown by the process that started it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from lazyexp.utils.terminal import NO_BAR, duration, tqdm

INTERVAL = 0.3  # seconds between two looks at the results


class SweepDisplay:
    """Context manager that prints the `text` of every result, and shows how many runs have ended.

    Args:
        results: Returns all results so far.
        total: Number of runs.
    """

    def __init__(self, results: Callable[[], list[dict[str, Any]]], total: int) -> None:
        self._results, self._total, self._shown = results, total, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._bar = tqdm(total=total, leave=False, bar_format="{desc}", disable=NO_BAR)
        self._began = time.monotonic()

    def __enter__(self) -> SweepDisplay:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._bar.close()

    def _watch(self) -> None:
        while True:
            last = self._ended.wait(INTERVAL)
            self._show()
            if last:
                return

    def _show(self) -> None:
        for result in self._results()[self._shown :]:
            self._shown += 1
            if result.get("text"):
                tqdm.write(result["text"], file=sys.stdout)
        sys.stdout.flush()
        left = ""
        if self._shown:
            seconds = (time.monotonic() - self._began) * (self._total - self._shown) / self._shown
            left = f", {duration(seconds)} left"
        self._bar.bar_format = f"sweep: {{bar:10}} {self._shown} of {self._total} runs ended{left}"
        self._bar.update(self._shown - self._bar.n)
        self._bar.refresh()
