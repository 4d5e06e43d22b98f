"""Accuracy against time along fronts: what a rule reaches when its schedule was made for the time it took.

Only final points count: a configuration (all settings but the seed) is at the median seconds and the median final
accuracy of its runs, and a front goes by steps: the time to an accuracy is that of the fastest configuration whose
median reaches it. Nothing is read off the middle of a longer run. Accuracies are shares, from 0 to 1.

Intervals are 95 % percentile bootstrap intervals: the seeds are drawn again within every configuration, and the
fronts are made anew from each draw (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

RESAMPLES = 2000
TOLERANCE = 1e-9  # 0.98 - 0.001 is not 0.979 in binary; far below one sample of any test set


@dataclass(eq=False)
class Point:
    """The runs of one configuration: (n,) training seconds and (n,) final test accuracies, run by run."""

    seconds: np.ndarray
    accuracy: np.ndarray


@dataclass
class Estimate:
    """A value and its 95 % interval; infinite where an accuracy is never reached, NaN where nothing is defined."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(eq=False)
class Front:
    """The points of one rule, with the medians of all resamples of their runs: (resamples + 1, points).

    Row 0 has the medians of the runs themselves. Without two runs in any point there is nothing to resample.
    """

    points: list[Point]
    seed: int = 0
    seconds: np.ndarray = field(init=False)
    accuracy: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        draws = np.random.default_rng(self.seed)
        seconds, accuracy = [], []
        for point in self.points:
            n = len(point.seconds)
            chosen = np.vstack([np.arange(n), draws.integers(n, size=(RESAMPLES, n))])
            seconds.append(np.median(point.seconds[chosen], axis=1))
            accuracy.append(np.median(point.accuracy[chosen], axis=1))
        self.seconds, self.accuracy = np.stack(seconds, axis=1), np.stack(accuracy, axis=1)

    @property
    def resampled(self) -> bool:
        return any(len(point.seconds) > 1 for point in self.points)

    def steps(self) -> list[int]:
        """The points that no other one beats in accuracy and seconds at once, fastest first."""
        return best_first(self.seconds[0], self.accuracy[0])

    def time_to(self, target: float | np.ndarray) -> np.ndarray:
        """(resamples + 1,) seconds to a target, one for all or one for each; infinite where it is never reached."""
        wanted = np.broadcast_to(target, len(self.seconds))[:, None] - TOLERANCE
        return np.where(self.accuracy >= wanted, self.seconds, math.inf).min(axis=1)

    def missed(self, target: float | np.ndarray) -> float:
        """The share of resamples in which a target is never reached; of single runs, 0 or 1."""
        times = self.time_to(target)
        return float(np.isinf(times[1:] if self.resampled else times[:1]).mean())

    def fastest(self, target: float) -> int | None:
        """The point that gives `time_to`, None if none reaches the target."""
        times = np.where(self.accuracy[0] >= target - TOLERANCE, self.seconds[0], math.inf)
        return int(times.argmin()) if np.isfinite(times).any() else None

    def best_within(self, limit: float = math.inf) -> np.ndarray:
        """(resamples + 1,) best accuracy in at most `limit` seconds, NaN where no point is that fast."""
        best = np.where(self.seconds <= limit, self.accuracy, -math.inf).max(axis=1)
        return np.where(np.isfinite(best), best, math.nan)

    def best(self) -> int:
        """The point with the best accuracy, the faster one of equals."""
        return int(np.lexsort((self.seconds[0], -self.accuracy[0]))[0])


def best_first(seconds: np.ndarray, accuracy: np.ndarray) -> list[int]:
    """The places of the points that no other one beats in both, fastest first; one of equal points."""
    order = np.lexsort((-accuracy, seconds))
    former = np.maximum.accumulate(np.concatenate([[-math.inf], accuracy[order][:-1]]))
    return [int(place) for place, before in zip(order, former, strict=True) if accuracy[place] > before]


def speedup(rule: Front, control: Front, target: float | np.ndarray) -> np.ndarray:
    """(resamples + 1,) control's seconds to the target over the rule's.

    0 where only the rule never gets there, infinite where only the control does not, NaN where neither does.
    """
    slow, fast = control.time_to(target), rule.time_to(target)
    with np.errstate(invalid="ignore"):
        return slow / fast


def estimate(values: np.ndarray, resampled: bool = True) -> Estimate:
    """From values over resamples, the runs' own first. Order statistics, so that misses stay what they are.

    NaN is left out of the interval; there is none if more than half of the resamples are NaN.
    """
    known = values[1:][~np.isnan(values[1:])]
    if not resampled or 2 * len(known) < len(values) - 1 or math.isnan(values[0]):
        return Estimate(float(values[0]))
    low, high = np.percentile(known, [2.5, 97.5], method="inverted_cdf")
    return Estimate(float(values[0]), float(low), float(high))
