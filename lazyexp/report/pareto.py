"""Accuracy at the end of a schedule against its training time, along the Pareto front of a rule's configurations.

A configuration (all settings but the seed) is one point: the median seconds and the median final accuracy of its
runs. The time to an accuracy is that of the fastest configuration whose median reaches it; nothing is read off the
middle of a longer run. Accuracies are shares, from 0 to 1. Intervals resample the seeds within every configuration
and compute the front anew from each resample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from lazyexp.report.intervals import resamples

TOLERANCE = 1e-9  # 0.98 - 0.001 is not 0.979 in binary; far below one sample of any test set


@dataclass(eq=False)
class Point:
    """The runs of one configuration: (n,) training seconds and (n,) final test accuracies, run by run."""

    seconds: np.ndarray
    accuracy: np.ndarray


@dataclass(eq=False)
class ParetoFront:
    """The configurations of one rule, with the medians of all resamples of their runs: (1 + RESAMPLES, points).

    Row 0 has the medians of the runs themselves. `seed` draws the resamples: it differs between rules, because equal
    draws would pair runs that are independent.
    """

    points: list[Point]
    seed: int = 0
    seconds: np.ndarray = field(init=False)
    accuracy: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        seconds, accuracy = [], []
        for point in self.points:
            n = len(point.seconds)
            drawn = np.vstack([np.arange(n), resamples(n, generator)])
            seconds.append(np.median(point.seconds[drawn], axis=1))
            accuracy.append(np.median(point.accuracy[drawn], axis=1))
        self.seconds, self.accuracy = np.stack(seconds, axis=1), np.stack(accuracy, axis=1)

    @property
    def resampled(self) -> bool:
        """False if no configuration has two runs: there is nothing to resample."""
        return any(len(point.seconds) > 1 for point in self.points)

    def steps(self) -> list[int]:
        """Positions of the points that no other point beats in accuracy and seconds at once, fastest first."""
        return non_dominated(self.seconds[0], self.accuracy[0])

    def time_to(self, target: float | np.ndarray) -> np.ndarray:
        """(1 + RESAMPLES,) seconds to a target, one for all or one for each resample; infinite if never reached."""
        wanted = np.broadcast_to(target, len(self.seconds))[:, None] - TOLERANCE
        times: np.ndarray = np.where(self.accuracy >= wanted, self.seconds, math.inf).min(axis=1)
        return times

    def missed(self, target: float | np.ndarray) -> float:
        """The share of resamples that never reach a target; 0 or 1 without resamples."""
        times = self.time_to(target)
        return float(np.isinf(times[1:] if self.resampled else times[:1]).mean())

    def fastest(self, target: float) -> int | None:
        """Position of the point that gives `time_to`, None if none reaches the target."""
        times = np.where(self.accuracy[0] >= target - TOLERANCE, self.seconds[0], math.inf)
        return int(times.argmin()) if np.isfinite(times).any() else None

    def best_within(self, limit: float = math.inf) -> np.ndarray:
        """(1 + RESAMPLES,) best accuracy in at most `limit` seconds, NaN where no point is that fast."""
        best = np.where(self.seconds <= limit, self.accuracy, -math.inf).max(axis=1)
        accuracy: np.ndarray = np.where(np.isfinite(best), best, math.nan)
        return accuracy

    def best(self) -> int:
        """Position of the point with the best accuracy; of equal ones the fastest."""
        return int(np.lexsort((self.seconds[0], -self.accuracy[0]))[0])


def non_dominated(seconds: np.ndarray, accuracy: np.ndarray) -> list[int]:
    """Positions of the points that no other point beats in both, fastest first; one of equal points."""
    order = np.lexsort((-accuracy, seconds))
    before = np.maximum.accumulate(np.concatenate([[-math.inf], accuracy[order][:-1]]))
    return [int(i) for i, best in zip(order, before, strict=True) if accuracy[i] > best]


def speedup(rule: ParetoFront, baseline: ParetoFront, target: float | np.ndarray) -> np.ndarray:
    """(1 + RESAMPLES,) seconds of the baseline to the target divided by the rule's.

    0 where only the rule never reaches it, infinite where only the baseline does not, NaN where neither does.
    """
    with np.errstate(invalid="ignore"):
        ratio: np.ndarray = baseline.time_to(target) / rule.time_to(target)
    return ratio
