"""Bars of speedups along the curve, at each margin below the baseline's final accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from lazyexp.report.formatting import relative, setting, setting_value
from lazyexp.report.groups import Group, distinguishing, rule_order
from lazyexp.report.read import MEASURES
from lazyexp.report.speedups import MARGINS
from lazyexp.report.style import HEIGHT, STYLE, WIDTH, FigureFolder, fit, scale
from lazyexp.runs.columns import LABELS

NAMES = {measure: LABELS[measure].partition(" (")[0] for measure in MEASURES}  # a ratio has no unit
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")
MANY = 60  # bars from which a figure cannot be read any more


def speedup_figures(table: pd.DataFrame, groups: list[Group], folder: FigureFolder, measure: str) -> None:
    """One figure per combination of the other settings: panels are margins, bars rules, along the first swept key."""
    protocol, baseline = groups[0].protocol, groups[0].baseline
    keys = distinguishing([group.settings for group in groups])
    rows = table[(table["protocol"] == protocol) & (table["measure"] == measure)].copy()
    rows[keys] = rows[keys].astype(object).where(rows[keys].notna(), "null")
    for key, where, part in _parts(rows, keys):
        title = ", ".join([f"{protocol} settings", *([where] if where else [])])
        caption = (
            f"Speedup over {baseline} in {NAMES[measure]} along the curve, {title}: median, 95 % interval, and in "
            "brackets the pairs in which the rule missed the target; empty bars: the median pair has a miss."
        )
        name = f"speedup_{measure}_{protocol}_{where or 'all'}"
        _draw(part, key, baseline, folder, measure, title, name, caption)


def _parts(rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[str | None, str, pd.DataFrame]]:
    if len(keys) < 2:
        yield (keys[0] if keys else None), "", rows
        return
    others = keys[1:]
    for values, part in rows.groupby(others, dropna=False, sort=False):
        yield keys[0], ", ".join(setting(key, value) for key, value in zip(others, values, strict=True)), part


def _draw(
    rows: pd.DataFrame,
    key: str | None,
    baseline: str,
    folder: FigureFolder,
    measure: str,
    title: str,
    name: str,
    caption: str,
) -> None:
    margins = [margin for margin in MARGINS if relative(baseline, margin) in set(rows["target"])]
    rows = rows[rows["target"].isin([relative(baseline, margin) for margin in margins])]
    if not (rows["n_pairs"] > 0).any():
        return
    if not ((rows["median"] > 0) & (rows["median"] < math.inf)).any():
        folder.note(f"{title}: no bars of speedups, the median pair missed at every accuracy (see the table).")
        return
    rules = rule_order(rows["rule_label"], baseline)
    values = [None] if key is None else list(dict.fromkeys(rows[key]))
    if len(rules) * len(values) > MANY:
        folder.note(f"{title}: no bars of {len(rules) * len(values)} speedups (see the table).")
        return
    # Without a swept key the bars are named below the axis; with one, in the legend.
    names = rules if key is None else [setting_value(value) for value in values]
    with matplotlib.rc_context(STYLE):
        width = WIDTH * (2 if len(rules) * len(values) > 14 else 1)
        figure = Canvas(figsize=(width, HEIGHT * 0.45 * len(margins) + 0.6))
        panels = figure.subplots(len(margins), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        long = max(map(len, names)) * len(names) > 14 * width
        figure.set_figheight(figure.get_figheight() + 0.7 * long)
        fit(figure, title)
        figure.subplots_adjust(hspace=0.45, bottom=(0.46 + 0.7 * long) / figure.get_figheight())
        finite = [v for c in ("median", "ci_low", "ci_high") for v in rows[c] if 0 < v < math.inf]
        limits = min(0.6, *finite) / 1.2, max(1.6, *finite)
        limits = limits[0], limits[1] * (limits[1] / limits[0]) ** 0.4  # room for the text above the bars
        for margin, axes in zip(margins, panels, strict=True):
            for _, row in rows[rows["target"] == relative(baseline, margin)].iterrows():
                i = rules.index(row["rule_label"])
                x = i if key is None else values.index(row[key]) + 0.8 * ((i + 0.5) / len(rules) - 0.5)
                color = folder.looks[row["rule_label"]].color
                bar = 0.6 if key is None else 0.72 / len(rules)
                _bar(axes, x, bar, row, color, HATCHES[i % len(HATCHES)], limits)
            axes.axhline(1, color="0.3", lw=0.6)
            axes.set_title(f"to {relative(baseline, margin)}", loc="left", pad=3)
            scale(axes.yaxis, limits, log=True)
            axes.set(ylim=limits, xlim=(-0.6, len(names) - 0.4))
            axes.grid(visible=False, axis="x")
        panels[-1].set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
        panels[-1].set_xlabel("rule" if key is None else key)
        panels[len(panels) // 2].set_ylabel(f"speedup in {NAMES[measure]}")
        if key is not None:
            colors = [folder.looks[rule].color for rule in rules]
            patches = [
                Patch(facecolor=color, hatch=HATCHES[i % len(HATCHES)], edgecolor="white", label=rule)
                for i, (rule, color) in enumerate(zip(rules, colors, strict=True))
            ]
            panels[0].legend(handles=patches, loc="upper left", ncol=min(3, len(rules)), fontsize=6)
        folder.save(figure, name, caption, rows)


def _bar(
    axes: Axes, x: float, width: float, row: pd.Series, color: str, hatch: str, limits: tuple[float, float]
) -> None:
    """A bar from 1 up (faster) or down (slower); an empty one to the end of the axis for a median of 0 or inf."""
    low, high = limits
    median, top = row["median"], 1.0
    if not math.isnan(median):
        finite = 0 < median < math.inf
        end = median if finite else low if median == 0 else high / 2
        look: dict[str, Any] = (
            {"color": color, "hatch": hatch, "edgecolor": "white"} if finite else {"fill": False, "edgecolor": color}
        )
        axes.bar(x, end - 1, width, bottom=1, lw=0.6, **look)
        top = max(top, end)
    if not math.isnan(row["ci_low"]) and row["ci_low"] < row["ci_high"]:
        ends = [min(max(end, low), high) for end in (row["ci_low"], row["ci_high"])]
        axes.plot([x, x], ends, color="0.2", lw=0.9)
        top = max(top, ends[1])
    text = "0" if median == 0 else "inf" if math.isinf(median) else ""
    missed = f"({row['n_rule_missed']}/{row['n_pairs']})" if row["n_rule_missed"] else ""
    if text or missed:
        axes.annotate(
            "\n".join(part for part in (text, missed) if part), (x, min(top, high / 1.5)), (0, 2),
            textcoords="offset points", fontsize=6, ha="center", va="bottom", linespacing=0.9,
        )  # fmt: skip
