"""The start of every command: Ctrl-C ends it without a traceback even while its modules are being imported."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def _start() -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


def _run(command: Callable[[], object]) -> NoReturn:
    """What a command does not catch by itself, because it had hardly begun or is about to end, ends here."""
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def main() -> NoReturn:
    """The command `lazyexp`."""
    _start()
    from lazyexp.cli import main as command

    _run(command)


def report() -> NoReturn:
    """The command `lazyexp-report`."""
    _start()
    from lazyexp.report.cli import main as command

    _run(command)


def tune() -> NoReturn:
    """The command `lazyexp-tune`."""
    _start()
    from lazyexp.tune.cli import main as command

    _run(command)


if __name__ == "__main__":
    main()
