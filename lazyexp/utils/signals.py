"""Signals that stop a run after its state is saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lazyexp.utils.terminal import log


class Interruption:
    """Context manager: the first signal is noted in `signal`, the second one ends the process at once.

    SIGINT is Ctrl-C; SIGTERM, SIGHUP and SIGUSR1 are sent by batch systems and closing terminals.

    Attributes:
        signal: Number of the signal that arrived, 0 if none.
        on_continue: Called when a suspended process continues (SIGCONT).
    """

    SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows lacks the last two
    MESSAGE = "saving and stopping; repeat the signal to quit at once"

    def __init__(self) -> None:
        self.signal = 0
        self.on_continue: Callable[[], None] = lambda: None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        handlers = dict.fromkeys(self.SIGNALS, self._handle) | {"SIGCONT": lambda *_: self.on_continue()}
        for name, handler in handlers.items():
            try:
                number = getattr(signal, name)
                self._former[number] = signal.signal(number, handler)
            except AttributeError:
                continue
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            # None: the former handler was not installed from Python and cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.signal:
            os._exit(128 + number)  # no file is ever half-written
        self.signal = number
        self.request_stop()

    def request_stop(self) -> None:
        """Called once, at the first signal."""
        with suppress(Exception):  # a closed or blocked terminal must not end the run
            log(self.MESSAGE)
