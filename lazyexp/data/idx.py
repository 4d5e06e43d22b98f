"""Reader of the IDX format of MNIST; damaged files are refused with the reason."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from lazyexp.errors import UserError
from lazyexp.utils.memory import require

# Third byte of the magic number: the type of the entries, stored big-endian.
TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

# The largest compression ratio of deflate, the method of gzip and zip files.
INFLATES = 1032


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file, plain or gzipped. Raises UserError if the file is damaged."""
    advice = "delete it and fetch it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES:
                raise UserError(f"{path} is not an IDX file (wrong magic number); {advice}")
            dimensions, entry = head[3], np.dtype(TYPES[head[2]])
            sizes = stream.read(4 * dimensions)
            shape = tuple(int(count) for count in np.frombuffer(sizes, ">u4", len(sizes) // 4))
            expected = 4 + 4 * dimensions + math.prod(shape) * entry.itemsize
            if dimensions > 4 or 0 in shape:
                raise UserError(f"{path}: its header names {dimensions} dimensions of sizes {shape[:6]}; {advice}")
            # Checked before anything is unpacked; no more is unpacked than the header states.
            short = len(shape) != dimensions or dimensions == 0 or size * (INFLATES if packed else 1) < expected
            if not short:
                require(2 * expected, f"{path}", "take fewer samples")
            content = b"" if short else stream.read(expected - 4 - len(sizes) + 1)
            length = min(4 + len(sizes) + len(content), expected + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}); {advice}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if short or length < expected:
        raise UserError(f"{path} is truncated: {size} bytes, its header asks for {expected}; {advice}")
    if length > expected:
        raise UserError(f"{path} is too long: its header asks for {expected} bytes; {advice}")
    values = np.frombuffer(content, entry).reshape(shape)
    return values.astype(entry.newbyteorder("="))
