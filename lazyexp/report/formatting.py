"""Numbers, intervals, settings and targets as text in tables and sentences."""

from __future__ import annotations

import json
import math
from typing import Any

from lazyexp.report.intervals import Interval

DASH = "–"


def with_interval(stat: Interval, factor: float = 1, digits: int = 3) -> str:
    """`median [low, high]`, the median alone without an interval, and nothing if it is undefined."""
    if math.isnan(stat.median):
        return ""
    middle = number(stat.median * factor, digits)
    if not stat.known:
        return middle
    return f"{middle} [{number(stat.low * factor, digits)}, {number(stat.high * factor, digits)}]"


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, thousands with commas."""
    if not math.isfinite(value) or value == 0:
        return f"{value + 0.0:g}"  # -0 is 0
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}" if abs(value) < 1e9 and decimals < 8 else f"{value:.{digits}g}"


def count(n: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def setting(key: str, value: Any) -> str:
    """`key=value` as on the command line."""
    return f"{key}={setting_value(value)}"


def setting_value(value: Any) -> str:
    """A value as on the command line: `null`, `true`, `5000` instead of `None`, `True`, `5000.0`."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | dict):
        value = json.dumps(value)
    return str(value).replace('"', "")


def relative(baseline: str, margin: float) -> str:
    """The name of the target `margin` percentage points below the baseline's accuracy, the same everywhere."""
    return f"{baseline}-{margin:g}"


def target_name(target: str) -> str:
    """A target in words, from its name in the CSV files: `98 %`, or `backprop-0.1` as it is."""
    try:
        return f"{100 * float(target):.4g} %"
    except ValueError:
        return target
