"""The comparison of docs/examples/text: five rules on next-character prediction, each for about equal seconds.

python run.py --epochs 5 --seeds 2 --runs runs/text --out ../../results/text

Backprop does `--epochs` passes. A pilot of one pass per rule gives its pace, and the others do as many passes as fit
into backprop's seconds. Finished runs are not repeated. Run it in this folder, on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import lazyexp

RULES = ("backprop", "lazy", "confidence", "random", "top_loss")
COMMON = (
    "dataset=own", "dataset._target_=my_text.windows", "dataset.options.length=16", "model=own",
    "model._target_=my_text.Transformer", "model.options.depth=1", "optimizer=adam", "optimizer.lr=0.002",
    "batch_size=64", "energy=false", "device=cpu", "eval_every=20000", "targets=[0.3,0.4,0.45,0.5]",
)  # fmt: skip
COLUMNS = [
    "rule", "seed", "epoch", "samples_seen", "forward_samples", "backward_samples", "updates", "train_seconds",
    "train_accuracy", "test_accuracy",
]  # fmt: skip


def passes(epochs: int, train_size: int, folder: Path) -> dict[str, int]:
    """How many passes of each rule fit into the seconds of `epochs` passes of backprop."""
    pace = {}
    for rule in RULES:
        pilot = lazyexp.run(*COMMON, rule=rule, epochs=1, dataset__train_size=train_size, runs_dir=str(folder))
        pace[rule] = float(pilot.summary["train_seconds"])
    return {rule: max(round(epochs * pace["backprop"] / pace[rule]), 1) for rule in RULES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5, help="of backprop")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--train-size", type=int, default=20000)
    parser.add_argument("--runs", type=Path, default=Path("runs/text"))
    parser.add_argument("--out", type=Path, default=Path("../../results/text"))
    given = parser.parse_args()
    counts = passes(given.epochs, given.train_size, given.runs / "pilot")
    for seed in range(given.seeds):
        for rule in RULES:
            done = lazyexp.run(
                *COMMON, rule=rule, epochs=counts[rule], seed=seed, dataset__train_size=given.train_size,
                runs_dir=str(given.runs / "final"),
            )  # fmt: skip
            print(
                rule,
                seed,
                counts[rule],
                f"{done.summary['test_accuracy']:.4f}",
                f"{done.summary['train_seconds']:.1f} s",
            )
    rows = lazyexp.read(given.runs / "final").assign(passes=lambda table: table["rule"].map(counts))
    given.out.mkdir(parents=True, exist_ok=True)
    rows[[*COLUMNS, "passes"]].to_csv(given.out / "metrics.csv", index=False)
    last = lazyexp.finished(rows)[[*COLUMNS, "passes"]]
    last.to_csv(given.out / "final.csv", index=False)
    with pd.option_context("display.width", 200):
        print(last.groupby("rule").agg({name: "mean" for name in ("test_accuracy", "train_seconds", "updates")}))


if __name__ == "__main__":
    main()
