"""What a user sees of a run: the bar while it goes on, the table at its end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm as tqdm

from lazyexp.runs.columns import CROSSING

# None: no bar where there is no terminal; a notebook is none and shows bars all the same.
NO_BAR = False if "ipykernel" in sys.modules else None


def log(message: str) -> None:
    """A line to the user, beside the bar and apart from the results on stdout."""
    tqdm.write(f"lazyexp: {message}", file=sys.stderr)


class Bar:
    """Progress over the presented samples, with accuracy and share of samples that learn, as they are judged.

    Where there is no terminal it is a line after ten seconds, and then one a minute.
    """

    def __init__(self, total: int, done: int, title: str) -> None:
        self._title = title
        self._bar = tqdm(
            total=total, initial=done, desc=title, unit="sample", unit_scale=True, leave=False, disable=NO_BAR
        )
        self._correct, self._learned = 0.0, 0.0
        self._weight = 0.0
        self._done, self._next_line = done, time.monotonic() + 10

    def advance(self, samples: int, correct: int, learned: int) -> None:
        if self._bar.disable:
            self._done += samples
            if time.monotonic() > self._next_line:
                self._next_line = time.monotonic() + 60
                share = f"{self._done / self._bar.total:.1%}" if self._bar.total else "?"
                log(f"{self._title}: {self._done:,} samples presented ({share})")
            return
        # An exponential mean over the last few chunks; the sums fade together, so their ratio is unbiased.
        self._weight = 0.9 * self._weight + samples
        self._correct = 0.9 * self._correct + correct
        self._learned = 0.9 * self._learned + learned
        accuracy, learning = self._correct / self._weight, self._learned / self._weight
        self._bar.set_postfix_str(f"accuracy {accuracy:.1%}, learning {learning:.2%}", refresh=False)
        self._bar.update(samples)

    def close(self) -> None:
        self._bar.close()


class Interruption:
    """Turns the first signal to stop into a wish to stop at the next border; the second one quits at once.

    SIGINT is Ctrl-C; SIGTERM, SIGHUP and SIGUSR1 are what batch systems and closing terminals send. `on_continue` is
    called when a suspended process goes on.
    """

    SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows lacks the last two

    def __init__(self) -> None:
        self.signal = 0
        self.on_continue: Callable[[], None] = lambda: None

    def __enter__(self) -> Interruption:
        self._former = {}
        handlers = {name: self._handle for name in self.SIGNALS} | {"SIGCONT": lambda *_: self.on_continue()}
        for name, handler in handlers.items():
            try:
                number = getattr(signal, name)
                self._former[number] = signal.signal(number, handler)
            except AttributeError:
                continue
            except ValueError:  # not in the main thread: somebody else handles signals
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.signal:
            os._exit(128 + number)  # every file is whole at any time
        self.signal = number
        log("stopping as soon as everything is saved; again to quit at once")


def table(summary: dict[str, Any]) -> str:
    """The final figures of a run as lines of text."""

    def number(key: str) -> float:
        return float(summary.get(key) or 0)

    def share(key: str, of: str) -> str:
        return f"{number(key):,.0f} ({number(key) / max(number(of), 1):.2%})"

    lines = [
        ("test accuracy", f"{number('test_accuracy'):.2%} (best {number('best_test_accuracy'):.2%})"),
        ("training seconds", f"{number('train_seconds'):.2f}"),
        ("samples presented", f"{number('samples_seen'):,.0f}"),
        ("samples forwarded", f"{number('forward_samples'):,.0f}"),
        ("samples learned from", share("backward_samples", "samples_seen")),
        ("  distinct", share("distinct_learned", "train_size")),
        ("updates", share("updates", "updates_possible")),
    ]
    if summary.get("val_accuracy"):
        lines.insert(1, ("validation accuracy", f"{number('val_accuracy'):.2%}"))
    if summary.get("energy_l1"):
        for norm in ("l1", "l0"):
            spent, least = number(f"energy_{norm}"), number(f"energy_{norm}_min")
            ratio = f", {spent / least:.3g} times the direct path" if least else ""
            lines.append((f"energy M{norm[1]}", f"{spent:.4g}{ratio}"))
    for key in summary:
        if key.startswith("seconds_to_"):
            lines.append(_crossing(summary, key.removeprefix("seconds_to_")))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)


def _crossing(summary: dict[str, Any], target: str) -> tuple[str, str]:
    title = f"to {float(target):.2%}".replace("0%", "%").replace(".%", "%")
    values: dict[str, Any] = {name: summary.get(f"{name}_to_{target}") for name in CROSSING}
    if not values["seconds"]:
        return title, "not reached"
    return title, (
        f"{float(values['seconds']):.2f} s, {int(values['samples']):,} samples, "
        f"{int(values['backward']):,} learned from, {int(values['updates']):,} updates"
    )


def show_end(title: str, report: Any, place: str = "") -> int:
    """Prints how a run ended: a table, or one line if it has a `place` in a sweep. Returns the exit code."""
    before = f"{report.status} before" if report.repeated else report.status
    interrupted = report.status == "interrupted"
    if place and not interrupted:
        row = report.summary
        print(
            f"{place} {title}: {before}, {float(row['test_accuracy']):.2%}, {float(row['train_seconds']):.2f} s, "
            f"{int(row['backward_samples']):,} learned from, {int(row['updates']):,} updates, {report.folder.name}",
            flush=True,
        )
        return 0
    print(f"{title}: {before}{'; overwrite=true does it again' if report.repeated else ''}")
    if report.summary.get("test_accuracy"):
        print(table(report.summary))
    print(f"  {report.folder}")
    if interrupted:
        print("  the same command goes on from here")
        return 128 + (report.signal or signal.SIGINT)
    return 0
