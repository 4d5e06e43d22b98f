"""Reading ahead of the training: samples that are on disk come into the page cache in a thread."""

from __future__ import annotations

import threading

from torch import Tensor

from lazyexp.data.pieces import rows_at_once

WINDOW = 2**26  # numbers that are read ahead
PIECE = 2**21


class ReadAhead:
    """Touches the rows of a memory-mapped array in the order in which they will be needed, a window ahead.

    When a batch needs the rows they are read again, from the page cache, so batches may be of any kind.
    """

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels
        shape = tuple(pixels.shape[1:])
        self._window, self._piece = rows_at_once(shape, WINDOW), rows_at_once(shape, PIECE)
        self._changed = threading.Condition()
        self._used = self._generation = 0
        self._thread: threading.Thread | None = None

    def start(self, rows: Tensor) -> None:
        """Read `rows` (m,) in this order from now on."""
        self.stop()
        self._used = 0
        self._thread = threading.Thread(
            target=self._read, args=(rows, self._generation), daemon=True, name="read ahead"
        )
        self._thread.start()

    def advance(self, samples: int) -> None:
        """So many further rows have been used."""
        with self._changed:
            self._used += samples
            self._changed.notify()

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._generation += 1
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _read(self, rows: Tensor, generation: int) -> None:
        for start in range(0, len(rows), self._piece):
            with self._changed:
                while self._generation == generation and start >= self._used + self._window:
                    self._changed.wait()
                if self._generation != generation:
                    return
                needed = start + self._piece > self._used
            if needed:
                self._pixels.index_select(0, rows[start : start + self._piece])
