"""Labels of lines, written directly beside their ends instead of in a legend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

JOINED = 6  # labels up to which each is joined to its line


@dataclass(frozen=True)
class Look:
    """How a rule is drawn, the same in all figures."""

    color: str
    line: Any
    marker: str


TARGET = Look("#595959", (0, (1, 2)), "")


@dataclass(frozen=True)
class End:
    """The label of a line, at its last point."""

    text: str
    x: float
    y: float
    look: Look


def mark_target(axes: Axes, target: float, x: float) -> End:
    """Mark a test accuracy (0 to 1) by a line in a figure of test errors (%); its label begins at `x`."""
    error = 100 * (1 - target)
    axes.axhline(error, color=TARGET.color, lw=0.8, ls=TARGET.line, zorder=0)
    return End(f"target {100 * target:.4g} %", x, error, TARGET)


def label_ends(figure: Figure, axes: Axes, ends: list[End], fontsize: float = 7) -> None:
    """Write each label right of the axes at the height of its line's end, moved apart where they would overlap.

    A few labels are joined to their lines; many have a sample of their line instead, since joints would cross.
    """
    height = axes.get_position().height * figure.get_size_inches()[1]
    gap = 1.2 * fontsize / 72 / height  # of the height of the axes
    to_axes = axes.transData + axes.transAxes.inverted()
    # A line without points, such as the energy of a run that measured none, has no end.
    ends = [end for end in ends if math.isfinite(end.x) and math.isfinite(end.y)]
    wanted = [float(to_axes.transform((end.x, end.y))[1]) for end in ends]
    order = sorted(range(len(ends)), key=lambda i: wanted[i])
    many = len(ends) > JOINED
    for i, y in zip(order, spread([wanted[i] for i in order], gap), strict=True):
        end = ends[i]
        look = end.look
        joint = {"arrowstyle": "-", "color": look.color, "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 1}
        axes.annotate(
            end.text, (end.x, end.y), (1.085 if many else 1.03, y), textcoords="axes fraction", fontsize=fontsize,
            color=look.color, va="center", ha="left", annotation_clip=False, arrowprops=None if many else joint,
        )  # fmt: skip
        if many:
            axes.plot(
                [1.02, 1.045, 1.07], [y, y, y], color=look.color, ls=look.line, marker=look.marker, markevery=[1],
                transform=axes.transAxes, clip_on=False, scalex=False, scaley=False,
            )  # fmt: skip


def spread(heights: list[float], gap: float) -> list[float]:
    """Move sorted heights (0 to 1) as little as needed so that neighbours are `gap` apart."""
    clusters: list[tuple[float, int]] = []  # centre, members
    for height in heights:
        clusters.append((height, 1))
        while True:
            centre, n = clusters[-1]
            half = gap * (n - 1) / 2
            clusters[-1] = (min(max(centre, half), max(1 - half, half)), n)
            if len(clusters) < 2 or clusters[-1][0] - clusters[-2][0] >= gap * (n + clusters[-2][1]) / 2:
                break
            (a, m), (b, n) = clusters[-2:]
            clusters[-2:] = [((a * m + b * n) / (m + n), m + n)]
    return [centre + gap * (i - (n - 1) / 2) for centre, n in clusters for i in range(n)]
