"""Decoding of many image files: in parallel, with a bar, and once for several runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lazyexp.data.arrays import Array
from lazyexp.data.images import decode
from lazyexp.errors import UserError
from lazyexp.utils.terminal import NO_BAR, log, tqdm

AT_ONCE = 256  # images that wait to be used


def in_parallel(paths: Sequence[Path], name: str, size: tuple[int, int] | None) -> Iterator[Array]:
    """The images in order, decoded by a thread per processor; Pillow works outside of Python's lock."""
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)
    bar = tqdm(total=len(paths), desc=f"reading {name}", unit=" samples", leave=False, disable=NO_BAR)
    with bar, ThreadPoolExecutor(workers) as pool:
        remaining = iter(paths)
        waiting = [pool.submit(decode, path, str(path), size) for path in islice(remaining, AT_ONCE)]
        while waiting:
            yield waiting.pop(0).result()
            bar.update()
            waiting += [pool.submit(decode, path, str(path), size) for path in islice(remaining, 1)]


def decoded(
    files: dict[str, dict[str, list[Path]]],
    names: Sequence[str],
    size: tuple[int, int] | None,
    cache: Path,
    advice: str,
) -> list[Array]:
    """The pixels of the training and the test images as memory-mapped arrays (n, height, width[, channels]).

    They are decoded into a folder below `cache` if that has not happened yet; its name is a hash of the names, sizes
    and times of all image files. All images must be of one kind. Raises UserError.
    """
    paths = {part: [path for found in classes.values() for path in found] for part, classes in files.items()}
    digest = hashlib.sha256(repr(size).encode())
    for part, found in paths.items():
        for path in found:
            facts = path.stat()
            digest.update(f"{part} {path} {facts.st_size} {facts.st_mtime_ns}".encode())
    folder = cache / digest.hexdigest()[:16]
    try:
        if not folder.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=cache))
            try:
                for (part, found), name in zip(paths.items(), names, strict=True):
                    _fill(partial / f"{part}.npy", found, name, size, advice)
                if not folder.is_dir():  # another process may have been faster
                    partial.rename(folder)
                    log(f"decoded {sum(map(len, paths.values())):,} images into {folder}")
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return [np.load(folder / f"{part}.npy", mmap_mode="c", allow_pickle=False) for part in paths]
    except (OSError, ValueError) as error:
        raise UserError(
            f"dataset.options.cache={cache}: cannot be used ({error}); delete {folder.name} in it"
        ) from None


def _fill(file: Path, paths: Sequence[Path], name: str, size: tuple[int, int] | None, advice: str) -> None:
    """Decode images into a new .npy file."""
    array: np.memmap[Any, Any] | None = None
    for number, sample in enumerate(in_parallel(paths, name, size)):
        if array is None:
            array = np.lib.format.open_memmap(file, "w+", sample.dtype, (len(paths), *sample.shape))
        if sample.shape != array.shape[1:] or sample.dtype != array.dtype:
            raise UserError(
                f"{paths[number]}: {sample.shape} {sample.dtype}, unlike {paths[0]}, {array.shape[1:]} "
                f"{array.dtype}: "
                "dataset.options.cache needs images of one kind"
                f"{advice}"
            )
        array[number] = sample
    assert array is not None
    array.flush()
