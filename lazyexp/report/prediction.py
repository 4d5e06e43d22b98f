"""What a lazy rule could save at most, predicted from a backprop run: see docs/speedup.md."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from lazyexp.report.formatting import number
from lazyexp.report.read import Run

# Backward pass and step relative to the forward pass, by counting products: gradients of weights and of activations.
COST_RATIO = 2.0


Shares = TypeVar("Shares", float, np.ndarray)


def predicted_speedup(mistakes: Shares, ratio: float = COST_RATIO, overhead: float = 0.0) -> Shares:
    """(F + B) / (F + o + s B), the speedup of a rule that selects a share s of the samples over backprop.

    Args:
        mistakes: s, the share of presented samples that are selected.
        ratio: B / F, cost of the backward pass and the step relative to the forward pass.
        overhead: o / F, what a rule adds per presented sample: its decision, or a second forward pass.
    """
    return (1 + ratio) / (1 + overhead + mistakes * ratio)


def required_ratio(speedup: float, mistakes: float) -> float:
    """The ratio B / F at which the predicted speedup is `speedup`; infinite where no ratio suffices."""
    return (speedup - 1) / (1 - speedup * mistakes) if speedup * mistakes < 1 else math.inf


def share_of_mistakes(run: Run) -> float:
    """Share of all presented samples that were misclassified, as scored before the update; NaN if not recorded."""
    presented = np.diff(run.columns["samples_seen"], prepend=0.0)
    wrong: float = (presented * (1 - run.columns["train_accuracy"])).sum() / presented.sum()
    return wrong


def prediction(mistakes: float, batch_size: int, ratio: float | None) -> str:
    """The sentence of a report on backprop alone; empty without a share of mistakes."""
    if not 0 <= mistakes <= 1:
        return ""
    times = predicted_speedup(mistakes, ratio or COST_RATIO)
    basis = (
        f"at the given cost of a backward pass and its step of {ratio:g} forward passes"
        if ratio
        else f"if a backward pass and its step cost {COST_RATIO:g} forward passes (by counting products, not "
        "measured; `--cost-ratio` takes a measured value)"
    )
    ceiling = number(1 + (ratio or COST_RATIO), 2)
    limit = f"{number(1 / mistakes, 2)} times" if mistakes else "without limit"
    batches = (
        f" With batches of {batch_size}, a step is saved only where no sample is wrong." if batch_size > 1 else ""
    )
    return (
        f"With this data and network a lazy rule could save at most {100 * (1 - 1 / times):.0f} % of the training "
        f"time ({number(times, 2)} times faster) {basis}: backprop misclassified {number(100 * mistakes, 2)} % "
        f"of the samples that it presented. Without a mistake it would be {ceiling} times, and with free forward "
        f"passes {limit}.{batches}"
    )
