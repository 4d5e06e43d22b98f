"""How figures look: rules that stay distinguishable, ticks that are written out, titles and gaps."""

from __future__ import annotations

import pandas as pd
import pytest
from made_runs import make_run
from matplotlib.figure import Figure

from lazyexp.config.registry import RULES
from lazyexp.report.comparisons import comparisons
from lazyexp.report.curves import error_curves, forgetting
from lazyexp.report.groups import matched_groups
from lazyexp.report.headline import Headline, headlines
from lazyexp.report.main_table import main_table
from lazyexp.report.pareto_figure import pareto_figure
from lazyexp.report.read import read_runs
from lazyexp.report.style import FigureFolder, looks, scale
from lazyexp.report.summary import sentences
from lazyexp.report.swept_figure import swept_figures, swept_key, table
from lazyexp.report.tables import speedup_table


def found_in(top) -> list[Headline]:
    runs = read_runs([top]).runs
    groups = matched_groups(runs)
    return headlines(groups, comparisons(runs), speedup_table(groups))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    found: list[Figure] = []
    monkeypatch.setattr(FigureFolder, "save", lambda self, figure, *rest, **options: found.append(figure))
    return found


def test_all_rules_are_distinguishable():
    """In colour, and in grey by line style and marker."""
    found = looks(RULES).values()
    assert len(RULES) >= 17 and len({(look.color, look.line, look.marker) for look in found}) == len(RULES)
    assert len({(look.line, look.marker) for look in found}) == len(RULES)


@pytest.mark.parametrize(
    "values, labels",
    [([0.1, 40.0], {"0.1", "1", "10"}), ([2000.0, 3e6], {"10k", "100k", "1M"}), ([3.0, 20.0], {"5", "10", "20"})],
)
def test_ticks_of_a_logarithmic_axis_are_written_out(values, labels):
    axes = Figure().add_subplot()
    scale(axes.xaxis, values, log=True)
    axes.figure.draw_without_rendering()
    assert labels <= {tick.get_text() for tick in axes.get_xticklabels()}


def test_a_figure_has_the_name_of_its_group(tmp_path, drawn):
    for width in (50, 100):
        make_run(tmp_path, "lazy", model__width=width)
    for group in matched_groups(read_runs([tmp_path]).runs):
        error_curves(group, FigureFolder(tmp_path, ["lazy"]), "train_seconds")
    assert ["width=50" in figure.get_suptitle() for figure in drawn] == [True, False]
    assert "width=100" in drawn[1].get_suptitle()


def test_a_share_of_0_is_a_gap_on_a_logarithmic_axis(tmp_path, drawn):
    """The line does not drop to the axis."""
    path = make_run(tmp_path, "lazy", accuracies=(0.5, 0.9, 0.95, 0.96)) / "metrics.csv"
    pd.read_csv(path).assign(forgetting_events=[0, 50, 51, 51]).to_csv(path, index=False)
    (group,) = matched_groups(read_runs([tmp_path]).runs)
    forgetting(group, FigureFolder(tmp_path, ["lazy"]))
    (axes,) = drawn[0].axes
    assert axes.get_yscale() == "log"
    (shown,) = (line for line in axes.lines if len(line.get_xdata()) == 4)
    assert pd.Series(shown.get_ydata()).isna().tolist() == [True, False, False, True]


@pytest.mark.parametrize("target", [0.5, 0.9999])
def test_a_target_beyond_all_errors_is_within_the_axes(tmp_path, drawn, target):
    for seed in range(2):
        make_run(tmp_path, "backprop", seed, cost=2.0)
        make_run(tmp_path, "lazy", seed)
    runs = read_runs([tmp_path]).runs
    folder = FigureFolder(tmp_path, ["backprop", "lazy"])
    error_curves(matched_groups(runs)[0], folder, "train_seconds", target)
    pareto_figure(comparisons(runs)[0], folder, target)
    assert len(drawn) == 2
    for figure in drawn:
        low, high = figure.axes[0].get_ylim()
        assert low < 100 * (1 - target) < high


def test_accuracy_and_speedup_against_the_swept_setting(tmp_path, drawn):
    for width in (50, 100, 200):
        for seed in range(2):
            make_run(tmp_path, "backprop", seed, cost=width / 50, model__width=width)
            make_run(tmp_path, "lazy", seed, model__width=width)
    found = found_in(tmp_path)
    data = table(*swept_key(found), found)
    lazy = data[data["rule"] == "lazy"]
    assert lazy["model.width"].tolist() == [50, 100, 200] and lazy["speedup"].tolist() == [1, 2, 4]
    assert set(data["accuracy"]) == {96}
    swept_figures(found, FigureFolder(tmp_path, ["backprop", "lazy"]), 3)
    (figure,) = drawn
    assert [axes.get_xlabel() for axes in figure.axes] == ["model.width"] * 2
    assert [axes.get_ylabel() for axes in figure.axes] == ["test accuracy (%)", f"speedup to {found[0].target}"]


def test_a_target_has_one_name(tmp_path):
    """In the sentence, the headings of the table and speedup.csv."""
    for seed in range(2):
        make_run(tmp_path, "backprop", seed, cost=2.0)
        make_run(tmp_path, "lazy", seed)
    (one,) = found = found_in(tmp_path)
    name = "backprop-0.1"
    assert one.target == name and f"to {name} (" in sentences(found)[0]
    assert {f"speedup\nto {name}", f"to\n{name}\n(s)"} <= set(main_table(found).columns)
    assert name in set(speedup_table(matched_groups(read_runs([tmp_path]).runs))["target"])
