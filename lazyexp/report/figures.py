"""The figures of a group of runs, and of all groups together."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from lazyexp.columns import LABELS
from lazyexp.report.groups import Group, rule_order
from lazyexp.report.read import Run
from lazyexp.report.statistics import crossing, interval
from lazyexp.report.style import LOG_FROM, Sheet, line, maybe_log, percent


def by_evaluation(runs: list[Run], values: Callable[[pd.DataFrame], pd.Series]) -> pd.DataFrame:
    """Evaluations x runs, as long as at least half of the runs have the evaluation."""
    table = pd.concat([values(run.rows).reset_index(drop=True) for run in runs], axis=1)
    return table[table.notna().sum(axis=1) * 2 >= len(runs)]


def curves(group: Group, sheet: Sheet, x: str) -> None:
    """Test accuracy against a cost: median over seeds at every evaluation, band from the lowest to the highest."""

    def paint(axes: Axes) -> bool:
        ends = []
        for rule, runs in group.rules.items():
            across = by_evaluation(runs, lambda rows: rows[x]).median(axis=1)
            up = by_evaluation(runs, lambda rows: rows["test_accuracy"]).reindex(across.index)
            if across.empty:
                continue
            line(axes, across, up, sheet.looks[rule], f"{rule} (n={len(runs)})")
            ends += [across[across > 0].min(), across.max()]
        if not ends:
            return False
        maybe_log(axes, min(ends), max(ends))
        axes.set(xlabel=LABELS[x], ylabel="test accuracy (%)")
        axes.yaxis.set_major_formatter(percent())
        return True

    caption = f"Test accuracy against {LABELS[x]}, {group.label}: median over seeds, band from lowest to highest."
    sheet.draw(f"accuracy_{x}_{group.protocol}_{group.label}", caption, paint)


def share_learning(group: Group, sheet: Sheet) -> None:
    """Which share of the presented samples learned, between consecutive evaluations."""

    def share(rows: pd.DataFrame) -> pd.Series:
        seen = rows["samples_seen"].diff().fillna(rows["samples_seen"])
        learned = rows["backward_samples"].diff().fillna(rows["backward_samples"])
        return (learned / seen).where(seen > 0)

    def paint(axes: Axes) -> bool:
        values = []
        for rule, runs in group.rules.items():
            up = by_evaluation(runs, share)
            across = by_evaluation(runs, lambda rows: rows["epoch"]).median(axis=1).reindex(up.index)
            if not across.notna().any():
                continue
            line(axes, across, up, sheet.looks[rule], f"{rule} (n={len(runs)})")
            values += [value for value in up.to_numpy().ravel() if value > 0]
        if not values:
            return False
        if max(values) / min(values) >= LOG_FROM:
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel="samples that learn (%)")
        axes.yaxis.set_major_formatter(percent())
        axes.yaxis.set_minor_formatter(NullFormatter())
        return True

    caption = f"Share of the presented samples that learned, between evaluations, {group.label}: median over seeds."
    sheet.draw(f"share_learning_{group.protocol}_{group.label}", caption, paint)


def _seconds(run: Run, target: float) -> float:
    """Training seconds to a target; infinite if missed, NaN if the run was cut off before."""
    row = crossing(run, target)
    if row is not None:
        return float(row["train_seconds"])
    return math.inf if run.status in ("finished", "diverged") else math.nan


def time_to_target(group: Group, sheet: Sheet) -> None:
    """Training seconds to every target: median and 95 % interval over runs; a cross where the median run missed."""

    def paint(axes: Axes) -> bool:
        targets, rules = group.targets, list(group.rules)
        points, top = [], 0.0
        for rule in rules:
            for place, target in enumerate(targets):
                seconds = [_seconds(run, target) for run in group.rules[rule]]
                stat, missed = interval(seconds), sum(map(math.isinf, seconds))
                if not stat.n:
                    continue
                x = place + 0.7 * ((rules.index(rule) + 0.5) / len(rules) - 0.5)
                points.append((rule, x, stat, missed))
                top = max(top, *(value for value in (0, *seconds) if math.isfinite(value)))
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
    sheet.draw(f"time_to_target_{group.protocol}_{group.label}", caption, paint)


def pareto(groups: list[Group], sheet: Sheet, dataset: str) -> None:
    """Final test accuracy against training seconds: runs small, medians large, the best trade-offs joined."""

    def paint(axes: Axes) -> bool:
        medians = []
        for rule in rule_order(rule for group in groups for rule in group.rules):
            look, label = sheet.looks[rule], rule
            for group in groups:
                runs = [run for run in group.rules.get(rule, []) if run.status in ("finished", "stopped")]
                points = np.array([(run.final("train_seconds"), run.final("test_accuracy")) for run in runs])
                if not len(points):
                    continue
                axes.plot(*points.T, look.marker, color=look.color, ms=2, alpha=0.5, mew=0)
                medians.append(np.median(points, axis=0))
                axes.plot(*medians[-1], look.marker, color=look.color, ms=5, mec="white", mew=0.5, label=label)
                label = "_again"
        if not medians:
            return False
        front = [m for m in medians if not any(o[0] <= m[0] and o[1] >= m[1] and (o != m).any() for o in medians)]
        axes.plot(*np.array(sorted(map(tuple, front))).T, color="0.6", lw=0.8, ls="--", zorder=0.5)
        seconds = [point[0] for point in medians if point[0] > 0]
        maybe_log(axes, min(seconds, default=1), max(seconds, default=1))
        axes.set(xlabel=LABELS["train_seconds"], ylabel="final test accuracy (%)")
        axes.yaxis.set_major_formatter(percent())
        axes.margins(0.08)
        return True

    caption = (
        f"Final test accuracy against training time, {dataset}: small marks are runs, large ones medians; the dashed"
    )
    sheet.draw(f"pareto_{dataset}", f"{caption} line joins the medians that no other one beats in both.", paint)
