"""How figures look, and where they are saved: at the width of a paper's column, each as PNG and PDF.

Colours are seaborn's `colorblind`; line styles and markers differ too, so that grey prints stay legible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lazyexp.report.groups import CONTROL, rule_order
from lazyexp.utils.files import atomic_write, write_text

WIDTH, HEIGHT = 3.4, 2.6  # inches: one column of a paper
STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.frameon": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
    "lines.markersize": 3.5, "axes.grid": True, "grid.linewidth": 0.4, "grid.color": "0.9", "axes.axisbelow": True,
    "savefig.dpi": 200, "pdf.fonttype": 42, "hatch.linewidth": 0.5,
}  # fmt: skip
PALETTE = ["0.15", *(seaborn.color_palette("colorblind")[place] for place in (0, 1, 2, 4, 3, 5, 9, 8, 6))]
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = "os^Dv<>PX"
LOG_FROM = 30.0  # ratio of the largest to the smallest value from which an axis is logarithmic


@dataclass(frozen=True)
class Look:
    """How a rule is drawn, the same in all figures."""

    color: Any
    line: Any
    marker: str


@dataclass(frozen=True)
class Drawn:
    """A figure that was made: the file name without its ending, and what it shows."""

    name: str
    caption: str


def looks(rules: list[str], variants: list[str]) -> dict[str, Look]:
    """A look for every rule, and for its variants by options; black and solid for the control."""
    order = list(dict.fromkeys([CONTROL, *rule_order(rules), *rule_order(variants)]))
    return {
        rule: Look(PALETTE[i % len(PALETTE)], LINES[i % len(LINES)], MARKERS[i % len(MARKERS)])
        for i, rule in enumerate(order)
    }


class Sheet:
    """Where figures are saved; remembers what was drawn."""

    def __init__(self, folder: Path, rules: list[str], variants: list[str]) -> None:
        self.folder, self.looks = folder, looks(rules, variants)
        self.drawn: list[Drawn] = []
        self.remarks: list[str] = []

    def remark(self, text: str) -> None:
        """A line of text in place of a figure; said once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def draw(
        self, name: str, caption: str, paint: Callable[[Axes], object], data: pd.DataFrame, height: float = HEIGHT
    ) -> None:
        """One figure with one pair of axes and a legend above it; nothing if `paint` returns False."""
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(WIDTH, height), layout="constrained")
            axes = figure.subplots()
            if paint(axes) is False:
                return
            seaborn.despine(fig=figure)
            handles, labels = axes.get_legend_handles_labels()
            if handles:
                many = len(labels) > 8  # in smaller type, or the legend would take the page
                columns = max(1 + many, min(3, len(labels), int(56 / (max(map(len, labels)) + 7))))
                rows = math.ceil(len(labels) / columns)
                figure.set_size_inches(WIDTH, height + 0.14 * max(rows - 1, 0))
                size = {"fontsize": 6, "handlelength": 2.0, "columnspacing": 1.0} if many else {"handlelength": 2.6}
                figure.legend(handles, labels, loc="outside upper center", ncol=columns, **size)
            self.save(figure, name, caption, data)

    def save(self, figure: Figure, name: str, caption: str, data: pd.DataFrame) -> None:
        """The figure as PNG and PDF, with what it shows as CSV."""
        name = re.sub(r"[^\w.=-]+", "_", name)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Without a date the same runs give the same file.
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            path = self.folder / f"{name}.{kind}"
            atomic_write(path, partial(figure.savefig, format=kind, metadata=metadata))
        write_text(self.folder / f"{name}.csv", data.to_csv(index=False))
        self.drawn.append(Drawn(name, caption))


def line(axes: Axes, x: pd.Series, y: pd.DataFrame, look: Look, label: str) -> None:
    middle = y.median(axis=1)
    axes.fill_between(x, y.min(axis=1), y.max(axis=1), color=look.color, alpha=0.15, lw=0)
    every = max(1, len(x) // 8)
    axes.plot(x, middle, color=look.color, ls=look.line, marker=look.marker, markevery=every, label=label)


def maybe_log(axes: Axes, low: float, high: float) -> None:
    if low > 0 and high / low >= LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
    elif high >= 10000:
        short = FuncFormatter(lambda value, _: f"{value / 1e6:g}M" if high >= 2e6 else f"{value / 1e3:g}k")
        axes.xaxis.set_major_formatter(short)


def plain(axis: Axis, ends: tuple[float, float]) -> None:
    """Figures written out on a logarithmic axis from one of `ends` to the other, as many as there is room for."""
    span = max(ends) / min(ends)
    steps = (1,) if span > 300 else (1, 2, 5) if span > 8 else (1, 1.5, 2, 3, 4, 6, 8)
    axis.set_major_locator(MaxNLocator(5) if span < 3 else LogLocator(subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
