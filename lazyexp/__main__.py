"""The start of every command: Ctrl-C ends it without a traceback even while its modules are being imported."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def _start() -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


def _imported() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> NoReturn:
    """The command `lazyexp`."""
    _start()
    from lazyexp.cli import main as command

    _imported()
    command()


def report() -> None:
    """The command `lazyexp-report`."""
    _start()
    from lazyexp.report.cli import main as command

    _imported()
    command()


def tune() -> NoReturn:
    """The command `lazyexp-tune`."""
    _start()
    from lazyexp.tune.cli import main as command

    _imported()
    command()


if __name__ == "__main__":
    main()
