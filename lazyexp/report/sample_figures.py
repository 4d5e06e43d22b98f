"""Figures of training samples: how often each was selected, the hardest images, and confusion matrices."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from lazyexp.report import BASELINE
from lazyexp.report.curves import figure_name
from lazyexp.report.groups import Group, rule_order
from lazyexp.report.labels import End
from lazyexp.report.read import Run
from lazyexp.report.style import HEIGHT, STYLE, WIDTH, FigureFolder

COUNTED = {"learned": "selected", "misclassified": "misclassified", "forgotten": "forgotten"}
COLUMNS, ROWS = 8, 4  # images on the contact sheet
ANNOTATED = 12  # classes up to which a confusion matrix has its numbers written in
ACROSS = 3  # confusion matrices in a row


def counts_of(run: Run) -> dict[str, np.ndarray]:
    """The arrays of a run's learned.npz, empty if it cannot be read."""
    try:
        with np.load(run.folder / "learned.npz", allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception:  # a damaged archive fails in many ways, and costs one figure
        return {}


def histograms(group: Group, folder: FigureFolder) -> None:
    """How many training samples were selected, misclassified and forgotten how often, rule by rule."""
    first = {rule: counts_of(min(runs, key=lambda run: run.seed)) for rule, runs in group.rules.items()}
    for name, verb in COUNTED.items():
        found = {rule: shares(arrays[name]) for rule, arrays in first.items() if name in arrays}
        if found:
            _histogram(found, folder, name, verb, group)


def shares(counts: np.ndarray) -> pd.Series:
    """Percent of the samples with 0, 1, 2, 3-4, 5-8, 9-16, ... counts."""
    bins = np.where(counts > 0, np.ceil(np.log2(np.maximum(counts, 1))) + 1, 0).astype(int)
    percent = 100 * np.bincount(bins) / len(counts)
    names = ["0", "1", "2", *(f"{2**k + 1}-{2 ** (k + 1)}" for k in range(1, 40))]
    return pd.Series(percent, index=names[: len(percent)])


def _histogram(found: dict[str, pd.Series], folder: FigureFolder, name: str, verb: str, group: Group) -> None:
    table = pd.DataFrame({rule: found[rule] for rule in found}).fillna(0.0)
    table = table.loc[sorted(table.index, key=lambda text: int(text.partition("-")[0]))]

    def paint(axes: Axes) -> list[End]:
        for rule in table:
            look = folder.looks[str(rule)]
            axes.plot(range(len(table)), table[rule], color=look.color, ls=look.line, marker=look.marker)
        axes.set_xticks(range(len(table)), list(table.index), rotation=30, ha="right")
        axes.set(xlabel=f"times {verb}", ylabel="training samples (%)")
        last = len(table) - 1
        return [End(str(rule), last, float(table[rule].iloc[-1]), folder.looks[str(rule)]) for rule in table]

    caption = f"How often training samples were {verb}, {group.label}: the run with the lowest seed of each rule."
    data = table.rename_axis("times").reset_index()
    folder.draw(figure_name(f"{name}_counts", group), caption, paint, data, group.title, (WIDTH, 2.8))


def trained_runs(runs: list[Run], baseline: str = BASELINE) -> list[Run]:
    """The run with the lowest seed of every rule whose final network is on disk; the baseline last."""
    usable = [
        run
        for run in runs
        if run.status in ("finished", "stopped")
        and not run.settings.get("dataset.subset")
        and all((run.folder / name).is_file() for name in ("learned.npz", "model.pt", "run.json"))
    ]
    order = [rule for rule in rule_order({run.rule for run in usable}, baseline) if rule != baseline]
    present = {run.rule for run in usable}
    return [
        min((run for run in usable if run.rule == rule), key=lambda run: run.seed)
        for rule in [*order, baseline]
        if rule in present
    ]


def sample_figures(runs: list[Run], folder: FigureFolder) -> None:
    """The hardest images of the first run, and the confusion matrices of all; a note if they cannot be computed."""
    if not runs:
        return
    from lazyexp.report.trained import Unavailable, predictions  # imports torch

    data = runs[0].settings["dataset.name"]
    matrices = {run.rule: recorded_confusion(run) for run in runs}
    # Runs of version 0.1 have no predictions.npz: their networks predict again.
    needed = [run for run in runs if run is runs[0] or matrices[run.rule] is None]
    try:
        for run, trained in predictions(needed):
            if run is runs[0]:
                _hardest(run, trained, folder)
            if matrices[run.rule] is None:
                matrices[run.rule] = trained.confusion
    except Unavailable as error:
        folder.note(f"No images of {data} ({error}).")
    found = {rule: matrix for rule, matrix in matrices.items() if matrix is not None}
    if found:
        _confusions(found, data, folder)


def recorded_confusion(run: Run) -> np.ndarray | None:
    """(classes, classes) counts from a run's predictions.npz: rows are labels. None if it cannot be read."""
    try:
        with np.load(run.folder / "predictions.npz", allow_pickle=False) as archive:
            target, prediction = (archive[name].astype(int) for name in ("target", "prediction"))
        classes = int(max(target.max(), prediction.max())) + 1
        return np.bincount(target * classes + prediction, minlength=classes**2).reshape(classes, classes)
    except Exception:  # missing, or damaged in one of many ways
        return None


def _hardest(run: Run, trained: Any, folder: FigureFolder) -> None:
    misclassified = counts_of(run)["misclassified"]
    hardest = np.lexsort((np.arange(len(misclassified)), -misclassified))[: COLUMNS * ROWS]
    table = pd.DataFrame(
        {
            "index": trained.index[hardest],
            "label": trained.labels[hardest],
            "prediction": trained.predict(hardest),
            "misclassified": misclassified[hardest],
        }
    )
    data = run.settings["dataset.name"]
    caption = (
        f"The training images that were misclassified most often ({data}, {run.rule}, seed {run.seed}): label, the "
        "final network's prediction if it differs, and in brackets the number of misclassifications."
    )
    pixels = trained.pixels(hardest)

    def paint(axes: Axes) -> list[End]:
        _contact_sheet(axes, pixels, table)
        return []

    folder.draw(f"hardest_{data}", caption, paint, table, size=(WIDTH * 1.3, HEIGHT * 1.3))


def _contact_sheet(axes: Axes, pixels: np.ndarray, table: pd.DataFrame) -> None:
    """Draw `pixels`, (n, height, width, 1 or 3) from 0 to 1, side by side, each with a line of text below."""
    n, height, width, channels = pixels.shape
    room = max(4, round(0.32 * height))
    rows = -(-n // COLUMNS)
    sheet = np.ones((rows * (height + room), COLUMNS * (width + 2), channels))
    for i in range(n):
        top, left = i // COLUMNS * (height + room), i % COLUMNS * (width + 2)
        sheet[top : top + height, left : left + width] = pixels[i]
        row = table.iloc[i]
        prediction = "" if row["prediction"] == row["label"] else f"→{row['prediction']}"
        axes.text(
            left + width / 2, top + height + room / 2, f"{row['label']}{prediction} ({row['misclassified']})",
            fontsize=5, ha="center", va="center",
        )  # fmt: skip
    axes.imshow(sheet if channels == 3 else sheet[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def _confusions(matrices: dict[str, np.ndarray], data: str, folder: FigureFolder) -> None:
    """One panel per rule, all on one colour scale."""
    classes = max(map(len, matrices.values()))
    wrong = {rule: _off_diagonal(matrix) for rule, matrix in matrices.items()}
    top = max(1.0, *(float(np.nan_to_num(matrix).max()) for matrix in wrong.values()))
    across = min(ACROSS, len(matrices))
    down = -(-len(matrices) // across)
    with matplotlib.rc_context(STYLE):
        figure = Canvas(figsize=(2.6 * across + 0.4, 2.8 * down + 0.3))
        panels = figure.subplots(down, across, squeeze=False).ravel()
        figure.subplots_adjust(left=0.08, right=0.99, bottom=0.45 / (2.8 * down), top=1 - 0.2 / (2.8 * down))
        for axes, (rule, matrix) in zip(panels, matrices.items(), strict=False):
            axes.imshow(wrong[rule], cmap="Reds", vmin=0, vmax=1.4 * top)
            axes.grid(visible=False)
            axes.set_title(rule, loc="left", pad=3)
            axes.set(xlabel="prediction", ylabel="label")
            if classes <= ANNOTATED:
                axes.set_xticks(range(classes))
                axes.set_yticks(range(classes))
                for (row, column), n in np.ndenumerate(matrix):
                    if n:
                        axes.text(column, row, f"{n}", fontsize=5, ha="center", va="center")
        for axes in panels[len(matrices) :]:
            axes.set_axis_off()
        table = pd.concat(
            [pd.DataFrame(matrix).rename_axis("label").reset_index().assign(rule=rule)
             for rule, matrix in matrices.items()]
        )  # fmt: skip
        caption = (
            f"Confusion matrices on the test set of {data}, of the run with the lowest seed of each rule: rows are "
            "labels, columns predictions."
        )
        folder.save(figure, f"confusion_{data}", caption, table, wide=across > 1)


def _off_diagonal(matrix: np.ndarray) -> np.ndarray:
    wrong = matrix.astype(float)
    np.fill_diagonal(wrong, np.nan)
    return wrong
