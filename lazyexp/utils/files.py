"""Files that are whole at any time, and on the disk when it is said that they are."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes beside and renames: a reader finds the old file or the new one, never a part. Raises OSError."""
    content = io.BytesIO()  # torch.save turns a full disk into an error of its own
    write(content)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as stream:
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
        fsync(path.parent)
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)  # a write alone does not say which file is meant
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As `atomic_write`, in UTF-8; what cannot be written in it, such as half of a file's odd name, becomes `?`."""
    atomic_write(path, lambda stream: stream.write(text.encode(errors="replace")))


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, and forces their names to disk: what is forced into it can be found."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    with suppress(PermissionError):  # a folder that may be written into and not read
        fsync(path.parent)


def fsync(path: Path) -> None:
    """Forces a file, or the names in a folder, to disk: nothing that is written later outlives it in a power cut."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network file systems cannot force names
            raise
    finally:
        os.close(number)
