"""Five arms at equal CPU seconds of training: `python run.py [SECONDS [SEEDS]]` writes text.csv and prints it.

An arm's pace is measured first: a run of one epoch and one of three differ by two epochs and nothing else. All CPU
seconds are those of the process, so that other work on the machine counts as little as it can.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ARMS = {
    "backprop": ["rule=backprop"],
    "lazy": ["rule=lazy"],
    "confidence": ["rule=confidence"],
    "random": ["rule=random"],
    "top_loss": ["rule=top_loss"],
}
COMMON = [
    "dataset=own", "dataset._target_=characters.windows", "model=own", "model._target_=characters.Transformer",
    "optimizer=adam", "optimizer.lr=0.002", "batch_size=64", "eval_every=1000000000", "energy=false", "device=cpu",
]  # fmt: skip


def run(arm: str, epochs: int, seed: int, folder: str) -> tuple[float, dict[str, str]]:
    """CPU seconds of the whole process, and the run's row of summary.csv."""
    place = Path(folder) / f"{arm}-{seed}-{epochs}"
    words = [*COMMON, *ARMS[arm], f"epochs={epochs}", f"seed={seed}", f"runs_dir={place}", "overwrite=true"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "lazyexp", *words], cwd=HERE, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (summary,) = (HERE / place).rglob("summary.csv")
    with summary.open() as stream:
        (row,) = csv.DictReader(stream)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, row


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    seeds = range(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    rows = []
    for arm in ARMS:
        one, three = (run(arm, epochs, 0, "runs/pace")[0] for epochs in (1, 3))
        pace = (three - one) / 2
        epochs = max(round(seconds / pace), 1)
        for seed in seeds:
            spent, summary = run(arm, epochs, seed, "runs/equal")
            rows.append(
                {
                    "rule": arm,
                    "seed": seed,
                    "epochs": epochs,
                    "cpu_seconds": f"{spent - (one - pace):.1f}",
                    "forward_samples": summary["forward_samples"],
                    "backward_samples": summary["backward_samples"],
                    "test_accuracy": summary["test_accuracy"],
                }
            )
            print(rows[-1], flush=True)
    with open("text.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
