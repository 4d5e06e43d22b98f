"""Bars of speedups over what a sweep swept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import matplotlib
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lazyexp.report.groups import CONTROL, Group, rule_order, telling
from lazyexp.report.read import MEASURES
from lazyexp.report.statistics import MARGINS
from lazyexp.report.style import HEIGHT, STYLE, WIDTH, Sheet
from lazyexp.runs.columns import LABELS

NAMES = {measure: LABELS[measure].partition(" (")[0] for measure in MEASURES}  # a ratio has no unit
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")


def speedup_bars(table: pd.DataFrame, groups: list[Group], sheet: Sheet, measure: str) -> None:
    """One figure per combination of the other settings: panels are margins, bars rules, along the first key swept."""
    protocol = groups[0].protocol
    keys = telling(groups)
    rows = table[(table["protocol"] == protocol) & (table["measure"] == measure)].copy()
    rows[keys] = rows[keys].astype(object).where(rows[keys].notna(), "null")
    for key, where, part in _figures(rows, keys):
        title = ", ".join([f"{protocol} settings", *([where] if where else [])])
        caption = (
            f"Speedup over backprop in {NAMES[measure]}, {title}: median, 95 % interval, and in brackets the pairs "
            "in which the rule missed; empty bars: the median pair has a miss."
        )
        _draw(part, key, sheet, measure, title, f"speedup_{measure}_{protocol}_{where or 'all'}", caption)


def _figures(rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[str | None, str, pd.DataFrame]]:
    if len(keys) < 2:
        yield (keys[0] if keys else None), "", rows
        return
    others = keys[1:]
    for values, part in rows.groupby(others, dropna=False, sort=False):
        yield keys[0], ", ".join(f"{key}={value}" for key, value in zip(others, values, strict=True)), part


def _draw(
    rows: pd.DataFrame, key: str | None, sheet: Sheet, measure: str, title: str, name: str, caption: str
) -> None:
    rows = rows[rows["target"].str.startswith(CONTROL)]
    if not (rows["n_pairs"] > 0).any():
        return
    if not ((rows["median"] > 0) & (rows["median"] < math.inf)).any():
        sheet.remark(f"{title}: no bars of speedups, the median pair missed at every accuracy (see the table).")
        return
    rules = rule_order(rows["rule_label"])
    places = [None] if key is None else list(dict.fromkeys(rows[key]))
    wide = len(rules) * len(places) > 14
    # Without a swept key the bars are named below the axis; with one, in the legend.
    names = rules if key is None else [f"{place}" for place in places]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * (2 if wide else 1), HEIGHT * 1.6), layout="constrained")
        panels = figure.subplots(len(MARGINS), 1, sharex=True, sharey=True)
        limits = _limits(rows)
        for margin, axes in zip(MARGINS, panels, strict=True):
            part = rows[rows["target"] == f"{CONTROL}-{margin:g}"]
            for _, row in part.iterrows():
                at = rules.index(row["rule_label"])
                x = at if key is None else places.index(row[key]) + 0.8 * ((at + 0.5) / len(rules) - 0.5)
                width = 0.6 if key is None else 0.72 / len(rules)
                look = sheet.looks[row["rule_label"]]
                _bar(axes, x, width, row, look.color, HATCHES[at % len(HATCHES)], limits)
            axes.axhline(1, color="0.3", lw=0.6)
            axes.set_title(f"to backprop's final accuracy less {margin:g} points", loc="left", pad=3)
            axes.set(yscale="log", ylim=limits, xlim=(-0.6, len(names) - 0.4))
            axes.yaxis.set_major_locator(LogLocator(subs=(1,) if limits[1] / limits[0] > 100 else (1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid(visible=False, axis="x")
        long = key is None and max(map(len, names)) * len(names) > 40
        panels[-1].set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
        panels[-1].set_xlabel("rule" if key is None else key)
        figure.supylabel(f"speedup in {NAMES[measure]} (times)", fontsize=8)
        if key is not None:
            patches = [
                Patch(
                    facecolor=sheet.looks[rule].color, hatch=HATCHES[i % len(HATCHES)], edgecolor="white", label=rule
                )
                for i, rule in enumerate(rules)
            ]
            figure.legend(handles=patches, loc="outside upper center", ncol=min(3, len(rules)))
        seaborn.despine(fig=figure)
        sheet.save(figure, name, caption, rows)


def _bar(axes: Axes, x: float, width: float, row: pd.Series, color: Any, hatch: str, limits: tuple) -> None:
    """A bar from 1 up (faster) or down (slower); an empty one to the end of the axis where the median is 0 or inf."""
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
    words = "0" if median == 0 else "inf" if math.isinf(median) else ""
    missed = f"({row['n_rule_missed']}/{row['n_pairs']})" if row["n_rule_missed"] else ""
    if not words and not missed:
        return
    axes.annotate(
        "\n".join(part for part in (words, missed) if part), (x, min(top, high / 1.5)), (0, 2),
        textcoords="offset points", fontsize=6, ha="center", va="bottom", linespacing=0.9,
    ).set_in_layout(False)  # fmt: skip


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    values = pd.concat([rows["median"], rows["ci_low"], rows["ci_high"]])
    values = values[(values > 0) & (values < math.inf)].to_numpy()
    # Room above for what is written over the bars.
    low, high = min(values.min(initial=0.6), 0.6) / 1.2, max(values.max(initial=1.6), 1.6)
    return low, high * (high / low) ** 0.4
