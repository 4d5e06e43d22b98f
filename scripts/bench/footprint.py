"""Measure start-up time and memory with 240,000 random images in EMNIST's format.

    python scripts/bench/footprint.py            # prints seconds to the first training step and the peak memory

Both are without what importing torch costs. Needs 220 MB of disk while it runs.
"""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# Run in a separate process: the command, with the time of the first training step.
CHILD = """
import resource, sys, time
start = time.perf_counter()
import torch
imported, memory = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from lazyexp import cli
from lazyexp.training.trainer import Trainer
original = Trainer._train_chunk
def first(self, order):
    if not hasattr(self, "_noted"):
        self._noted = time.perf_counter()
        print(f"to the first step beyond torch: {self._noted - imported:.2f} s (torch: {imported - start:.2f} s)")
    return original(self, order)
Trainer._train_chunk = first
sys.argv = ["lazyexp", *sys.argv[1:]]
try:
    cli.main()
finally:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory beyond torch: {(peak - memory) / 2**20:.2f} GiB (torch: {memory / 2**20:.2f} GiB)")
"""


def write(path: Path, array: np.ndarray) -> None:
    """An IDX file of bytes."""
    with path.open("wb") as stream:
        stream.write(struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape))
        array.tofile(stream)


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "EMNIST" / "raw"
        raw.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for part, n in (("train", 240000), ("test", 40000)):
            labels = (np.arange(n) % 10).astype(np.uint8)
            images = rng.integers(0, 100, (n, 28, 28), dtype=np.uint8)
            images[np.arange(n), labels, :] = 255
            write(raw / f"emnist-digits-{part}-images-idx3-ubyte", images)
            write(raw / f"emnist-digits-{part}-labels-idx1-ubyte", labels)
            del images
        for rule in ("lazy", "backprop"):
            print(rule, flush=True)
            arguments = [f"rule={rule}", "dataset=emnist", "stop_at=0.01", f"data_dir={folder}", f"runs_dir={folder}"]
            environment = {**os.environ, "PYTHONPATH": str(root)}
            subprocess.run([sys.executable, "-c", CHILD, *arguments], env=environment, cwd=folder, check=True)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"largest process in all: {children / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
