"""Profile training loops: the share of time of every function, in Python and in PyTorch.

    python scripts/bench/profile_engines.py                    # autograd, in place, fast and lazy at batch 1 and 64
    python scripts/bench/profile_engines.py --cases lazy --batches 1 --width 4000

By cProfile, whose overhead (about a microsecond per call) is included; compare with bench.py.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import sys
from typing import Any

import torch
from bench import Bench

from lazyexp.config.schema import DatasetConfig
from lazyexp.data import load_data
from lazyexp.errors import UserError

LINES = 8


def table(profile: cProfile.Profile, samples: int) -> None:
    """Print the functions in which most time was spent, without the functions that they called."""
    functions: Any = vars(pstats.Stats(profile))["stats"].items()
    spent = sum(own for _, (_, _, own, _, _) in functions)
    print(f"  {spent / samples * 1e6:.1f} us per sample")
    by_time = sorted(functions, key=lambda item: -item[1][2])
    for (path, _, name), (_, calls, own, _, _) in by_time[:LINES]:
        where = f"{os.path.basename(path)}: " if path != "~" else ""
        name = name.replace("<built-in method ", "").replace("<method '", "").split("' of")[0].rstrip(">")
        print(f"  {own / spent:>6.1%} {calls / samples:>8.3f} calls per sample  {where}{name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=["autograd", "in place", "fast", "lazy"])
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--data-dir", default=os.environ.get("LAZYEXP_DATA", "data"))
    options = parser.parse_args()
    try:
        images = load_data(DatasetConfig(name="emnist"), options.data_dir, torch.device("cpu")).train
    except UserError as error:
        sys.exit(f"profile_engines: {error}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, width {options.width}")
    for batch_size in options.batches:
        bench = Bench(images, batch_size, options.width, 0.01 if batch_size == 1 else 0.1, options.samples)
        for case in options.cases:
            train = bench.case(case)
            train(bench.samples // 8)
            profile = cProfile.Profile()
            profile.runcall(train, bench.samples)
            print(f"\nbatch {batch_size}, {case}")
            table(profile, bench.samples)


if __name__ == "__main__":
    main()
