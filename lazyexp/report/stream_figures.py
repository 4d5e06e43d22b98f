"""Figures of streams and stores: accuracies on old and new classes, stored samples, updates by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lazyexp.report.curves import by_evaluation, figure_name
from lazyexp.report.groups import Group, collect, label_rules, name_groups
from lazyexp.report.intervals import interval
from lazyexp.report.labels import TARGET, End, label_ends
from lazyexp.report.read import Run
from lazyexp.report.streams import ends, in_phases, phase_rows, stores
from lazyexp.report.style import STYLE, WIDE, FigureFolder, fit, line, looks, scale

PANELS = {"old_class_accuracy": "old classes (%)", "new_class_accuracy": "new classes (%)"}


def stream_figures(groups: Sequence[Group], folder: FigureFolder) -> None:
    """The figures of every group whose runs have phases or a store."""
    for group in groups:
        if any(in_phases(run) for run in group.runs):
            class_accuracies(group, folder)
            updates_by_phase(group, folder)
        if any(stores(run) for run in group.runs):
            store_size(group, folder)


def borders(group: Group) -> list[float]:
    """Samples presented at the ends of all phases but the last, of the group's first run with phases."""
    run = next(run for run in group.runs if in_phases(run))
    return list(np.cumsum([row["samples_seen"] for row in phase_rows(run)])[:-1])


def class_accuracies(group: Group, folder: FigureFolder) -> None:
    """Test accuracy on the classes of earlier phases and on those of the phase, against samples presented."""
    parts = []
    with matplotlib.rc_context(STYLE):
        figure = Canvas(figsize=(WIDE * 0.8, 4.2))
        panels = figure.subplots(2, 1, sharex=True)
        fit(figure, group.title, max(len(rule) for rule in group.rules))
        for axes, (column, label) in zip(panels, PANELS.items(), strict=True):
            found = []
            for rule, runs in group.rules.items():
                up = by_evaluation(runs, percent(column))
                across = by_evaluation(runs, lambda rows: rows["samples_seen"]).median(axis=1).reindex(up.index)
                if up.notna().any(axis=None):
                    found.append(line(axes, across, up, folder.looks[rule], rule))
                    middle = up.median(axis=1)
                    parts.append(
                        pd.DataFrame({"rule": rule, "classes": column, "samples": across, "accuracy": middle})
                    )
            mark_borders(axes, borders(group))
            axes.set_ylim(max(axes.get_ylim()[0], -3), 103)
            axes.set_ylabel(label)
            label_ends(figure, axes, [end for end in found if end])
        panels[-1].set_xlabel("samples presented")
        scale(panels[-1].xaxis, [], log=False)
        caption = (
            f"Test accuracy on the classes of earlier phases (top) and on those of the current phase (bottom), "
            f"{group.label}: median over seeds, band from the lowest to the highest; dotted: borders of phases."
        )
        folder.save(figure, figure_name("old_and_new", group), caption, pd.concat(parts), wide=True)


def percent(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    """A column of metrics.csv in percent."""
    return lambda rows: 100 * rows[column]


def mark_borders(axes: Axes, positions: Sequence[float]) -> None:
    """A dotted vertical line at every border of two phases."""
    for position in positions:
        axes.axvline(position, color=TARGET.color, lw=0.6, ls=TARGET.line, zorder=0)


def store_size(group: Group, folder: FigureFolder) -> None:
    """Stored samples against samples presented."""
    curves = {}
    for rule, runs in group.rules.items():
        some = [run for run in runs if stores(run)]
        if some:
            up = by_evaluation(some, lambda rows: rows["memory_samples"])
            curves[rule] = by_evaluation(some, lambda rows: rows["samples_seen"]).median(axis=1).reindex(up.index), up

    def paint(axes: Axes) -> list[End] | None:
        found = [line(axes, across, up, folder.looks[rule], rule) for rule, (across, up) in curves.items()]
        if any(in_phases(run) for run in group.runs):
            mark_borders(axes, borders(group))
        axes.set_ylim(bottom=0)
        for axis in (axes.xaxis, axes.yaxis):
            scale(axis, [], log=False)
        axes.set(xlabel="samples presented", ylabel="samples stored")
        return [end for end in found if end]

    data = pd.concat(
        [
            pd.DataFrame({"rule": rule, "samples": across, "stored": up.median(axis=1)})
            for rule, (across, up) in curves.items()
        ]
    )
    caption = f"Samples in the store, {group.label}: median over seeds, band from the lowest to the highest."
    folder.draw(figure_name("stored", group), caption, paint, data, group.title)


def updates_by_phase(group: Group, folder: FigureFolder) -> None:
    """Updates in every phase as bars, with the median over seeds and its interval."""
    rows: list[dict[str, Any]] = []
    for rule, runs in group.rules.items():
        found = [phase_rows(run) for run in runs if run.complete]
        for position in range(max((len(phases) for phases in found), default=0)):
            part = [phases[position] for phases in found if position < len(phases)]
            stat = interval([row["updates"] for row in part])
            m0, m1 = (float(np.median([row[name] for row in part])) for name in ("energy_l0", "energy_l1"))
            entry = {"phase": part[0]["phase"], "rule": rule, "updates": stat.median, "m0": m0, "m1": m1}
            rows.append({**entry, "low": stat.low, "high": stat.high, "runs": len(part)})
    data = pd.DataFrame(rows)

    def paint(axes: Axes) -> list[End] | None:
        if data.empty:
            return None
        rules, phases = list(dict.fromkeys(data["rule"])), sorted(set(data["phase"]))
        width, found = 0.8 / len(rules), []
        for number, rule in enumerate(rules):
            part, look = data[data["rule"] == rule], folder.looks[str(rule)]
            x = part["phase"] + (number + 0.5) * width - 0.4
            axes.bar(x, part["updates"], width * 0.9, color=look.color, alpha=0.85)
            known = part[part["low"].notna()]
            axes.vlines(x[known.index], known["low"], known["high"], color="black", lw=0.7)
            found.append(End(str(rule), float(x.iloc[-1]), float(part["updates"].iloc[-1]), look))
        scale(axes.yaxis, data["updates"])
        axes.set_xticks(phases, [f"{phase:.0f}" for phase in phases])
        axes.set(xlabel="phase", ylabel="updates")
        axes.grid(visible=False, axis="x")
        return found

    caption = f"Updates in every phase, {group.label}: median over seeds with its 95 % bootstrap interval."
    folder.draw(figure_name("updates_by_phase", group), caption, paint, data, group.title, (4.6, 2.8))


def accuracy_against_stored(runs: Sequence[Run], folder: FigureFolder, limit: int) -> None:
    """Final test accuracy against the samples stored, for every kind of store, in runs that differ in the store.

    A hollow point is that of a new network trained on the store alone.
    """
    some = [run for run in runs if run.complete and stores(run)]
    left_out = ("memory.name", "memory.capacity")
    groups = name_groups(collect(some, "matched", label_rules(some), left_out))
    for group in groups[:limit]:
        for rule, members in group.rules.items():
            data = stored_table(members)
            if len(data[["memory", "capacity"]].drop_duplicates()) > 1:
                _draw_stored(group, rule, data, folder)


def stored_table(runs: Sequence[Run]) -> pd.DataFrame:
    """A row per run and use of its store (`replay`, `alone`): samples stored, updates, M1 and test accuracy."""
    rows = []
    for run in runs:
        end, restart = ends(run)
        memory, capacity = run.settings["memory.name"], run.settings.get("memory.capacity")
        entry = {"memory": memory, "capacity": capacity or "unlimited", "seed": run.seed}
        entry["stored"] = float(run.rows["memory_samples"].max())
        for use, row in (("replay", end), ("alone", restart)):
            if row is not None:
                found = {"accuracy": 100 * row["test_accuracy"], "updates": row["updates"], "m1": row["energy_l1"]}
                rows.append({**entry, "use": use, **found})
    return pd.DataFrame(rows)


def _draw_stored(group: Group, rule: str, data: pd.DataFrame, folder: FigureFolder) -> None:
    shown = looks(("mistakes", "balanced"), baseline="reservoir")

    def paint(axes: Axes) -> list[End]:
        found = []
        for (kind, use), part in data.groupby(["memory", "use"], sort=True):
            middle = part.groupby("capacity", sort=False)[["stored", "accuracy"]].median().sort_values("stored")
            look = shown[str(kind)]
            fill = look.color if use == "replay" else "white"
            axes.plot(
                middle["stored"], middle["accuracy"], color=look.color, ls="-" if use == "replay" else ":",
                marker=look.marker, mfc=fill,
            )  # fmt: skip
            name = str(kind) if use == "replay" else f"{kind} alone"
            found.append(End(name, float(middle["stored"].iloc[-1]), float(middle["accuracy"].iloc[-1]), look))
        scale(axes.xaxis, data["stored"], log=True)
        axes.set(xlabel="samples stored", ylabel="test accuracy (%)")
        return found

    where = f", {group.title}" if group.title else ""
    caption = (
        f"Test accuracy against the samples stored, {rule}{where}: medians over seeds. Solid: at the end of the "
        "stream, with replays if there were any. Dotted, hollow (alone): a new network trained on the final store."
    )
    folder.draw(f"accuracy_stored_{rule}_{group.label}", caption, paint, data, f"{rule}{where}", (4.6, 3.2))
