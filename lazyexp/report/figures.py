"""The figures of a group of runs, and of all groups together."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lazyexp.report.groups import Group
from lazyexp.report.read import Run
from lazyexp.report.statistics import crossing, interval
from lazyexp.report.style import LOG_FROM, Sheet, line, maybe_log, plain
from lazyexp.runs.columns import LABELS


def by_evaluation(runs: list[Run], values: Callable[[pd.DataFrame], pd.Series]) -> pd.DataFrame:
    """Evaluations x runs, as long as at least half of the runs have the evaluation."""
    table = np.full((max(len(run.rows) for run in runs), len(runs)), math.nan)
    for place, run in enumerate(runs):
        table[: len(run.rows), place] = values(run.rows)
    table = pd.DataFrame(table)
    return table[table.notna().sum(axis=1) * 2 >= len(runs)]


Curves = dict[str, tuple[pd.Series, pd.DataFrame]]


def _data(curves: Curves, x: str, y: str) -> pd.DataFrame:
    """What is drawn of some curves: a row per rule and evaluation."""
    parts = [
        pd.DataFrame({"rule": rule, x: across, y: up.median(axis=1), f"{y}_low": up.min(axis=1)})
        .assign(**{f"{y}_high": up.max(axis=1), "runs": up.notna().sum(axis=1)})
        for rule, (across, up) in curves.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _lines(axes: Axes, group: Group, sheet: Sheet, curves: Curves) -> None:
    for rule, (across, up) in curves.items():
        line(axes, across, up, sheet.looks[rule], f"{rule} (n={len(group.rules[rule])})")


def curves(group: Group, sheet: Sheet, x: str) -> None:
    """Test error against a cost: median over seeds at every evaluation, band from the lowest to the highest."""
    found: Curves = {}
    for rule, runs in group.rules.items():
        across = by_evaluation(runs, lambda rows: rows[x]).median(axis=1)
        up = by_evaluation(runs, lambda rows: 100 * (1 - rows["test_accuracy"])).reindex(across.index)
        if len(across) and across.notna().any():
            found[rule] = across, up

    def paint(axes: Axes) -> bool:
        if not found:
            return False
        ends = [value for across, _ in found.values() for value in (across[across > 0].min(), across.max())]
        _lines(axes, group, sheet, found)
        maybe_log(axes, min(ends), max(ends))
        if min(up.min(axis=None) for _, up in found.values()) > 0:
            axes.set_yscale("log")
            plain(axes.yaxis, axes.get_ylim())
        axes.set(xlabel=LABELS[x], ylabel="test error (%)")
        return True

    caption = f"Test error against {LABELS[x]}, {group.label}: median over seeds, band from lowest to highest."
    sheet.draw(f"error_{x}_{group.protocol}_{group.label}", caption, paint, _data(found, x, "test_error"))


def of_presented(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    """How much a counter grew between consecutive evaluations, in percent of the samples presented."""

    def share(rows: pd.DataFrame) -> pd.Series:
        seen = rows["samples_seen"].diff().fillna(rows["samples_seen"])
        return (100 * rows[column].diff().fillna(rows[column]) / seen).where(seen > 0)

    return share


def share_learning(group: Group, sheet: Sheet) -> None:
    """Which share of the presented samples learned, between consecutive evaluations."""

    caption = f"Share of the presented samples that learned, between evaluations, {group.label}: median over seeds."
    _shares(group, sheet, of_presented("backward_samples"), "share_learning", "samples that learn (%)", caption)


def forgetting(group: Group, sheet: Sheet) -> None:
    """Which share of the presented samples had been forgotten, between evaluations; nothing where none was noted."""
    caption = (
        "Forgetting: presented samples that were misclassified and had been right when they were presented before, "
        f"between evaluations, {group.label}: median over seeds."
    )
    _shares(group, sheet, of_presented("forgetting_events"), "forgetting", "samples forgotten (%)", caption)


def share_awake(group: Group, sheet: Sheet) -> None:
    """Which share of the training samples was presented per epoch; nothing if all rules present all of them."""

    def share(rows: pd.DataFrame) -> pd.Series:
        epochs = rows["epoch"].diff().fillna(rows["epoch"])
        seen = rows["samples_seen"].diff().fillna(rows["samples_seen"])
        return (100 * seen / (epochs * size)).where(epochs > 0)

    size = group.runs[0].train_size
    caption = f"Samples awake: the share of the training set presented per epoch, {group.label}: median over seeds."
    _shares(group, sheet, share, "share_awake", "samples presented per epoch (%)", caption, unless=99.5)


def _shares(
    group: Group,
    sheet: Sheet,
    share: Callable[[pd.DataFrame], pd.Series],
    name: str,
    label: str,
    caption: str,
    unless: float = math.inf,
) -> None:
    """A share (%) against epochs; nothing if none is below `unless`."""
    found: Curves = {}
    for rule, runs in group.rules.items():
        up = by_evaluation(runs, share)
        across = by_evaluation(runs, lambda rows: rows["epoch"]).median(axis=1).reindex(up.index)
        if across.notna().any() and up.notna().any(axis=None):
            found[rule] = across, up
    values = [value for _, up in found.values() for value in up.to_numpy().ravel() if value > 0]

    def paint(axes: Axes) -> bool:
        if not values or min(values) >= unless:
            return False
        _lines(axes, group, sheet, found)
        if max(values) / min(values) >= LOG_FROM:
            axes.set_yscale("log")
            plain(axes.yaxis, axes.get_ylim())
        axes.set(xlabel="epoch", ylabel=label)
        return True

    sheet.draw(f"{name}_{group.protocol}_{group.label}", caption, paint, _data(found, "epoch", "share"))


def _seconds(run: Run, target: float) -> float:
    """Training seconds to a target; infinite if missed, NaN if the run was cut off before."""
    place = crossing(run, target)
    if place is not None:
        return float(run.columns["train_seconds"][place])
    return math.inf if run.status in ("finished", "diverged") else math.nan


def time_to_target(group: Group, sheet: Sheet) -> None:
    """Training seconds to every target: median and 95 % interval over runs; a cross where the median run missed."""

    targets, rules = group.targets, list(group.rules)
    points, data, top = [], [], 0.0
    for rule in rules:
        for place, target in enumerate(targets):
            seconds = [_seconds(run, target) for run in group.rules[rule]]
            stat, missed = interval(seconds), sum(map(math.isinf, seconds))
            if not stat.n:
                continue
            x = place + 0.7 * ((rules.index(rule) + 0.5) / len(rules) - 0.5)
            points.append((rule, x, stat, missed))
            data.append({"rule": rule, "target": target, "missed": missed, **vars(stat)})
            top = max(top, *(value for value in (0, *seconds) if math.isfinite(value)))

    def paint(axes: Axes) -> bool:
        if top == 0:
            return False
        bottom = min(stat.median for _, _, stat, _ in points if stat.median > 0)
        roof = top * (1.15 + 0.35 * (top / bottom >= LOG_FROM))
        for rule, x, stat, missed in points:
            look, known = sheet.looks[rule], math.isfinite(stat.median)
            y, label = (stat.median if known else roof), f"{rule} (n={stat.n})"
            if label in axes.get_legend_handles_labels()[1]:
                label = "_again"
            if known and not math.isnan(stat.low):
                axes.plot([x, x], [stat.low, min(stat.high, roof)], color=look.color, lw=1)
            # The legend shows the rule's marker even where its first target was missed.
            axes.plot([], [], look.marker, color=look.color, label=label)
            axes.plot(x, y, look.marker if known else "x", color=look.color, ls="none", clip_on=False)
            if missed:
                axes.annotate(
                    f"{missed}/{stat.n}\nmissed", (x, roof), (0, 4), textcoords="offset points", fontsize=6,
                    ha="center", va="bottom", annotation_clip=False,
                )  # fmt: skip
        if top / bottom >= LOG_FROM:
            axes.set_yscale("log")
            axes.set_ylim(bottom / 1.6, roof)
        else:
            axes.set_ylim(0, roof)
        axes.set_xticks(range(len(targets)), [f"{100 * target:.4g}" for target in targets])
        axes.set(xlabel="target test accuracy (%)", ylabel="training time to target (s)")
        axes.set_xlim(-0.5, len(targets) - 0.5)
        axes.grid(visible=False, axis="x")
        return True

    caption = (
        f"Training time to target, {group.label}: median and its 95 % bootstrap interval; x: the median run missed."
    )
    sheet.draw(f"time_to_target_{group.protocol}_{group.label}", caption, paint, pd.DataFrame(data))
