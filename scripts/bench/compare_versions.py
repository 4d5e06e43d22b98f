"""Compare the results of two checkouts: the same settings and seeds must give the same rows.

    python scripts/bench/compare_versions.py OLD NEW [--rename NEW_WORD:OLD_WORD ...]

Runs 20 small settings on the bundled digits with the package in the folder OLD and with that in NEW, and compares
every column of metrics.csv and every array of learned.npz except times and names. The row before training is left
out: versions before 0.2 have none. `--rename` translates a word of a command line, such as
`packing.block_size:rule.block`, for a checkout with other names. Exits with 1 if a setting differs.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

COMMON = ["epochs=3", "eval_every=700", "device=cpu"]
SETTINGS = [
    ["rule=backprop", "model.width=40"],
    ["rule=lazy", "model.width=40"],
    ["rule=lazy", "model.width=40", "batch_size=16", "optimizer.lr=0.1"],
    ["rule=lazy", "engine=autograd", "model.width=40", "batch_size=16", "optimizer.lr=0.1"],
    ["rule=backprop", "engine=autograd", "model.width=40", "batch_size=16", "optimizer.lr=0.1"],
    ["rule=mistake_gated", "model.width=40", "model.depth=2"],
    ["rule=confidence", "model.width=40", "model.activation=gelu", "seed=1"],
    ["rule=random", "model.width=40"],
    ["rule=spaced", "model.width=40", "rule.skip_threshold=0.9"],
    ["rule=progressive", "model.width=40", "batch_size=8", "optimizer.lr=0.1"],
    ["rule=top_loss", "model.width=40", "batch_size=32", "optimizer.lr=0.1"],
    ["rule=selective_backprop", "model.width=40", "batch_size=32", "optimizer.lr=0.1"],
    ["rule=infobatch", "model.width=40", "batch_size=32", "optimizer.lr=0.1", "optimizer.momentum=0.9"],
    ["rule=kakurenbo", "model.width=40", "batch_size=32", "optimizer=adam"],
    ["rule=early_stopping", "model.width=40", "batch_size=4", "rule.average=1", "rule.threshold=0.1", "epochs=6"],
    ["rule=evolved_sampling", "model.width=40", "batch_size=32", "optimizer.lr=0.1"],
    ["rule=order_dp", "model.width=40", "batch_size=32", "optimizer.lr=0.1"],
    ["rule=smrd", "model.width=40", "batch_size=32", "optimizer.lr=0.1"],
    ["rule=fast_lazy", "model.width=40", "packing.precision=float32", "packing.components=null"],
    ["rule=lazy", "model=cnn", "model.width=4", "batch_size=32", "optimizer.lr=0.1", "dataset.augment=shift"],
]
IGNORED = ("run_id", "rule", "train_seconds", "eval_seconds")


def run(checkout: Path, words: list[str], folder: Path, renames: dict[str, str]) -> Path:
    """Run one setting with the package in `checkout`. Returns the folder of the run."""
    for new, old in renames.items():
        words = [word.replace(new, old) for word in words]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lazyexp", *words, f"runs_dir={folder}"]
    answer = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f"{' '.join(command)}: {answer.stderr}")
    (summary,) = folder.rglob("summary.csv")
    return summary.parent


def differences(old: Path, new: Path) -> list[str]:
    """The columns and arrays in which two runs differ."""
    tables = []
    for folder in (old, new):
        with (folder / "metrics.csv").open() as stream:
            rows = csv.DictReader(stream)
            tables.append([row for row in rows if row["samples_seen"] != "0"])
    if len(tables[0]) != len(tables[1]):
        return [f"{len(tables[0])} and {len(tables[1])} rows"]
    shared = [name for name in tables[0][0] if name in tables[1][0] and name not in IGNORED]
    found = [name for name in shared if [row[name] for row in tables[0]] != [row[name] for row in tables[1]]]
    with np.load(old / "learned.npz") as before, np.load(new / "learned.npz") as after:
        found += [name for name in before.files if not np.array_equal(before[name], after[name])]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="another checkout")
    parser.add_argument("--rename", nargs="*", default=[], metavar="NEW:OLD", help="words of the old checkout")
    options = parser.parse_args()
    renames = dict(pair.split(":", 1) for pair in options.rename)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for number, words in enumerate(SETTINGS):
            folder = Path(temporary) / str(number)
            words = [*COMMON, *words]
            old = run(options.old.resolve(), words, folder / "old", renames)
            new = run(options.new.resolve(), words, folder / "new", {})
            found = differences(old, new)
            failed += bool(found)
            print(f"{'differs' if found else 'equal':<8}{' '.join(words)}  {', '.join(found)}", flush=True)
    print(f"{len(SETTINGS) - failed} of {len(SETTINGS)} settings give the same rows")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
