"""Memory: how much is available, and whether an error means that there was too little."""

from __future__ import annotations

import re
from pathlib import Path

from lazyexp.errors import UserError

# Errors of allocation by PyTorch's allocators and by CUDA's libraries. The word memory alone is not enough: "illegal
# memory access" and "memory format" are other errors.
OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to|unable to) allocate|ALLOC(ATION)?_FAILED"
    r"|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory could not be allocated, on the host or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None


def available() -> float:
    """Bytes of memory that a process can still allocate; infinity where the system does not report it."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return float("inf")


def require(size: float, what: str, fix: str) -> None:
    """Check that `size` bytes are available.

    Args:
        size: Bytes needed.
        what: What needs them, for the error.
        fix: What the user can do, for the error.

    Raises:
        UserError: There are not enough.
    """
    free = available()
    if size > free:
        raise UserError(f"{what} needs {size / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free; {fix}")
