"""Predicted speedup of a lazy rule against the share of mistakes: see docs/speedup.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lazyexp.report.labels import End, Look
from lazyexp.report.prediction import predicted_speedup
from lazyexp.report.style import LINES, PALETTE, FigureFolder

DRAWN = (2.0, 3.5, 5.5, 10.0)
GAP = 0.45  # least distance of two labels on the axis of speedup


def prediction_figure(
    folder: FigureFolder,
    points: Sequence[tuple[str, float, float]],
    ratios: Sequence[float] = DRAWN,
    claimed: float | None = None,
) -> None:
    """Predicted speedup against the share of mistakes, a line per ratio of costs.

    Args:
        points: name, share of mistakes (0 to 1) and speedup of what was measured or predicted.
        claimed: a speedup to mark by a horizontal line.
    """
    right = max(0.3, *(1.1 * share for _, share, _ in points)) if points else 0.3
    shares = np.linspace(0, right, 61)
    curves = [(ratio, shares, predicted_speedup(shares, ratio)) for ratio in ratios]
    data = pd.concat(
        [pd.DataFrame({"kind": "predicted", "name": f"B/F={r:g}", "mistakes": s, "speedup": v}) for r, s, v in curves]
        + [pd.DataFrame([("point", *point) for point in points], columns=["kind", "name", "mistakes", "speedup"])]
    )

    def paint(axes: Axes) -> list[End]:
        ends = []
        for i, (ratio, x, y) in enumerate(curves):
            look = Look(PALETTE[i % len(PALETTE)], LINES[i % len(LINES)], "")
            axes.plot(100 * x, y, color=look.color, ls=look.line)
            ends.append(End(f"B/F = {ratio:g}", 100 * float(x[-1]), float(y[-1]), look))
        if claimed is not None:
            axes.axhline(claimed, color="0.5", lw=0.6, ls=":")
            axes.annotate(
                f"{claimed:g}", (100 * right, claimed), (0, 2), textcoords="offset points", fontsize=6, ha="right"
            )
        _mark(axes, points, right)
        axes.set(xlabel="share of mistakes s (%)", ylabel="speedup over backprop", xlim=(-1, 100 * right))
        heights = [speedup for _, _, speedup in points]
        axes.set_ylim(min([0.8, *heights]) - 0.05, max([1 + max(ratios), *heights]) + 0.5)
        return ends

    caption = (
        "Predicted speedup of a lazy rule over backprop, (F + B) / (F + s B), against the share of mistakes s, for "
        "several costs B of a backward pass and its step relative to a forward pass F."
    )
    folder.draw("predicted_speedup", caption, paint, data, size=(3.8, 3.0))


def _mark(axes: Axes, points: Sequence[tuple[str, float, float]], right: float) -> None:
    """Points with their names beside them, each below the names of higher points."""
    last = math.inf
    for name, share, speedup in sorted(points, key=lambda point: -point[2]):
        axes.plot(100 * share, speedup, "ko", ms=3)
        last = min(speedup, last - GAP)
        inside = share < 0.6 * right
        axes.annotate(
            name, (100 * share, speedup), (100 * (share + (0.03 if inside else -0.03) * right), last), fontsize=6,
            ha="left" if inside else "right", va="center",
            bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.3},
        )  # fmt: skip
