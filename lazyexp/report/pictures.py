"""Pictures of what was learned: how often, from which images, and what the network still confuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lazyexp.report.groups import CONTROL, Group, rule_order
from lazyexp.report.read import Run
from lazyexp.report.style import HEIGHT, Sheet

COUNTED = {"learned": "learned from", "misclassified": "misclassified", "forgotten": "forgotten"}
ACROSS, DOWN = 8, 4  # images on the contact sheet
ANNOTATED = 12  # classes up to which a confusion matrix has its figures written in


def counts_of(run: Run) -> dict[str, np.ndarray]:
    """The arrays of a run's learned.npz, empty if it cannot be read."""
    try:
        with np.load(run.folder / "learned.npz", allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception:  # a damaged archive fails in many ways, and costs one picture
        return {}


def histograms(group: Group, sheet: Sheet) -> None:
    """How many of the training samples were learned from, misclassified and forgotten how often, rule by rule."""
    first = {rule: counts_of(min(runs, key=lambda run: run.seed)) for rule, runs in group.rules.items()}
    for name, words in COUNTED.items():
        found = {rule: shares(arrays[name]) for rule, arrays in first.items() if name in arrays}
        if found:
            _histogram(found, sheet, f"{name}_counts_{group.protocol}_{group.label}", words, group.label)


def shares(counts: np.ndarray) -> pd.Series:
    """Percent of the samples with 0, 1, 2, 3-4, 5-8, 9-16, ... counts."""
    places = np.where(counts > 0, np.ceil(np.log2(np.maximum(counts, 1))) + 1, 0).astype(int)
    percent = 100 * np.bincount(places) / len(counts)
    names = ["0", "1", "2", *(f"{2**k + 1}-{2 ** (k + 1)}" for k in range(1, 40))]
    return pd.Series(percent, index=names[: len(percent)])


def _histogram(found: dict[str, pd.Series], sheet: Sheet, name: str, words: str, label: str) -> None:
    table = pd.DataFrame({rule: found[rule] for rule in found}).fillna(0.0)
    table = table.loc[sorted(table.index, key=lambda text: int(text.partition("-")[0]))]

    def paint(axes: Axes) -> None:
        for rule in table:
            look = sheet.looks[rule]
            axes.plot(range(len(table)), table[rule], color=look.color, ls=look.line, marker=look.marker, label=rule)
        axes.set_xticks(range(len(table)), table.index, rotation=30, ha="right")
        axes.set(xlabel=f"times {words}", ylabel="training samples (%)")

    caption = f"How often training samples were {words}, {label}: the run with the lowest seed of each rule."
    sheet.draw(name, caption, paint, table.rename_axis("times").reset_index())


def image_run(runs: list[Run]) -> Run | None:
    """The run whose images are shown: lazy rather than another rule, the lowest seed."""
    usable = [
        run
        for run in runs
        if run.status in ("finished", "stopped")
        and not run.settings.get("dataset.subset")
        and all((run.folder / name).is_file() for name in ("learned.npz", "model.pt", "run.json"))
    ]
    order = [rule for rule in rule_order(run.rule for run in usable) if rule != CONTROL] + [CONTROL]
    return min(usable, key=lambda run: (order.index(run.rule), run.seed), default=None)


def images(run: Run, sheet: Sheet) -> None:
    """The hardest training images, and the confusion matrix of the final network; a remark if they cannot be had."""
    from lazyexp.report.replay import Unavailable, replay  # imports torch

    data = run.settings["dataset.name"]
    try:
        seen = replay(run.folder)
    except Unavailable as error:
        sheet.remark(f"No images of {data} ({error}).")
        return
    misclassified = counts_of(run)["misclassified"]
    hardest = np.lexsort((np.arange(len(misclassified)), -misclassified))[: ACROSS * DOWN]
    table = pd.DataFrame(
        {
            "index": seen.index[hardest],
            "label": seen.labels[hardest],
            "prediction": seen.predict(hardest),
            "misclassified": misclassified[hardest],
        }
    )
    told = f"{data}, {run.rule}, seed {run.seed}"
    caption = (
        f"The training images that were misclassified most often ({told}): label, the final network's answer if it "
        "is another one, and in brackets how often."
    )
    shape = HEIGHT * 1.3
    pixels = seen.pixels(hardest)
    sheet.draw(f"hardest_{data}", caption, lambda axes: _contact_sheet(axes, pixels, table), table, shape)
    caption = f"Confusion matrix of the final network on the test images ({told}): rows are labels, columns answers."
    confusion = seen.confusion
    columns = pd.DataFrame(confusion).rename_axis("label").reset_index()
    sheet.draw(f"confusion_{data}", caption, lambda axes: _matrix(axes, confusion), columns, shape)


def _contact_sheet(axes: Axes, pixels: np.ndarray, table: pd.DataFrame) -> None:
    """`pixels` (n, height, width, 1 or 3) from 0 to 1, side by side, with room for a line under each."""
    n, height, width, channels = pixels.shape
    room = max(4, round(0.32 * height))
    down = -(-n // ACROSS)
    sheet = np.ones((down * (height + room), ACROSS * (width + 2), channels))
    for place in range(n):
        top, left = place // ACROSS * (height + room), place % ACROSS * (width + 2)
        sheet[top : top + height, left : left + width] = pixels[place]
        row = table.iloc[place]
        answer = "" if row["prediction"] == row["label"] else f"→{row['prediction']}"
        axes.text(
            left + width / 2, top + height + room / 2, f"{row['label']}{answer} ({row['misclassified']})",
            fontsize=5, ha="center", va="center",
        )  # fmt: skip
    axes.imshow(sheet if channels == 3 else sheet[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def _matrix(axes: Axes, confusion: np.ndarray) -> None:
    wrong = confusion.astype(float)
    np.fill_diagonal(wrong, np.nan)
    top = max(1.0, float(np.nan_to_num(wrong).max()))
    axes.imshow(wrong, cmap="Reds", vmin=0, vmax=1.4 * top)
    axes.grid(visible=False)
    axes.set(xlabel="answer", ylabel="label")
    if len(confusion) <= ANNOTATED:
        axes.set_xticks(range(len(confusion)))
        axes.set_yticks(range(len(confusion)))
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                axes.text(column, row, f"{count}", fontsize=5, ha="center", va="center")
