"""Available memory, checked before large allocations."""

from __future__ import annotations

from pathlib import Path

from lazyexp.errors import UserError


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
