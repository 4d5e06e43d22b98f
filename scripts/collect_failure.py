"""The table and the figure of the sweep `failure`, for collect.py: accuracy against wrong labels and rare classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lazyexp.report.groups import CONTROL, rule_order
from lazyexp.report.statistics import interval
from lazyexp.report.style import looks

SETTINGS = ["dataset.label_noise", "dataset.imbalance"]
FINAL = ["run_id", "rule", "seed", *SETTINGS, "train_size", "status", "test_accuracy", "worst_class_accuracy"]
FINAL += ["calibration_error", "train_accuracy", "samples_seen", "forward_samples", "backward_samples", "updates"]
FINAL += ["distinct_learned"]


def failure(folder: Path, place: Path) -> str:
    """Writes a CSV and the figure to `place`; returns the table."""
    runs = pd.DataFrame([facts(path.parent) for path in sorted(folder.glob("*/summary.csv"))])
    runs.to_csv(place / "summary.csv", index=False)
    return tell(runs, place)


def facts(folder: Path) -> dict[str, object]:
    """A run's last figures, and how often wrong labels were learned from, compared with right ones."""
    row = pd.read_csv(folder / "summary.csv").iloc[0]
    with np.load(folder / "learned.npz") as counts:
        learned, noisy = counts["learned"], counts["noisy"].astype(bool)
    wrong = learned[noisy].mean() if noisy.any() else None
    return {
        **row[FINAL].to_dict(),
        "noisy_samples": int(noisy.sum()),
        "learned_per_noisy_sample": wrong,
        "learned_per_clean_sample": learned[~noisy].mean(),
        "share_of_learning_from_noisy": learned[noisy].sum() / max(learned.sum(), 1),
    }


def tell(runs: pd.DataFrame, place: Path) -> str:
    rules = rule_order(runs["rule"])
    draw(runs, rules, place / "failure.png")
    columns = ["wrong labels", "smallest / largest class", "rule", "test accuracy %", "points above backprop"]
    columns += ["worst class %", "calibration error"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for (noise, imbalance), some in runs.groupby(SETTINGS, sort=True):
        control = some[some["rule"] == CONTROL].set_index("seed")["test_accuracy"]
        for rule in rules:
            own = some[some["rule"] == rule].set_index("seed")
            gain = interval([100 * (own["test_accuracy"][seed] - control[seed]) for seed in own.index])
            above = f"{gain.median:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})" if rule != CONTROL else ""
            cells = [f"{noise:g}", f"{imbalance:g}", f"`{rule}`", f"{100 * own['test_accuracy'].median():.1f}", above]
            cells += [f"{100 * own['worst_class_accuracy'].median():.0f}", f"{own['calibration_error'].median():.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"![Test accuracy against wrong labels](results/{place.name}/failure.png)"])


def draw(runs: pd.DataFrame, rules: list[str], path: Path) -> None:
    """Medians and ranges over seeds against the share of wrong labels, a panel for every imbalance."""
    sizes = sorted(runs["dataset.imbalance"].unique(), reverse=True)
    figure = Figure(figsize=(3 * len(sizes), 2.8), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(sizes), sharey=True))
    look = looks(rules, [])
    for panel, size in zip(panels, sizes, strict=True):
        for rule in rules:
            some = runs[(runs["dataset.imbalance"] == size) & (runs["rule"] == rule)]
            by_noise = 100 * some.groupby("dataset.label_noise")["test_accuracy"].agg(["median", "min", "max"])
            bars = [by_noise["median"] - by_noise["min"], by_noise["max"] - by_noise["median"]]
            one = look[rule]
            panel.errorbar(
                100 * by_noise.index, by_noise["median"], bars, label=rule, color=one.color, linestyle=one.line,
                marker=one.marker, markersize=4, capsize=2,
            )  # fmt: skip
        panel.set_title("equal classes" if size == 1 else f"smallest class {size:g} of the largest", fontsize=9)
        panel.set_xlabel("wrong labels (%)")
        panel.grid(color="0.9")
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
