"""The figure of a comparison at the end of a schedule: test error against seconds, with every rule's Pareto front."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lazyexp.report.comparisons import Comparison
from lazyexp.report.labels import End, mark_target
from lazyexp.report.style import TALL, WIDE, FigureFolder, scale
from lazyexp.runs.columns import LABELS

CAPTION = (
    "Test error at the end of a schedule against training time, {name}: every mark is one configuration, at the "
    "medians over its runs, bars from lowest to highest; steps join the configurations that no other one of the rule "
    "beats in both."
)


def pareto_figure(comparison: Comparison, folder: FigureFolder, target: float | None = None) -> None:
    """Final test error against training seconds, both logarithmic; `target` (0 to 1) is marked by a line."""
    data = points(comparison)

    def paint(axes: Axes) -> list[End] | None:
        if not (data["error"] > 0).any():
            return None
        right = data["seconds_high"].max() * 1.25
        ends = []
        for rule, part in data.groupby("rule", sort=False):
            look = folder.looks[str(rule)]
            spread = [
                [part[name] - part[f"{name}_low"], part[f"{name}_high"] - part[name]] for name in ("seconds", "error")
            ]
            axes.errorbar(
                part["seconds"], part["error"], xerr=spread[0], yerr=spread[1], fmt=look.marker, color=look.color,
                ms=4.5, mec="white", mew=0.5, lw=0.7, ls="none",
            )  # fmt: skip
            best = part[part["on_front"]].sort_values("seconds")
            x, y = [*best["seconds"], right], [*best["error"], best["error"].iloc[-1]]
            axes.plot(x, y, color=look.color, ls=look.line, lw=1, drawstyle="steps-post", zorder=1.5, alpha=0.8)
            ends.append(End(str(rule), right, float(y[-1]), look))
        scale(axes.xaxis, [*data["seconds_low"], right / 1.1], log=True)
        marked = [] if target is None else [100 * (1 - target)]
        scale(axes.yaxis, [*data["error_low"], *data["error_high"], *marked], log=True)
        if target is not None:
            ends.append(mark_target(axes, target, right))
        axes.set(xlabel=LABELS["train_seconds"], ylabel="test error (%)")
        return ends

    caption = CAPTION.format(name=comparison.name)
    folder.draw(f"pareto_{comparison.name}", caption, paint, data, comparison.name, (WIDE, TALL))


def points(comparison: Comparison) -> pd.DataFrame:
    """A row per configuration: medians and range of seconds and of test error (%)."""
    rows = []
    for rule, configurations in comparison.rules.items():
        steps = comparison.fronts[rule].steps()
        for i, one in enumerate(configurations):
            point = one.point()
            row = {"rule": rule, "configuration": one.name, "runs": len(one.runs), "on_front": i in steps}
            for name, values in (("seconds", point.seconds), ("error", 100 * (1 - point.accuracy))):
                row |= {name: np.median(values), f"{name}_low": values.min(), f"{name}_high": values.max()}
            rows.append(row)
    return pd.DataFrame(rows)
