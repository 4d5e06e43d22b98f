"""The figure of a swept setting: test accuracy and speedup against it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lazyexp.report.formatting import setting, setting_value
from lazyexp.report.groups import distinguishing, sortable
from lazyexp.report.headline import CURVE, MAX_MISSED, Headline
from lazyexp.report.labels import End, label_ends
from lazyexp.report.style import LOG_FROM, STYLE, WIDE, FigureFolder, fit, scale, ticks

MANY = 12  # values of a setting from which not every one has a tick


def swept_key(found: list[Headline]) -> list[str]:
    """The settings that distinguish the comparisons along the curve, the one for the axis first."""
    return distinguishing([one.settings for one in found if one.kind == CURVE])


def swept_figures(found: list[Headline], folder: FigureFolder, limit: int) -> None:
    """Figures along the first setting that the sweep varied, one for each combination of the other settings."""
    for key, where, part in list(_parts(found))[:limit]:
        _draw(key, where, part, folder)


def _parts(found: list[Headline]) -> Iterator[tuple[str, str, list[Headline]]]:
    keys = swept_key(found)
    if not keys:
        return
    combinations: dict[str, list[Headline]] = {}
    for one in found:
        if one.kind == CURVE:
            where = ", ".join(setting(name, one.settings.get(name)) for name in keys[1:])
            combinations.setdefault(where, []).append(one)
    for where, part in combinations.items():
        if len(part) > 1:
            yield keys[0], where, part


def table(key: str, found: list[Headline]) -> pd.DataFrame:
    """A row per value of the setting and rule: accuracy (%) and speedup with their intervals."""
    rows = []
    for one in sorted(found, key=lambda one: sortable(one.settings.get(key))):
        for outcome in one.outcomes:
            speedup = outcome.speedups.get(one.target)
            row: dict[str, Any] = {key: one.settings.get(key), "rule": outcome.rule, "target": one.target}
            row |= {"accuracy": 100 * outcome.accuracy.median, "accuracy_low": 100 * outcome.accuracy.low}
            row |= {"accuracy_high": 100 * outcome.accuracy.high, "missed": outcome.missed.get(one.target)}
            if speedup:
                row |= {"speedup": speedup.median, "speedup_low": speedup.low, "speedup_high": speedup.high}
            rows.append(row)
    return pd.DataFrame(rows).reindex(
        columns=[key, "rule", "target", "accuracy", "accuracy_low", "accuracy_high", "missed", "speedup",
                 "speedup_low", "speedup_high"]
    )  # fmt: skip


def _draw(key: str, where: str, found: list[Headline], folder: FigureFolder) -> None:
    data = table(key, found)
    values = list(dict.fromkeys(data[key]))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    data["position"] = data[key] if numeric else [values.index(value) for value in data[key]]
    target = next((one.target for one in found if one.target), "")
    panels = [("accuracy", "test accuracy (%)")]
    if data["speedup"].between(0, math.inf, inclusive="neither").any():
        panels.append(("speedup", f"speedup to {target}"))
    with matplotlib.rc_context(STYLE):
        figure = Canvas(figsize=(WIDE / 2 * len(panels), 3.2))
        longest = max(len(str(rule)) for rule in data["rule"])
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        fit(figure, where, longest)
        figure.subplots_adjust(wspace=0.3)
        for axes, (name, label) in zip(grid, panels, strict=True):
            ends = [_line(axes, part, str(rule), name, folder) for rule, part in data.groupby("rule", sort=False)]
            _axis(axes, key, values, numeric)
            if name == "speedup":
                baseline = folder.looks[found[0].baseline]
                axes.axhline(1, color=baseline.color, lw=0.8)
                ends.append(End(found[0].baseline, float(data["position"].max()), 1.0, baseline))
                known = data[name][data[name].between(0, math.inf, inclusive="neither")]
                scale(axes.yaxis, [*known, 0.8, 1.25], log=True)
            axes.set_ylabel(label)
            if axes is grid[-1]:
                label_ends(figure, axes, [end for end in ends if end])
        caption = f"Test accuracy and speedup along the curve over {found[0].baseline} against {key}"
        caption += (
            f" ({where})" * bool(where) + ": medians with 95 % bootstrap intervals; hollow: not reached reliably."
        )
        folder.save(figure, f"swept_{key}_{where or 'all'}", caption, data.drop(columns="position"), wide=True)


def _line(axes: Axes, part: pd.DataFrame, rule: str, name: str, folder: FigureFolder) -> End | None:
    look = folder.looks[rule]
    known = part[part[name].notna() & part[name].between(0, math.inf, inclusive="neither")]
    if known.empty:
        return None
    axes.plot(
        known["position"],
        known[name],
        color=look.color,
        ls=look.line,
        marker=look.marker if len(known) <= MANY else "",
    )
    if name == "speedup":
        unreliable = known[known["missed"] > MAX_MISSED]
        axes.plot(unreliable["position"], unreliable[name], look.marker, color=look.color, mfc="white", ls="none")
    spread = known[known[f"{name}_low"].notna() & (known[f"{name}_low"] > 0) & (known[f"{name}_high"] < math.inf)]
    axes.vlines(
        spread["position"], spread[f"{name}_low"], spread[f"{name}_high"], color=look.color, lw=0.8, alpha=0.7
    )
    last = known.iloc[-1]
    return End(rule, float(last["position"]), float(last[name]), look)


def _axis(axes: Axes, key: str, values: list[Any], numeric: bool) -> None:
    axes.set_xlabel(key)
    if not numeric:
        axes.set_xticks(range(len(values)), [setting_value(value) for value in values], rotation=20)
    elif min(values) > 0 and max(values) / min(values) >= LOG_FROM / 3:
        scale(axes.xaxis, values, log=True)
        if len(values) <= MANY:
            ticks(axes.xaxis, values)
    elif len(values) <= MANY:
        ticks(axes.xaxis, values)
