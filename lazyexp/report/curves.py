"""The figures of one group of runs: curves over training and times to targets."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lazyexp.report.formatting import setting_value
from lazyexp.report.groups import Group
from lazyexp.report.intervals import interval
from lazyexp.report.labels import End, mark_target
from lazyexp.report.read import Run
from lazyexp.report.speedups import seconds_to
from lazyexp.report.style import LOG_FROM, TALL, WIDE, FigureFolder, line, scale
from lazyexp.runs.columns import LABELS

WIDTH_OF_TARGETS = 4.0  # inches
Curves = dict[str, tuple[pd.Series, pd.DataFrame]]


def by_evaluation(runs: list[Run], values: Callable[[pd.DataFrame], pd.Series]) -> pd.DataFrame:
    """Evaluations x runs, as long as at least half of the runs have the evaluation."""
    table = np.full((max(len(run.rows) for run in runs), len(runs)), math.nan)
    for column, run in enumerate(runs):
        table[: len(run.rows), column] = values(run.rows)
    frame = pd.DataFrame(table)
    return frame[frame.notna().sum(axis=1) * 2 >= len(runs)]


def figure_name(kind: str, group: Group) -> str:
    """The file name of a group's figure."""
    return f"{kind}_{group.protocol}_{group.label}"


def error_curves(group: Group, folder: FigureFolder, x: str, target: float | None = None, wide: bool = False) -> None:
    """Test error against a cost: median over seeds at every evaluation, with a band from the lowest to the highest.

    `target`: a test accuracy (0 to 1) that is marked by a line.
    """
    curves: Curves = {}
    for rule, runs in group.rules.items():
        across = by_evaluation(runs, lambda rows: rows[x]).median(axis=1)
        up = by_evaluation(runs, lambda rows: 100 * (1 - rows["test_accuracy"])).reindex(across.index)
        if len(across) and across.notna().any():
            curves[rule] = across, up

    def paint(axes: Axes) -> list[End] | None:
        if not curves:
            return None
        ends = _lines(axes, group, folder, curves)
        scale(axes.xaxis, _extremes([across for across, _ in curves.values()]))
        errors = [float(value) for _, up in curves.values() for value in up.to_numpy().ravel()]
        errors += [] if target is None else [100 * (1 - target)]
        scale(axes.yaxis, errors, log=min(errors, default=0) > 0)
        if target is not None:
            ends.append(mark_target(axes, target, axes.get_xlim()[1]))
        axes.set(xlabel=LABELS[x], ylabel="test error (%)")
        return ends

    caption = (
        f"Test error against {LABELS[x].partition(' (')[0]}, {group.label}: median over "
        "seeds at every evaluation, band from the lowest to the highest."
    )
    size = {"size": (WIDE, TALL)} if wide else {}
    data = _data(curves, x, "test_error")
    folder.draw(figure_name(f"error_{x}", group), caption, paint, data, group.title, **size)


def _extremes(series: list[pd.Series]) -> list[float]:
    return [float(value) for one in series for value in (one[one > 0].min(), one.max())]


def _data(curves: Curves, x: str, y: str) -> pd.DataFrame:
    """The data of some curves: a row per rule and evaluation."""
    parts = [
        pd.DataFrame({"rule": rule, x: across, y: up.median(axis=1), f"{y}_low": up.min(axis=1)})
        .assign(**{f"{y}_high": up.max(axis=1), "runs": up.notna().sum(axis=1)})
        for rule, (across, up) in curves.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _lines(axes: Axes, group: Group, folder: FigureFolder, curves: Curves) -> list[End]:
    numbers = {len(group.rules[rule]) for rule in curves}
    labels = {rule: rule if len(numbers) == 1 else f"{rule} (n={len(group.rules[rule])})" for rule in curves}
    found = [line(axes, across, up, folder.looks[rule], labels[rule]) for rule, (across, up) in curves.items()]
    return [end for end in found if end]


def of_presented(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    """The growth of a counter between consecutive evaluations, in percent of the samples presented."""

    def share(rows: pd.DataFrame) -> pd.Series:
        seen = rows["samples_seen"].diff().fillna(rows["samples_seen"])
        return (100 * rows[column].diff().fillna(rows[column]) / seen).where(seen > 0)

    return share


def selected_share(group: Group, folder: FigureFolder) -> None:
    """Percentage of the presented samples that were selected, between consecutive evaluations."""
    caption = f"Presented samples that were selected, between evaluations, {group.label}: median over seeds."
    share = of_presented("backward_samples")
    _shares(group, folder, share, "share_selected", "selected samples (%)", caption)


def forgetting(group: Group, folder: FigureFolder) -> None:
    """Percentage of the presented samples that were forgotten, between evaluations; nothing if not recorded."""
    caption = (
        "Forgetting: presented samples that were misclassified and had been classified correctly when they were "
        f"presented before, between evaluations, {group.label}: median over seeds."
    )
    _shares(group, folder, of_presented("forgetting_events"), "forgetting", "samples forgotten (%)", caption)


def presented_share(group: Group, folder: FigureFolder) -> None:
    """Percentage of the training samples that an epoch presents; nothing if all rules present all of them."""

    def share(rows: pd.DataFrame) -> pd.Series:
        epochs = rows["epoch"].diff().fillna(rows["epoch"])
        seen = rows["samples_seen"].diff().fillna(rows["samples_seen"])
        return (100 * seen / (epochs * size)).where(epochs > 0)

    size = group.runs[0].train_size
    caption = f"Training samples that an epoch presents, {group.label}: median over seeds."
    _shares(group, folder, share, "share_presented", "samples presented per epoch (%)", caption, below=99.5)


def _shares(
    group: Group,
    folder: FigureFolder,
    share: Callable[[pd.DataFrame], pd.Series],
    name: str,
    label: str,
    caption: str,
    below: float = math.inf,
) -> None:
    """A share (%) against epochs; nothing if no value is below `below`."""
    curves: Curves = {}
    for rule, runs in group.rules.items():
        up = by_evaluation(runs, share)
        across = by_evaluation(runs, lambda rows: rows["epoch"]).median(axis=1).reindex(up.index)
        if across.notna().any() and up.notna().any(axis=None):
            curves[rule] = across, up
    values = [float(value) for _, up in curves.values() for value in up.to_numpy().ravel() if value > 0]

    def paint(axes: Axes) -> list[End] | None:
        if not values or min(values) >= below:
            return None
        log = max(values) / min(values) >= LOG_FROM
        # 0 has no position on a logarithmic axis: the line has a gap there instead of a drop to the axis.
        shown = {rule: (across, up.where(up > 0) if log else up) for rule, (across, up) in curves.items()}
        ends = _lines(axes, group, folder, shown)
        scale(axes.yaxis, values, log)
        if not log:
            axes.set_ylim(bottom=0)
        axes.set(xlabel="epoch", ylabel=label)
        return ends

    folder.draw(figure_name(name, group), caption, paint, _data(curves, "epoch", "share"), group.title)


def time_to_target(group: Group, folder: FigureFolder) -> None:
    """Training seconds to every target along the curve: median and 95 % interval, a cross for a miss."""
    targets, rules = group.targets, list(group.rules)
    points, data, top = [], [], 0.0
    for rule in rules:
        for position, target in enumerate(targets):
            seconds = [seconds_to(run, target) for run in group.rules[rule]]
            stat, missed = interval(seconds), sum(map(math.isinf, seconds))
            if not stat.n:
                continue
            x = position + 0.7 * ((rules.index(rule) + 0.5) / len(rules) - 0.5)
            points.append((rule, x, stat, missed))
            data.append({"rule": rule, "target": target, "missed": missed, **vars(stat)})
            top = max(top, *(value for value in (0, *seconds) if math.isfinite(value)))

    def paint(axes: Axes) -> list[End] | None:
        if top == 0:
            return None
        bottom = min(stat.median for _, _, stat, _ in points if stat.median > 0)
        log = top / bottom >= LOG_FROM
        roof = top * (1.15 + 0.35 * log)
        ends = {}
        for rule, x, stat, missed in points:
            look, reached = folder.looks[rule], math.isfinite(stat.median)
            y = stat.median if reached else roof
            if reached and stat.known:
                axes.plot([x, x], [stat.low, min(stat.high, roof)], color=look.color, lw=1)
            axes.plot(x, y, look.marker if reached else "x", color=look.color, ls="none", clip_on=False)
            ends[rule] = End(rule, x, y, look)
            if missed and len(points) <= 12:
                axes.annotate(
                    f"{missed}/{stat.n}\nmissed", (x, roof), (0, 4), textcoords="offset points", fontsize=6,
                    ha="center", va="bottom", annotation_clip=False,
                )  # fmt: skip
        scale(axes.yaxis, [bottom, top], log)
        axes.set_ylim(bottom / 1.6 if log else 0, roof)
        names = [f"{setting_value(round(100 * target, 2))}" for target in targets]
        axes.set_xticks(range(len(targets)), names)
        axes.set(xlabel="target test accuracy (%)", ylabel="training time to target (s)")
        axes.set_xlim(-0.5, len(targets) - 0.5)
        axes.grid(visible=False, axis="x")
        return list(ends.values())

    caption = (
        f"Training time to each target along the curve, {group.label}: median and its 95 % bootstrap interval; a "
        "cross if the median run missed the target."
    )
    name = figure_name("time_to_target", group)
    folder.draw(name, caption, paint, pd.DataFrame(data), group.title, (WIDTH_OF_TARGETS, 2.8))
