"""Memory: how much is available, whether an error means that there was too little, and keeping what was freed."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from lazyexp.errors import UserError

# Errors of allocation by PyTorch's allocators and by CUDA's libraries. The word memory alone is not enough: "illegal
# memory access" and "memory format" are other errors.
OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to|unable to) allocate|ALLOC(ATION)?_FAILED"
    r"|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)


# Parameters of glibc's mallopt: blocks from this size on are returned when they are freed; smaller ones are kept, up
# to so many bytes at the end of the heap.
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 2**25), (-1, 2**28)


def keep_freed_blocks() -> None:
    """Let this process keep freed blocks below 32 MiB, at most 256 MiB of them, for the next step of training.

    By default glibc can return the gradients to the system after a step, which then clears their pages again. Does
    nothing with another C library, or if the environment variables MALLOC_... choose otherwise.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(*MMAP_THRESHOLD)
        mallopt(*TRIM_THRESHOLD)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory could not be allocated, on the host or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None


def available(root: Path = Path("/")) -> float:
    """Bytes of memory that a process can still allocate; infinity where the system does not report it.

    The smaller of what the machine has left and of what its control groups (containers, SLURM) leave.
    """
    free = float("inf")
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return min([free, *_left_by_groups(root)])


# Of the two versions of control groups: folder, limit, use, and the part of the use that can be given back.
GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def _left_by_groups(root: Path) -> Iterator[float]:
    """Bytes that each control group of this process and its parents leave."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    names = {line.split(":")[1]: line.split(":", 2)[2] for line in lines if line.count(":") >= 2}
    for controller, (folder, limit, use, cache) in zip(("", "memory"), GROUPS, strict=True):
        below = Path(names.get(controller, "/").lstrip("/"))
        for part in (below, *below.parents):
            group = root / folder / part
            try:
                allowed, used = int((group / limit).read_text()), int((group / use).read_text())
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield max(allowed - used + int(statistics.get(cache, 0)), 0)
            except (OSError, ValueError):  # no limit is written as `max`
                continue


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
