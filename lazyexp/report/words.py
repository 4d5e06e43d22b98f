"""Figures as they stand in tables and sentences."""

from __future__ import annotations

import math

import pandas as pd

from lazyexp.report.fronts import Estimate
from lazyexp.report.groups import CONTROL
from lazyexp.report.statistics import Interval


def ratio(row: pd.Series) -> str:
    """The speedup in a row of speedup.csv, or why there is none."""
    if math.isnan(row["median"]):
        return "undecided" if row["n_pairs"] == 0 else "both missed" if row["n_rule_missed"] else f"{CONTROL} missed"
    return shown(Interval(0, row["median"], row["iqm"], row["ci_low"], row["ci_high"]))


def shown(stat: Interval | Estimate, factor: float = 1, digits: int = 3) -> str:
    """`median [low, high]`, or the median alone where there is no interval."""
    value = stat.value if isinstance(stat, Estimate) else stat.median
    if math.isnan(value):
        return ""
    middle = number(value * factor, digits)
    if math.isnan(stat.low):
        return middle
    return f"{middle} [{number(stat.low * factor, digits)}, {number(stat.high * factor, digits)}]"


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, thousands with commas."""
    if not math.isfinite(value) or value == 0:
        return f"{value + 0.0:g}"  # -0 is 0
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}" if abs(value) < 1e9 and decimals < 8 else f"{value:.{digits}g}"
