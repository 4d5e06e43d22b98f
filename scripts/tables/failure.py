"""Tables and figure of the sweep `failure`: accuracy against wrong labels and rare classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tables.report import BASELINE, interval, looks, markdown, rule_order

SETTINGS = ["dataset.label_noise", "dataset.imbalance"]
FINAL = ["run_id", "rule", "seed", *SETTINGS, "train_size", "status", "test_accuracy", "worst_class_accuracy"]
FINAL += ["calibration_error", "train_accuracy", "samples_seen", "forward_samples", "backward_samples", "updates"]
FINAL += ["distinct_learned"]
Cell = Callable[[pd.DataFrame, pd.DataFrame], str]


def failure(folder: Path, output: Path) -> dict[str, str]:
    """Write summary.csv and failure.png; return the tables."""
    runs = pd.DataFrame([facts(path.parent) for path in sorted(folder.glob("*/summary.csv"))])
    runs.to_csv(output / "summary.csv", index=False)
    rules = rule_order(runs["rule"])
    draw(runs, rules, output / "failure.png")

    def median(column: str, factor: float, decimals: int) -> Cell:
        return lambda some, _: f"{factor * some[column].median():.{decimals}f}"

    return {
        "test_accuracy": pivot(runs, rules, median("test_accuracy", 100, 1)),
        "above_backprop": pivot(runs, rules[1:], above),
        "worst_class": pivot(runs, rules, median("worst_class_accuracy", 100, 0)),
        "calibration": pivot(runs, rules, median("calibration_error", 1, 3)),
    }


def facts(folder: Path) -> dict[str, object]:
    """A run's final figures, and how often wrongly labelled samples were selected, compared with right ones."""
    row = pd.read_csv(folder / "summary.csv").iloc[0]
    with np.load(folder / "learned.npz") as counts:
        selected, noisy = counts["learned"], counts["noisy"].astype(bool)
    return {
        **row[FINAL].to_dict(),
        "noisy_samples": int(noisy.sum()),
        "learned_per_noisy_sample": selected[noisy].mean() if noisy.any() else None,
        "learned_per_clean_sample": selected[~noisy].mean(),
        "share_of_learning_from_noisy": selected[noisy].sum() / max(selected.sum(), 1),
    }


def pivot(runs: pd.DataFrame, rules: list[str], cell: Cell) -> str:
    """A row per share of wrong labels and imbalance, a column per rule; `cell` sees a rule's and backprop's runs."""
    rows = []
    for (noise, imbalance), some in runs.groupby(SETTINGS, sort=True):
        of_rule = {rule: some[some["rule"] == rule].set_index("seed") for rule in [*rules, BASELINE]}
        rows.append([f"{noise:g}; {imbalance:g}", *(cell(of_rule[rule], of_rule[BASELINE]) for rule in rules)])
    return markdown(["wrong labels; imbalance", *(f"`{rule}`" for rule in rules)], rows)


def above(some: pd.DataFrame, baseline: pd.DataFrame) -> str:
    """Percentage points above backprop of the same seed."""
    gain = interval(100 * (some["test_accuracy"] - baseline["test_accuracy"]))
    return f"{gain.median:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})"


def draw(runs: pd.DataFrame, rules: list[str], path: Path) -> None:
    """Medians and ranges over seeds against the share of wrong labels, a panel per imbalance."""
    sizes = sorted(runs["dataset.imbalance"].unique(), reverse=True)
    figure = Figure(figsize=(3 * len(sizes), 2.8), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(sizes), sharey=True))
    styles = looks(rules, [])
    for panel, size in zip(panels, sizes, strict=True):
        for rule in rules:
            some = runs[(runs["dataset.imbalance"] == size) & (runs["rule"] == rule)]
            by_noise = 100 * some.groupby("dataset.label_noise")["test_accuracy"].agg(["median", "min", "max"])
            bars = [by_noise["median"] - by_noise["min"], by_noise["max"] - by_noise["median"]]
            style = styles[rule]
            panel.errorbar(
                100 * by_noise.index, by_noise["median"], bars, label=rule, color=style.color, linestyle=style.line,
                marker=style.marker, markersize=4, capsize=2,
            )  # fmt: skip
        panel.set_title("equal classes" if size == 1 else f"smallest class {size:g} of the largest", fontsize=9)
        panel.set_xlabel("wrong labels (%)")
        panel.grid(color="0.9")
    panels[0].set_ylabel("test accuracy (%)")
    panels[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
