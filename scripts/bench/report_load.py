"""Measure the cost of a report of many runs: copy a finished run with other rules, widths and seeds, and report.

    python scripts/bench/report_load.py RUN FOLDER [2000]

Prints processor seconds and peak memory. The copies have random accuracies and seconds.
"""

from __future__ import annotations

import csv
import json
import random
import resource
import sys
import time
from pathlib import Path

from lazyexp.report.build import write_report
from lazyexp.runs.reader import read_rows

RULES = (
    "backprop",
    "lazy",
    "confidence",
    "random",
    "mistake_gated",
    "progressive",
    "top_loss",
    "infobatch",
    "kakurenbo",
)
WIDTHS = (50, 100, 200, 400, 800)


def copy(run: Path, top: Path, rule: str, width: int, seed: int) -> None:
    """Copy `run` without its arrays and its model."""
    top.mkdir(parents=True)
    slower, better = random.lognormvariate(0, 0.3), random.gauss(0, 0.002)
    for name in ("metrics.csv", "summary.csv"):
        rows = read_rows(run / name)
        for row in rows:
            row.update(run_id=top.name, rule=rule, width=width, seed=seed, rule_options="{}")
            row["train_seconds"] *= slower
            row["test_accuracy"] = min(1.0, row["test_accuracy"] + better)
        fields = [key for key in rows[0] if name == "summary.csv" or key != "rule_options"]
        with (top / name).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    facts = json.loads((run / "run.json").read_text())
    facts["settings"].update(seed=seed, rule={"name": rule}, rule_label=None)
    facts["settings"]["model"]["width"] = width
    (top / "run.json").write_text(json.dumps(facts))


def main(run: Path, folder: Path, count: int) -> None:
    for number in range(count):
        rule, rest = RULES[number % len(RULES)], number // len(RULES)
        width, seed = WIDTHS[rest % len(WIDTHS)], rest // len(WIDTHS)
        copy(run, folder / "runs" / f"{rule}-{width}-{seed}", rule, width, seed)
    start = time.process_time()
    write_report([folder / "runs"], folder / "report")
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count} runs: {time.process_time() - start:.1f} processor seconds, {megabytes:.0f} MB at most")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2000)
