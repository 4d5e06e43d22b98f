"""The figure of a race: test error against seconds, and every rule's front as a staircase."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lazyexp.report.races import Race
from lazyexp.report.style import Sheet, plain
from lazyexp.runs.columns import LABELS

CAPTION = (
    "Test error at the end against training time, {race}: every mark is one configuration, at the medians over its "
    "runs, bars from lowest to highest; stairs join the ones that no other configuration of the rule beats in both."
)


def pareto(race: Race, sheet: Sheet) -> None:
    """Final test error (log axis) against training seconds (log axis)."""
    data = points(race)

    def paint(axes: Axes) -> bool:
        if not (data["error"] > 0).any():
            return False
        right = data["seconds_high"].max() * 1.25
        for rule, part in data.groupby("rule", sort=False):
            look = sheet.looks[rule]
            spread = [
                [part[f"{name}"] - part[f"{name}_low"], part[f"{name}_high"] - part[name]]
                for name in ("seconds", "error")
            ]
            axes.errorbar(
                part["seconds"], part["error"], xerr=spread[0], yerr=spread[1], fmt=look.marker, color=look.color,
                ms=4.5, mec="white", mew=0.5, lw=0.7, ls="none", label=rule,
            )  # fmt: skip
            best = part[part["on_front"]].sort_values("seconds")
            x, y = [*best["seconds"], right], [*best["error"], best["error"].iloc[-1]]
            axes.plot(x, y, color=look.color, ls=look.line, lw=1, drawstyle="steps-post", zorder=1.5, alpha=0.8)
        axes.set(xscale="log", yscale="log", xlabel=LABELS["train_seconds"], ylabel="test error (%)")
        plain(axes.xaxis, axes.get_xlim())
        plain(axes.yaxis, axes.get_ylim())
        return True

    sheet.draw(f"pareto_{race.name}", CAPTION.format(race=race.name), paint, data)


def points(race: Race) -> pd.DataFrame:
    """A row per configuration: medians and range of seconds and of test error (%)."""
    rows = []
    for rule, configurations in race.rules.items():
        steps = race.fronts[rule].steps()
        for place, one in enumerate(configurations):
            point = one.point()
            row = {"rule": rule, "configuration": one.name, "runs": len(one.runs), "on_front": place in steps}
            for name, values in (("seconds", point.seconds), ("error", 100 * (1 - point.accuracy))):
                row |= {name: np.median(values), f"{name}_low": values.min(), f"{name}_high": values.max()}
            rows.append(row)
    return pd.DataFrame(rows)
