"""The look of the figures and where they are saved: each as PNG and PDF with its data as CSV.

Colours are seaborn's `colorblind` palette. Line styles and markers differ, too, and lines are labelled directly, so
that figures stay legible in grey and with many rules.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lazyexp.report import BASELINE
from lazyexp.report.blocks import Figure
from lazyexp.report.groups import rule_order
from lazyexp.report.labels import End, Look, label_ends
from lazyexp.utils.files import atomic_write, write_text

WIDTH, HEIGHT = 3.4, 2.6  # inches of a figure without the labels at its right
WIDE, TALL = 7.5, 4.2
STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.frameon": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
    "lines.markersize": 3.5, "axes.grid": True, "grid.linewidth": 0.4, "grid.color": "0.9", "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 160, "hatch.linewidth": 0.5,
    # Type 3 fonts hold the glyphs in use only; embedding TrueType subsets took a quarter of a report's time.
    "pdf.fonttype": 3,
}  # fmt: skip
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#cc78bc", "#d55e00", "#ca9161", "#56b4e9", "#b3a300", "#949494")
LINES: tuple[Any, ...] = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), "-")
MARKERS = "s^Dv<>PX"
LOG_FROM = 30.0  # ratio of the largest to the smallest value from which an axis is logarithmic
LONGEST = 120  # characters of a figure's file name


def looks(rules: Iterable[str], variants: Iterable[str] = (), baseline: str = BASELINE) -> dict[str, Look]:
    """A look for every rule and for its variants by options; black and solid for the baseline."""
    others = dict.fromkeys([*rule_order(rules, baseline), *rule_order(variants, baseline)])
    others.pop(baseline, None)
    found = {baseline: Look("#262626", "-", "o")}
    for i, rule in enumerate(others):
        found[rule] = Look(PALETTE[i % len(PALETTE)], LINES[i % len(LINES)], MARKERS[i % len(MARKERS)])
    return found


class FigureFolder:
    """The folder of a report's figures, with a list of what was drawn and notes on what was not."""

    def __init__(
        self, folder: Path, rules: Iterable[str], variants: Iterable[str] = (), baseline: str = BASELINE
    ) -> None:
        self.folder, self.looks = folder, looks(rules, variants, baseline)
        self.figures: list[Figure] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """A line of text in place of a figure, once."""
        if text not in self.notes:
            self.notes.append(text)

    def draw(
        self,
        name: str,
        caption: str,
        paint: Callable[[Axes], list[End] | None],
        data: pd.DataFrame,
        title: str = "",
        size: tuple[float, float] = (WIDTH, HEIGHT),
    ) -> None:
        """One figure with one pair of axes; nothing if `paint` returns None, else it returns the labels of lines."""
        with matplotlib.rc_context(STYLE):
            figure = Canvas(figsize=size)
            axes = figure.add_subplot()
            ends = paint(axes)
            if ends is None:
                return
            fit(figure, title, max((len(end.text) for end in ends), default=0))
            label_ends(figure, axes, ends)
            self.save(figure, name, caption, data, wide=size[0] >= WIDE)

    def save(self, figure: Canvas, name: str, caption: str, data: pd.DataFrame, wide: bool = False) -> None:
        """Save the figure as PNG and PDF, and what it shows as CSV."""
        name = re.sub(r"[^\w.=-]+", "_", name)
        if len(name) > LONGEST:  # file systems allow 255 bytes
            name = f"{name[: LONGEST - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        # Without a date the same runs give the same file.
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            atomic_write(self.folder / f"{name}.{kind}", partial(figure.savefig, format=kind, metadata=metadata))
        write_text(self.folder / f"{name}.csv", data.to_csv(index=False))
        self.figures.append(Figure(name, caption, wide))


def fit(figure: Canvas, title: str = "", label_length: int = 0) -> None:
    """Margins for axis labels, a title, and labels of so many characters: cheaper than a layout engine."""
    width, height = figure.get_size_inches()
    right = 0.12 + (0.45 + 0.062 * label_length if label_length else 0)
    figure.set_size_inches(width + right, height)
    lines = _wrapped(title, int(width * 14))
    if title:
        figure.suptitle(lines, fontsize=8, x=0.02, y=1 - 0.06 / height, ha="left", va="top")
    top = 0.15 + 0.15 * (lines.count("\n") + 1) * bool(title)
    figure.subplots_adjust(
        left=0.58 / (width + right), right=1 - right / (width + right), bottom=0.46 / height, top=1 - top / height
    )


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) if text else ""


def line(axes: Axes, x: pd.Series, y: pd.DataFrame, look: Look, label: str) -> End | None:
    """Median over runs with a band from the lowest to the highest. Returns the label at its end."""
    middle = y.median(axis=1)
    axes.fill_between(x, y.min(axis=1), y.max(axis=1), color=look.color, alpha=0.15, lw=0)
    every = max(1, len(x) // 8)
    axes.plot(x, middle, color=look.color, ls=look.line, marker=look.marker, markevery=every)
    drawn = middle.notna() & x.notna()
    return End(label, float(x[drawn].iloc[-1]), float(middle[drawn].iloc[-1]), look) if drawn.any() else None


def scale(axis: Axis, values: Iterable[float], log: bool | None = None) -> None:
    """A logarithmic axis if positive values differ much (or `log`), with ticks such as 0.1, 1, 10 in either case."""
    positive = [value for value in values if value > 0 and math.isfinite(value)]
    if log is None:
        log = bool(positive) and max(positive) / min(positive) >= LOG_FROM
    if not log or not positive:
        axis.set_major_formatter(FuncFormatter(_short))
        return
    low, high = min(positive), max(positive)
    margin = max((high / low) ** 0.06, 1.03)
    low, high = low / margin, high * margin
    _set(axis, low, high)
    span = high / low
    steps = (1,) if span > 300 else (1, 2, 5) if span > 8 else (1, 1.5, 2, 3, 4, 6, 8)
    axis.set_major_locator(MaxNLocator(5) if span < 3 else LogLocator(subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_short))


def _set(axis: Axis, low: float, high: float) -> None:
    axes = axis.axes
    horizontal = axis is axes.xaxis
    (axes.set_xscale if horizontal else axes.set_yscale)("log")
    (axes.set_xlim if horizontal else axes.set_ylim)(low, high)


def ticks(axis: Axis, values: list[float]) -> None:
    """Ticks at these values, written out."""
    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(_short))


def _short(value: float, _: object = None) -> str:
    """0.1, 1, 10, 10k, 2M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.4g}{suffix}"
    return f"{value:.4g}"
