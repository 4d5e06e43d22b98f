"""Atomic, durable file writes: write to a temporary file, fsync, rename."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# fsync is not implemented by the file system (network, FUSE).
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
# Besides, directories that cannot be opened for reading, or only files that can be synced.
UNSUPPORTED_FOR_FOLDERS = UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that readers find the old content or the new one, never a part.

    Args:
        path: File to create or replace.
        write: Writes the content to a binary stream.

    Raises:
        OSError: With `filename` set.
    """
    content = io.BytesIO()  # torch.save would turn a full disk into a RuntimeError
    write(content)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.getbuffer())
            stream.flush()
            with _ignored(UNSUPPORTED):
                os.fsync(stream.fileno())
        os.replace(temporary, path)
        fsync(path.parent)
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As `atomic_write`, in UTF-8; characters that it cannot encode (surrogates of file names) become `?`."""
    atomic_write(path, lambda stream: stream.write(text.encode(errors="replace")))


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and force their names to disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to disk, where the file system can.

    Raises:
        OSError: The path is missing, or the device failed.
    """
    with _ignored(UNSUPPORTED_FOR_FOLDERS if path.is_dir() else UNSUPPORTED):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _ignored(numbers: frozenset[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
