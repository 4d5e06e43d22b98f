"""Measure arrays on disk against arrays in memory: loading, anonymous memory, and the speed of batches and training.

    python scripts/bench/large_data.py [--images 5000] [--side 224] [--batches 100] [--folder FOLDER]

Writes random images (images, 3, side, side) to FOLDER (a temporary one by default) as x_train.npy, and the same as
.npz. Each way is measured in a process of its own; files are in the page cache if they fit. A step is that of
a small convolutional network, so that reading has a large share.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn


def anonymous() -> float:
    """GiB of this process that are not in files."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**20 if found else 0.0


def measure(path: str, batches: int) -> dict[str, float]:
    """Seconds to load, peak anonymous GiB, and microseconds per image for a batch and a step of 32."""
    from lazyexp.config.schema import DatasetConfig
    from lazyexp.data import load_data

    torch.set_num_threads(1)
    peak, over = [anonymous()], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            peak.append(max(peak.pop(), anonymous()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    config = DatasetConfig("folder", path=path, scale="channel", augment=["flip"])
    train = load_data(config, "", torch.device("cpu")).train
    loaded = time.perf_counter() - start
    train.start_epoch(0, 0)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    train.read_ahead(order)
    net = nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    reading = stepping = 0.0
    parts = order.split(32)[:batches]
    for index in parts:
        began = time.perf_counter()
        inputs, targets = train.batch(index)
        read = time.perf_counter()
        nn.functional.cross_entropy(net(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        reading, stepping = reading + read - began, stepping + time.perf_counter() - began
    train.stop_reading()
    over.set()
    watcher.join()
    number = 32e-6 * len(parts)
    return {"load_s": loaded, "anonymous_gib": peak[0], "batch_us": reading / number, "step_us": stepping / number}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--folder")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.batches)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder, shape = Path(made), (3, options.side, options.side)
        array = np.lib.format.open_memmap(folder / "x_train.npy", "w+", np.uint8, (options.images, *shape))
        rng = np.random.default_rng(0)
        for start in range(0, options.images, 100):
            array[start : start + 100] = rng.integers(0, 256, array[start : start + 100].shape, np.uint8)
        labels = np.arange(options.images) % 4
        parts = {"y_train": labels, "x_test": np.array(array[:64]), "y_test": labels[:64]}
        for name, part in parts.items():
            np.save(folder / f"{name}.npy", part)
        np.savez(folder / "d.npz", x_train=array, y_train=labels, x_test=parts["x_test"], y_test=labels[:64])
        print(f"{options.images} images of {shape}: {array.nbytes / 2**30:.2f} GiB")
        for name, path in (("in memory (.npz)", folder / "d.npz"), ("on disk (.npy)", folder)):
            command = [sys.executable, __file__, "--measure", str(path), "--batches", str(options.batches)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            print(f"{name:18}", "  ".join(f"{key} {value:.2f}" for key, value in found.items()))


if __name__ == "__main__":
    main()
