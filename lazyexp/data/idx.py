"""The IDX format of MNIST: reading it whole or saying exactly what is wrong with it."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from lazyexp.errors import UserError

# Third byte of the magic number: the type of the entries, stored big-endian.
TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, plain or gzipped. Raises UserError if it is not exactly one."""
    mend = "delete it and fetch it again"
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); {mend}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise UserError(f"{path} is not an IDX file (wrong magic number); {mend}")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], ">u4", len(content[4:start]) // 4))
    entry = np.dtype(TYPES[content[2]])
    expected = start + math.prod(shape) * entry.itemsize
    if dimensions > 4 or 0 in shape:
        raise UserError(f"{path}: its header names {dimensions} dimensions of sizes {shape[:6]}; {mend}")
    if len(shape) != dimensions or dimensions == 0 or len(content) != expected:
        problem = "truncated" if len(content) < expected or len(shape) != dimensions else "too long"
        raise UserError(f"{path} is {problem}: {len(content)} bytes, its header asks for {expected}; {mend}")
    values = np.frombuffer(content, entry, offset=start).reshape(shape)
    return values.astype(entry.newbyteorder("="))
