"""Progress and messages on the terminal."""

from __future__ import annotations

import sys
import time

from tqdm.auto import tqdm as tqdm

# Value of tqdm's `disable`. None: no bar without a terminal. A notebook has no terminal but shows bars.
NO_BAR = False if "ipykernel" in sys.modules else None


def log(message: str) -> None:
    """Write a line to stderr, without breaking a progress bar."""
    tqdm.write(f"lazyexp: {message}", file=sys.stderr)


class Bar:
    """Progress over the presented samples, with accuracy and share of selected samples before each update.

    Without a terminal: one line after ten seconds, then one per minute.

    Args:
        total: Samples of the whole run.
        done: Samples presented by earlier sessions.
        title: Name of what is in progress.
    """

    def __init__(self, total: int, done: int, title: str) -> None:
        self._title = title
        self._bar = tqdm(
            total=total, initial=done, desc=title, unit="sample", unit_scale=True, leave=False, disable=NO_BAR
        )
        self._correct, self._selected = 0.0, 0.0
        self._weight = 0.0
        self._done, self._next_line = done, time.monotonic() + 10

    def advance(self, samples: int, correct: int, selected: int) -> None:
        """Add `samples` presented samples, of which `correct` and `selected` were correct and selected."""
        if self._bar.disable:
            self._done += samples
            if time.monotonic() > self._next_line:
                self._next_line = time.monotonic() + 60
                share = f"{self._done / self._bar.total:.1%}" if self._bar.total else "?"
                log(f"{self._title}: {self._done:,} samples presented ({share})")
            return
        # Exponential moving averages. All three sums decay together, so their ratios are unbiased.
        self._weight = 0.9 * self._weight + samples
        self._correct = 0.9 * self._correct + correct
        self._selected = 0.9 * self._selected + selected
        accuracy, selected_share = self._correct / self._weight, self._selected / self._weight
        self._bar.set_postfix_str(f"accuracy {accuracy:.1%}, selected {selected_share:.2%}", refresh=False)
        self._bar.update(samples)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
