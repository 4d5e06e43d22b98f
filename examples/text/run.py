"""Six arms at equal CPU seconds of training: `python run.py [SECONDS [SEEDS [OVERRIDE...]]]` writes text.csv.

An arm gets the whole number of epochs that comes closest to the seconds asked for, by the pace of its former tries.
CPU seconds are those of the process, less those of a run without training (its data, its last evaluation).
The arm `as_many` is given the epochs of lazy instead, and between two of lazy's evaluations it learns from as many
samples as lazy did, at random places (rule.replay): it tells what the choice of samples is worth, at equal learning.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import pandas as pd
from characters import Transformer, windows  # noqa: F401  (found here, whatever the current directory)

import lazyexp

ARMS = {
    "backprop": ["rule=backprop"],
    "lazy": ["rule=lazy"],
    "confidence": ["rule=confidence"],
    "random": ["rule=random"],
    "top_loss": ["rule=top_loss", "rule.q=32"],
}
COMMON = [
    "dataset=own", "dataset._target_=characters.windows", "model=own", "model._target_=characters.Transformer",
    "optimizer=adam", "optimizer.lr=0.002", "batch_size=64", "energy=false", "device=cpu", "overwrite=true",
    "runs_dir=runs/text",
]  # fmt: skip
TRIES = 4


def timed(*words: str) -> tuple[float, lazyexp.Run]:
    """CPU seconds of a run, and the run."""
    start = time.process_time()
    run = lazyexp.run(*COMMON, *words)
    return time.process_time() - start, run


def main(seconds: float, seeds: int, more: list[str]) -> pd.DataFrame:
    timed("rule=backprop", "epochs=1", *more)  # the first run of a process is slow
    short, long = (timed("rule=backprop", f"epochs={epochs}", *more)[0] for epochs in (1, 3))
    besides = short - (long - short) / 2  # what a run takes that trains for no epoch
    rows = []
    for seed in range(seeds):
        lazy: dict[str, Any] = {}
        for arm, words in ARMS.items():
            epochs, tried = 1, {}
            while epochs not in tried and len(tried) < TRIES:
                spent, run = timed(*words, f"seed={seed}", f"epochs={epochs}", *more)
                tried[epochs] = (max(spent - besides, 0.001), run)
                epochs = max(round(epochs * seconds / tried[epochs][0]), 1)
            epochs = min(tried, key=lambda one: abs(tried[one][0] - seconds))  # noqa: B023
            rows.append(row(arm, epochs, *tried[epochs]))
            if arm == "lazy":
                lazy = {"epochs": epochs, "folder": tried[epochs][1].folder}
        words = ["rule=random", f"rule.replay={lazy['folder']}", f"seed={seed}", f"epochs={lazy['epochs']}"]
        spent, run = timed(*words, *more)
        rows.append(row("as_many", lazy["epochs"], spent - besides, run))
    return pd.DataFrame(rows)


def row(arm: str, epochs: int, spent: float, run: lazyexp.Run) -> dict[str, object]:
    counters = ["seed", "forward_samples", "backward_samples", "test_accuracy"]
    found = {"rule": arm, "epochs": epochs, "cpu_seconds": round(spent, 1), **run.summary[counters]}
    print(found, flush=True)
    return found


if __name__ == "__main__":
    table = main(float((sys.argv[1:] or [20])[0]), int((sys.argv[2:] or [2])[0]), sys.argv[3:])
    table.to_csv("text.csv", index=False)
    print(table.to_string(index=False))
