"""How much memory there is, asked before something large is made."""

from __future__ import annotations

from pathlib import Path

from lazyexp.errors import UserError


def available() -> float:
    """Bytes that a process may still take, infinity where nobody knows."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return float("inf")


def require(size: float, what: str, mend: str) -> None:
    """Raises UserError if `what` needs more than there is."""
    free = available()
    if size > free:
        raise UserError(f"{what} needs {size / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free; {mend}")
