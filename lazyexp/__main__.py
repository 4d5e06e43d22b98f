"""Entry points of the commands. Ctrl-C ends them without a traceback, even while modules are being imported."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # as typing has it, without its import: Ctrl-C is not caught yet
if TYPE_CHECKING:
    from typing import NoReturn


def _prepare() -> None:
    """What every command needs before its modules are imported."""
    _exit_on_interrupt()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, as in `lazyexp >&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        os.getcwd()
    except OSError as error:
        print(f"lazyexp: error: the current directory: {error.strerror}; change to another one", file=sys.stderr)
        sys.exit(2)


def _exit_on_interrupt() -> None:
    """Let Ctrl-C end the process with exit code 130, except where a run in progress saves first.

    A KeyboardInterrupt can be raised where it prints a traceback or aborts: in destructors, in callbacks, while a C
    extension is imported. All files are written atomically, so nothing needs cleaning up.
    """

    def leave(*_: object) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            try:  # noqa: SIM105  # contextlib is not imported, for the same reason
                stream.flush()
            except Exception:  # closed, or in the middle of a write
                pass
        os._exit(130)

    signal.signal(signal.SIGINT, leave)


def main() -> NoReturn:
    """Run the command `lazyexp`."""
    _prepare()
    from lazyexp.cli import main as command

    command()


def report() -> NoReturn:
    """Run the command `lazyexp-report`."""
    _prepare()
    from lazyexp.report.cli import main as command

    command()
    sys.exit(0)


def tune() -> NoReturn:
    """Run the command `lazyexp-tune`."""
    _prepare()
    from lazyexp.tune.cli import main as command

    command()
    sys.exit(0)


if __name__ == "__main__":
    main()
