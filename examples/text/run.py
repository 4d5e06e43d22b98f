"""Compare six rules at equal CPU seconds: `python run.py [SECONDS [SEEDS [OVERRIDE...]]]` writes text.csv.

A rule gets the whole number of epochs that comes closest to SECONDS, by the measured pace of its previous attempts.
CPU seconds are those of the process, minus those of a run without training (loading data, final evaluation).
`as_many` gets the epochs of `lazy` instead, and between two of lazy's evaluations it selects as many samples as lazy
did, at random positions (rule.replay): it measures the effect of the choice of samples at equal numbers of samples.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import pandas as pd
from characters import Transformer, windows  # noqa: F401  (importable from any directory)

import lazyexp

ARMS = {
    "backprop": ["rule=backprop"],
    "lazy": ["rule=lazy"],
    "confidence": ["rule=confidence"],
    "random": ["rule=random"],
    "top_loss": ["rule=top_loss", "rule.q=32"],
}
COMMON = [
    "dataset._target_=characters.windows", "model._target_=characters.Transformer",
    "optimizer=adam", "optimizer.lr=0.002", "batch_size=64", "energy=false", "device=cpu", "overwrite=true",
    "runs_dir=runs/text",
]  # fmt: skip
ATTEMPTS = 4


def timed(*words: str) -> tuple[float, lazyexp.Run]:
    """CPU seconds of a run, and the run."""
    start = time.process_time()
    run = lazyexp.run(*COMMON, *words)
    return time.process_time() - start, run


def main(seconds: float, seeds: int, more: list[str]) -> pd.DataFrame:
    timed("rule=backprop", "epochs=1", *more)  # the first run of a process is slow
    short, long = (timed("rule=backprop", f"epochs={epochs}", *more)[0] for epochs in (1, 3))
    overhead = short - (long - short) / 2  # CPU seconds of a run of zero epochs
    rows = []
    for seed in range(seeds):
        lazy: dict[str, Any] = {}
        for arm, words in ARMS.items():
            epochs, attempts = 1, {}
            while epochs not in attempts and len(attempts) < ATTEMPTS:
                spent, run = timed(*words, f"seed={seed}", f"epochs={epochs}", *more)
                attempts[epochs] = (max(spent - overhead, 0.001), run)
                epochs = max(round(epochs * seconds / attempts[epochs][0]), 1)
            epochs = min(attempts, key=lambda one: abs(attempts[one][0] - seconds))
            rows.append(row(arm, epochs, *attempts[epochs]))
            if arm == "lazy":
                lazy = {"epochs": epochs, "folder": attempts[epochs][1].folder}
        words = ["rule=random", f"rule.replay={lazy['folder']}", f"seed={seed}", f"epochs={lazy['epochs']}"]
        spent, run = timed(*words, *more)
        rows.append(row("as_many", lazy["epochs"], spent - overhead, run))
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
