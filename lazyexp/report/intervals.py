"""Medians and their 95 % bootstrap intervals: the one definition that every table and figure uses.

Percentile bootstrap (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13) with order statistics
instead of interpolation, so that infinity (a target that is never reached) is a value like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

RESAMPLES = 2000
# Groups, and values within each, below which a nested bootstrap gives a range instead.
FEWEST = 5
NESTED = "95 % nested bootstrap"
RANGE = "range"


@dataclass(frozen=True)
class Interval:
    """A median, or a quantity computed from medians, with its 95 % interval; NaN where undefined.

    `n`: number of values; `iqm`: their interquartile mean. Both are unset for a quantity computed from medians.
    """

    median: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    iqm: float = math.nan

    @property
    def known(self) -> bool:
        """Whether there is an interval besides the median."""
        return not math.isnan(self.low)


def resamples(n: int, generator: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, n) indices of n values, drawn with replacement."""
    return generator.integers(n, size=(RESAMPLES, n))


def percentiles(medians: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of resampled medians; NaN is left out."""
    low, high = np.percentile(medians[~np.isnan(medians)], [2.5, 97.5], method="inverted_cdf")
    return float(low), float(high)


def interval(values: Iterable[float] | np.ndarray) -> Interval:
    """Median, interval and interquartile mean of values of independent runs.

    NaN is left out and infinity is kept. A single value has no interval.
    """
    known = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=float).ravel()
    known = np.sort(known[~np.isnan(known)])
    n = len(known)
    if not n:
        return Interval()
    low = high = math.nan
    if n > 1:
        lower, upper = _middle_positions(n)
        low, high = percentiles(_mean(known[lower], known[upper]))
    cut = n // 4
    return Interval(float(median(known)), low, high, n, float(known[cut : n - cut].mean()))


def unpaired_interval(table: np.ndarray) -> Interval:
    """Median of all entries of a (rows, columns) table; rows and columns are resampled instead of entries."""
    known = interval(table)
    rows, columns = table.shape
    if not known.n or min(rows, columns) < 2:
        return Interval(known.median, n=known.n, iqm=known.iqm)
    generator = np.random.default_rng(0)
    by_row, by_column = resamples(rows, generator), resamples(columns, generator)
    drawn = table[by_row[:, :, None], by_column[:, None, :]].reshape(RESAMPLES, -1)
    low, high = percentiles(np.array([median(np.sort(draw[~np.isnan(draw)])) for draw in drawn]))
    return Interval(known.median, low, high, known.n, known.iqm)


def resampled_interval(values: np.ndarray, resampled: bool = True) -> Interval:
    """The interval of a quantity: `values` are (1 + RESAMPLES,), of the runs themselves and of every resample.

    NaN is left out. There is no interval if more than half of the resamples are NaN.
    """
    first, rest = float(values[0]), values[1:]
    if not resampled or math.isnan(first) or 2 * np.count_nonzero(~np.isnan(rest)) < len(rest):
        return Interval(first)
    return Interval(first, *percentiles(rest))


def median(known: np.ndarray) -> float:
    """The median of sorted values, NaN of none; infinity stays infinity."""
    n = len(known)
    return float(_mean(known[(n - 1) // 2], known[n // 2])) if n else math.nan


@cache
def _middle_positions(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(RESAMPLES,) each: positions, among n sorted values, of the two middle values of every resample.

    The resamples are the same for every n values; these positions are all that a bootstrap of the median needs.
    """
    draws = np.sort(resamples(n, np.random.default_rng(0)), axis=1)
    return draws[:, (n - 1) // 2], draws[:, n // 2]


def _mean(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(low == high, low, (low + high) / 2)


def nested_resamples(groups: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """(1 + RESAMPLES,) the median over groups of the medians within, of the values themselves and of every resample.

    A nested bootstrap for values in groups, such as the seeds of several searches: groups are drawn with replacement,
    and then the values within each drawn group. Each group (n,) has at least one value; infinity is kept.
    """
    count = len(groups)
    drawn = np.empty((RESAMPLES, count))
    chosen = generator.integers(count, size=(RESAMPLES, count))
    for position, values in enumerate(groups):
        where = chosen == position
        index = generator.integers(len(values), size=(int(where.sum()), len(values)))
        drawn[where] = np.median(values[index], axis=1)
    first = np.median([np.median(values) for values in groups])
    return np.concatenate([[first], np.median(drawn, axis=1)])


def nested_interval(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> tuple[Interval, str]:
    """A quantity computed from two nested medians, its interval, and what the interval is.

    With fewer than FEWEST groups on a side, or values in a group, a 95 % interval would not cover 95 %: instead it is
    the range of the quantity over all pairs of a value in `first` and one in `second`.
    """
    generator = np.random.default_rng(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = combine(nested_resamples(first, generator), nested_resamples(second, generator))
        if min(len(first), len(second), *map(len, first), *map(len, second)) >= FEWEST:
            return resampled_interval(values), NESTED
        pairs = combine(np.concatenate(list(first))[:, None], np.concatenate(list(second))[None, :])
    known = pairs[~np.isnan(pairs)]
    if not known.size:
        return Interval(float(values[0])), RANGE
    return Interval(float(values[0]), float(known.min()), float(known.max())), RANGE
