"""The data of figures against numbers computed by hand, and how figures and the page are drawn."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run
from matplotlib.figure import Figure

from lazyexp.report.curves import error_curves, forgetting, presented_share, selected_share
from lazyexp.report.groups import matched_groups
from lazyexp.report.html import to_html
from lazyexp.report.read import read_runs
from lazyexp.report.sample_figures import histograms
from lazyexp.report.style import FigureFolder


def rewrite(folder, **columns):
    """Puts values, one for every evaluation, into a run's metrics.csv."""
    table = pd.read_csv(folder / "metrics.csv")
    table.assign(**columns).to_csv(folder / "metrics.csv", index=False)


def group_of(top):
    (group,) = matched_groups(read_runs([top]).runs)
    return group


def sheet_of(top, *rules):
    return FigureFolder(top / "figures", list(rules), [])


def shown(top, name):
    return pd.read_csv(top / "figures" / f"{name}_matched_all_runs.csv")


@pytest.mark.slow
def test_shares_between_evaluations(tmp_path):
    """Two epochs of 100 samples: all presented in the first, 50 in the second, 10 in half of a third one."""
    folder = make_run(tmp_path, "lazy")
    rewrite(
        folder,
        epoch=[1.0, 2.0, 2.5],
        samples_seen=[100, 150, 160],
        backward_samples=[40, 50, 50],
        forgetting_events=[0, 5, 9],
    )
    group, sheet = group_of(tmp_path), sheet_of(tmp_path, "lazy")
    for draw in (selected_share, presented_share, forgetting):
        draw(group, sheet)
    assert list(shown(tmp_path, "share_selected")["share"]) == [40, 20, 0]
    assert list(shown(tmp_path, "share_presented")["share"]) == [100, 50, 20]
    assert list(shown(tmp_path, "forgetting")["share"]) == [0, 10, 40]
    assert list(shown(tmp_path, "forgetting")["epoch"]) == [1.0, 2.0, 2.5]


def test_no_figure_where_there_is_nothing_to_see(tmp_path):
    """All are presented in every epoch, and an earlier version has noted no forgetting."""
    make_run(tmp_path, "lazy")
    group, sheet = group_of(tmp_path), sheet_of(tmp_path, "lazy")
    presented_share(group, sheet)
    forgetting(group, sheet)
    assert not sheet.figures


@pytest.mark.slow
def test_histograms_show_every_count_of_every_rule(tmp_path):
    counts = {"learned": [0, 0, 1, 3], "misclassified": [0, 2, 2, 9], "forgotten": [0, 0, 0, 1]}
    for rule, times in (("backprop", 2), ("lazy", 1)):
        folder = make_run(tmp_path, rule)
        np.savez(folder / "learned.npz", **{name: times * np.array(values) for name, values in counts.items()})
    histograms(group_of(tmp_path), sheet_of(tmp_path, "backprop", "lazy"))
    learned = shown(tmp_path, "learned_counts").set_index("times")
    assert learned["lazy"].to_dict() == {"0": 50, "1": 25, "2": 0, "3-4": 25, "5-8": 0}
    assert learned["backprop"].to_dict() == {"0": 50, "1": 0, "2": 25, "3-4": 0, "5-8": 25}
    assert shown(tmp_path, "misclassified_counts").set_index("times")["lazy"]["2"] == 50
    assert shown(tmp_path, "forgotten_counts").set_index("times")["lazy"].to_dict() == {0: 75, 1: 25, 2: 0}


@pytest.fixture
def axes(monkeypatch):
    """Those of the figures that are drawn."""
    found = []
    save = FigureFolder.save

    def keep(self, figure: Figure, *rest, **options):
        found.append(figure.axes[0])
        save(self, figure, *rest, **options)

    monkeypatch.setattr(FigureFolder, "save", keep)
    return found


@pytest.mark.slow
def test_errors_are_on_a_logarithmic_axis_and_costs_where_they_differ_much(tmp_path, axes):
    """98.8 and 99.1 % are distinguishable."""
    make_run(tmp_path, "backprop", cost=100.0, accuracies=(0.9, 0.99, 0.991))
    make_run(tmp_path, "lazy", accuracies=(0.9, 0.98, 0.988))
    group, sheet = group_of(tmp_path), sheet_of(tmp_path, "backprop", "lazy")
    error_curves(group, sheet, "train_seconds")
    assert axes[0].get_yscale() == "log" and axes[0].get_xscale() == "log"
    data = pd.read_csv(tmp_path / "figures" / "error_train_seconds_matched_all_runs.csv")
    assert sorted(data["test_error"].round(6))[:3] == [0.9, 1.0, 1.2]
    low, high = axes[0].get_ylim()
    position = np.log(np.array([0.9, 1.2]) / low) / np.log(high / low)
    assert position[1] - position[0] > 0.08  # of the height of the figure


def test_a_run_without_errors_has_a_linear_axis(tmp_path, axes):
    make_run(tmp_path, "lazy", accuracies=(0.9, 1.0, 1.0))
    error_curves(group_of(tmp_path), sheet_of(tmp_path, "lazy"), "train_seconds")
    assert axes[0].get_yscale() == "linear"


@pytest.mark.slow
def test_shares_that_differ_much_are_on_a_logarithmic_axis(tmp_path, axes):
    rewrite(make_run(tmp_path, "lazy"), backward_samples=[90, 91, 92])
    selected_share(group_of(tmp_path), sheet_of(tmp_path, "lazy"))
    assert axes[0].get_yscale() == "log"


def luminance(colour: str) -> float:
    """Relative luminance of a colour such as #1a1a1a (WCAG 2.2)."""
    parts = [int(colour[position : position + 2], 16) / 255 for position in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_page_is_legible_in_the_dark_and_on_a_phone(tmp_path):
    page = to_html("Report", [], tmp_path)
    assert re.search(r'<meta name="?viewport"? content="width=device-width', page)
    themes = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    assert len(themes) == 2 and page.index("prefers-color-scheme: dark") < page.index(themes[1])
    for theme in themes:
        found = {name: value * (7 // len(value)) if len(value) == 7 else "#" + "".join(2 * c for c in value[1:])
                 for name, value in re.findall(r"--(\w+): (#\w+)", theme)}  # fmt: skip
        for ink in ("ink", "soft"):
            for paper in ("paper", "head"):
                if paper == "head" and ink == "soft":
                    continue
                light, dark = sorted((luminance(found[ink]), luminance(found[paper])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)  # WCAG's AA
    # Wide tables scroll in their own box, figures never grow beyond the screen, and keep a white ground in the dark.
    assert ".table { overflow-x: auto; }" in page and "figure img { width: 100%" in page
    assert "background: #fff" in page and "minmax(min(24rem, 100%), 1fr)" in page
