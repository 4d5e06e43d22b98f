"""Progress and messages on the terminal."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field

from tqdm.auto import tqdm as tqdm

# Value of tqdm's `disable`. None: no bar without a terminal. A notebook has no terminal but shows bars.
NO_BAR = False if "ipykernel" in sys.modules else None


def log(message: str) -> None:
    """Write a line to stderr, without breaking a progress bar."""
    tqdm.write(f"lazyexp: {message}", file=sys.stderr)


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours if there are any: `0:12`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass
class Position:
    """Where a run is in its sweep: number `number` of `total`; `title` names the settings in which it differs.

    `seconds`: wall-clock durations of the runs that the sweep has done so far, by which the time left is estimated.
    `parallel`: other runs of the sweep may be running at the same time.
    """

    number: int
    total: int
    title: str = ""
    seconds: list[float] = field(default_factory=list)
    parallel: bool = False

    def __str__(self) -> str:
        return f"[{self.number}/{self.total}]"

    def seconds_left(self, run_left: float, run_total: float) -> float | None:
        """Estimated seconds left of the sweep, None if runs are done in parallel.

        The runs to come count as long as those done on average, or as the present one if it is the first.
        """
        if self.parallel:
            return None
        mean = sum(self.seconds) / len(self.seconds) if self.seconds else run_total
        return run_left + mean * (self.total - self.number)


@dataclass(frozen=True)
class Layout:
    """What a bar shows besides accuracies.

    The bar itself, words in full, shares (of the run that is done, of samples selected), the run's time left.
    """

    bar: bool = False
    words: bool = False
    shares: bool = False
    run_left: bool = False


# From wide to narrow terminals.
LAYOUTS = (
    Layout(bar=True, words=True, shares=True, run_left=True),
    Layout(words=True, shares=True, run_left=True),
    Layout(shares=True, run_left=True),
    Layout(shares=True),
    Layout(),
)


class Bar:
    """Progress of a run: epoch, running accuracy, last test accuracy, share of selected samples, time left.

    The running accuracy is that of the training samples before each update, averaged over the last ones presented.
    Without a terminal: one line after ten seconds, then one per minute.

    Args:
        epochs: Length of the run.
        done: Epochs that earlier sessions have done, with fraction.
        title: Name of the run.
        position: Where the run is in its sweep. Parallel runs have no bar.

    Attributes:
        test_accuracy: The last one measured.
    """

    def __init__(self, epochs: int, done: float, title: str, position: Position | None = None) -> None:
        self.test_accuracy: float | None = None
        self._epochs, self._first, self._done, self._title, self._position = epochs, done, done, title, position
        self._parallel = position is not None and position.parallel
        self._bar = tqdm(
            total=epochs, initial=done, leave=False, bar_format="{desc}", disable=True if self._parallel else NO_BAR
        )
        self._correct = self._selected = self._weight = 0.0
        self._began = time.monotonic()
        self._next_line = self._began + 10

    def advance(self, epoch: float, samples: int, correct: int, selected: int) -> None:
        """Continue to `epoch`. Of `samples` presented samples, `correct` and `selected` were correct and selected."""
        # Exponential moving averages. All three sums decay together, so their ratios are unbiased.
        self._weight = 0.9 * self._weight + samples
        self._correct = 0.9 * self._correct + correct
        self._selected = 0.9 * self._selected + selected
        new, self._done = epoch - self._done, epoch
        if not self._bar.disable:
            self._bar.bar_format = self._layout(shutil.get_terminal_size().columns - 1)
            self._bar.update(new)
        elif time.monotonic() > self._next_line and not (self._parallel and sys.stderr.isatty()):
            self._next_line = time.monotonic() + 60
            log(self._text(LAYOUTS[1]))

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def _layout(self, room: int) -> str:
        """The most informative text that fits into `room` columns, as a format of tqdm's."""
        texts = (self._text(layout) for layout in LAYOUTS)
        width = len("{bar:10}") - 10  # a bar of ten columns
        fitting = (text for text in texts if len(text) - width * ("{bar:10}" in text) <= room)
        narrow = self._text(LAYOUTS[-1])
        return next(fitting, self._text(LAYOUTS[-1], max(len(narrow) - room, 0)))

    def _text(self, layout: Layout, excess: int = 0) -> str:
        """One line. `excess`: columns by which the name of the run is shortened."""
        epoch = min(int(self._done) + 1, self._epochs)
        title = self._title[: max(len(self._title) - excess, 4)]
        head = f"{self._position} " * (self._position is not None) + f"{title}, epoch {epoch}/{self._epochs}"
        percent = f": {'{bar:10} ' * layout.bar}{self._done / self._epochs:.0%}"
        parts = [head + percent * layout.shares]
        weight, word = max(self._weight, 1), " accuracy" * layout.words
        parts.append(f"training{word} (running) {self._correct / weight:.1%}")
        if self.test_accuracy is not None:
            parts.append(f"test{word} {self.test_accuracy:.1%}")
        if layout.shares:
            parts.append(f"selected {self._selected / weight:.2%}")
        return ", ".join([*parts, *self._left(layout)])

    def _left(self, layout: Layout) -> list[str]:
        """Time left of the run and of its sweep; of the run alone outside of a sweep."""
        progress = self._done - self._first
        if progress <= 0:
            return []
        speed = (time.monotonic() - self._began) / progress  # seconds per epoch
        left = speed * (self._epochs - self._done)
        whole = self._position.seconds_left(left, speed * self._epochs) if self._position else None
        found = [f"{duration(left)} left"] if layout.run_left or whole is None else []
        return found if whole is None else [*found, f"sweep {duration(whole)}{' left' * layout.shares}"]
