"""One training run of a search or of its finals, and the folder that it belongs to."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lazyexp import experiment
from lazyexp.errors import UserError
from lazyexp.runs.folder import RunIsBusy
from lazyexp.settings import settings_of
from lazyexp.utils.files import make_folder
from lazyexp.utils.memory import is_out_of_memory

# Errors of the disk, which every other trial would meet, too.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class FolderIsBusy(Exception):
    """Another process is working in this folder."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: the result of its run, or the reason why there is none."""

    result: experiment.RunResult | None
    error: str = ""


def attempt(overrides: Sequence[str]) -> Outcome:
    """One run. Raises SystemExit with 128 + signal if it was interrupted, OSError if the disk is full."""
    try:
        result = experiment.run(settings_of(overrides))
    except UserError as error:
        return Outcome(None, str(error))
    except RunIsBusy as busy:
        return Outcome(None, f"another process is working on {busy}")
    except OSError as error:
        if error.errno in DISK:
            raise
        return Outcome(None, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return Outcome(None, f"out of memory: {' '.join(str(error).split())}")
    if result.status == "interrupted" or result.signal:
        raise SystemExit(128 + (result.signal or signal.SIGINT))
    return Outcome(result)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes out. Raises FolderIsBusy, UserError."""
    lock = FileLock(folder / ".lock")
    try:
        make_folder(folder)
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderIsBusy(f"{folder}: another lazyexp-tune is working in this folder") from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--folder {folder}: cannot write into it: {reason}") from None
    try:
        yield
    finally:
        lock.release()
