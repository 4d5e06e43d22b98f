"""Figures across sizes: distinct samples selected against the data set's size, updates against the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lazyexp.report.formatting import with_interval
from lazyexp.report.groups import Group, collect, label_rules, name_groups
from lazyexp.report.intervals import Interval, interval, percentiles, resamples
from lazyexp.report.labels import End, label_ends
from lazyexp.report.read import Run
from lazyexp.report.style import STYLE, FigureFolder, fit, scale, ticks

LEAST = 3  # values of a size from which a figure is drawn
# Settings that may differ between the data sets of one figure.
PER_DATA = ("dataset.name", "data", "epochs", "eval_every")


def scaling_figures(runs: Sequence[Run], folder: FigureFolder, limit: int) -> None:
    """The figures of runs at three or more sizes of the data set or of the batch."""
    complete = [run for run in runs if run.complete]
    for group in _groups(complete, ("dataset.train_size",))[:limit]:
        if len({run.train_size for run in group.runs}) >= LEAST:
            distinct_samples(group, folder)
    for group in _groups(complete, ("batch_size", *PER_DATA))[:limit]:
        if len({run.settings["batch_size"] for run in group.runs}) >= LEAST:
            updates_share(group, folder)


def _groups(runs: list[Run], left_out: Sequence[str]) -> list[Group]:
    return name_groups(collect(runs, "matched", label_rules(runs), left_out))


def exponent(runs: Sequence[Run], seed: int = 0) -> Interval:
    """b in `distinct samples selected = a * size^b`: least squares on logarithms of medians over seeds.

    The 95 % interval is that of a bootstrap in which the seeds of every size are resampled.
    """
    sizes = sorted({run.train_size for run in runs})
    values = [np.array([run.final("distinct_learned") for run in runs if run.train_size == size]) for size in sizes]
    middle = np.array([np.median(part) for part in values])
    if len(sizes) < 2 or not (middle > 0).all():
        return Interval()
    slope = _slope(sizes, middle[:, None])[0]
    if min(map(len, values)) < 2:
        return Interval(float(slope))
    draws = np.random.default_rng(seed)
    medians = np.stack([np.median(part[resamples(len(part), draws)], axis=1) for part in values])
    return Interval(float(slope), *percentiles(_slope(sizes, medians)))


def _slope(sizes: Sequence[float], values: np.ndarray) -> np.ndarray:
    """Slopes of log(values), (sizes, n), against log(sizes): (n,)."""
    x = np.log(np.array(sizes))
    x = x - x.mean()
    slopes: np.ndarray = (x[:, None] * np.log(values)).sum(0) / (x**2).sum()
    return slopes


def distinct_samples(group: Group, folder: FigureFolder) -> None:
    """Training samples that were selected at least once, against the size of the data set, on logarithmic axes."""
    rows: list[dict[str, Any]] = []
    for rule, runs in group.rules.items():
        fitted = exponent(runs)
        for size in sorted({run.train_size for run in runs}):
            stat = interval([run.final("distinct_learned") for run in runs if run.train_size == size])
            entry = {"rule": rule, "train_size": size, "distinct": stat.median, "low": stat.low, "high": stat.high}
            rows.append(
                {**entry, "exponent": fitted.median, "exponent_low": fitted.low, "exponent_high": fitted.high}
            )
    data = pd.DataFrame(rows)

    def paint(axes: Axes) -> list[End] | None:
        if not (data["distinct"] > 0).any():
            return None
        ends = []
        for rule, part in data.groupby("rule", sort=False):
            look, first = folder.looks[str(rule)], part.iloc[0]
            axes.plot(part["train_size"], part["distinct"], color=look.color, ls=look.line, marker=look.marker)
            axes.vlines(part["train_size"], part["low"], part["high"], color=look.color, lw=0.8)
            fitted = Interval(first["exponent"], first["exponent_low"], first["exponent_high"])
            text = f"{rule} ({with_interval(fitted, 1, 2)})"
            ends.append(End(text, float(part["train_size"].iloc[-1]), float(part["distinct"].iloc[-1]), look))
        scale(axes.xaxis, data["train_size"], log=True)
        scale(axes.yaxis, data["distinct"], log=True)
        axes.set(xlabel="training samples", ylabel="distinct samples selected")
        return ends

    where = f", {group.title}" if group.title else ""
    caption = (
        f"Distinct samples selected against the size of the data set{where}: medians over seeds with 95 % bootstrap "
        "intervals. In brackets: the exponent of a power law and its 95 % bootstrap interval."
    )
    folder.draw(f"distinct_samples_{group.label}", caption, paint, data, where.removeprefix(", "), (3.8, 3.0))


def updates_share(group: Group, folder: FigureFolder) -> None:
    """Updates in percent of backprop's, and samples back-propagated in percent, against the batch size."""
    rows = []
    for rule, runs in group.rules.items():
        for name in sorted({str(run.settings["dataset.name"]) for run in runs}):
            for size in sorted({run.settings["batch_size"] for run in runs}):
                some = [r for r in runs if (r.settings["dataset.name"], r.settings["batch_size"]) == (name, size)]
                updates = interval([100 * r.final("updates") / r.final("updates_possible") for r in some])
                selected = interval([100 * r.final("backward_samples") / r.final("samples_seen") for r in some])
                entry = {"data": name, "rule": rule, "batch_size": size, "updates": updates.median}
                entry |= {"low": updates.low, "high": updates.high, "selected": selected.median, "runs": len(some)}
                rows.append(entry)
    data = pd.DataFrame(rows)
    names = list(dict.fromkeys(data["data"]))
    with matplotlib.rc_context(STYLE):
        figure = Canvas(figsize=(2.3 * len(names) + 0.6, 2.8))
        panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
        fit(figure, group.title, max(len(str(rule)) for rule in group.rules))
        for axes, name in zip(panels, names, strict=True):
            ends = []
            for rule, part in data[(data["data"] == name) & (data["runs"] > 0)].groupby("rule", sort=False):
                look = folder.looks[str(rule)]
                axes.plot(part["batch_size"], part["updates"], color=look.color, ls=look.line, marker=look.marker)
                axes.plot(part["batch_size"], part["selected"], color=look.color, ls=":", lw=0.9)
                last = part.iloc[-1]
                ends.append(End(str(rule), float(last["batch_size"]), float(last["updates"]), look))
            scale(axes.xaxis, data["batch_size"], log=True)
            ticks(axes.xaxis, sorted(set(data["batch_size"])))
            axes.set(title=name, xlabel="batch size", ylim=(0, 105))
        label_ends(figure, panels[-1], ends)
        panels[0].set_ylabel("updates (% of backprop)")
        caption = (
            "Updates in percent of backprop's against the batch size: medians over seeds. Dotted: samples selected, "
            "in percent of those presented."
        )
        folder.save(figure, f"updates_share_{group.label}", caption, data, wide=len(names) > 1)
