"""Comparisons at the end of a schedule and the method comparison, on made-up runs with known answers."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run

from lazyexp.report import build
from lazyexp.report.blocks import Table
from lazyexp.report.comparisons import comparisons, time_table, within_table
from lazyexp.report.groups import matched_groups
from lazyexp.report.latex import to_latex
from lazyexp.report.methods import _rank_blocks, ranks, standings
from lazyexp.report.read import read_runs


def one(top, rule, seed, seconds, accuracy, **changed):
    make_run(top, rule, seed, cost=seconds, accuracies=(accuracy,), **changed)


def fair(top, seeds=(0, 1, 2)):
    """Backprop 95 % in 10 s and 97 % in 20 s; lazy 95 % in 2 s; confidence 97 % in 5 s, one seed 0.2 points lower."""
    for seed in seeds:
        one(top, "backprop", seed, 10.0, 0.95, epochs=1)
        one(top, "backprop", seed, 20.0, 0.97, epochs=2)
        one(top, "lazy", seed, 2.0, 0.95, batch_size=16)
        one(top, "confidence", seed, 5.0, 0.97 - 0.002 * (seed == 1), optimizer__lr=0.5, options={"threshold": 0.9})
        one(top, "confidence", seed, 6.0, 0.96, optimizer__lr=0.1, options={"threshold": 0.8})


def test_settings_of_the_schedule_and_options_are_points_of_one_comparison(tmp_path):
    fair(tmp_path)
    (comparison,) = comparisons(read_runs([tmp_path]).runs)
    assert {rule: len(some) for rule, some in comparison.rules.items()} == {"backprop": 2, "lazy": 1, "confidence": 2}
    assert {one.name for one in comparison.rules["confidence"]} == {"lr=0.5, threshold=0.9", "lr=0.1, threshold=0.8"}
    one(tmp_path, "lazy", 0, 1.0, 0.9, model__width=99)
    make_run(tmp_path, "lazy", 7, status="stopped")
    assert (
        len(comparisons(read_runs([tmp_path]).runs)) == 2
    )  # another network is another comparison; a stopped run is in none


def test_packing_is_an_option_of_the_rule(tmp_path):
    packing = {"block_size": 1024, "precision": "bfloat16"}
    for seed in (0, 1):
        make_run(tmp_path, "backprop", seed, packing={"block_size": 0, "precision": "float32"})
        make_run(tmp_path, "spaced", seed, packing=packing)
    runs = read_runs([tmp_path]).runs
    (comparison,) = comparisons(runs)
    assert list(comparison.rules) == ["backprop", "spaced"]
    (group,) = matched_groups(runs)
    assert list(group.rules) == ["backprop", "spaced"]
    options = json.loads(group.rules["spaced"][0].options)
    assert options == {"packing.block_size": 1024, "packing.precision": "bfloat16"}
    assert group.baselines[0].options == "{}"


def test_times_and_speedups_along_pareto_fronts(tmp_path):
    fair(tmp_path)
    table = time_table(comparisons(read_runs([tmp_path]).runs)).set_index(["target", "rule"])
    assert table.loc[("0.95", "lazy"), "speedup"] == 5.0 and table.loc[("0.95", "confidence"), "speedup"] == 2.0
    best = table.loc["backprop-0.05"]
    assert best.loc["backprop", "seconds"] == 20.0 and best.loc["confidence", "speedup"] == 4.0
    assert math.isinf(best.loc["lazy", "seconds"]) and best.loc["lazy", "speedup"] == 0.0
    assert best.loc["lazy", "missed"] == 1 and best.loc["backprop", "missed"] == 0
    assert best.loc["confidence", "missed"] == pytest.approx(7 / 27, abs=0.03)
    assert best.loc["lazy", "behind"] == pytest.approx(2) and best.loc["confidence", "behind_high"] == pytest.approx(
        0.2
    )
    assert best.loc["confidence", "backward_samples"] == 500 and math.isnan(best.loc["lazy", "updates"])


def test_the_best_accuracy_within_so_many_seconds(tmp_path):
    fair(tmp_path)
    table = within_table(comparisons(read_runs([tmp_path]).runs)).set_index(["rule", "limit"])["accuracy"]
    assert table["lazy"].to_dict() == dict.fromkeys((2, 4, 8, 16, 32), 0.95)
    assert math.isnan(table["backprop", 8]) and table["backprop", 16] == 0.95 and table["backprop", 32] == 0.97
    assert math.isnan(table["confidence", 4]) and table["confidence", 8] == 0.97


def test_the_missed_share_is_that_of_the_resamples(tmp_path):
    """Of three draws at least two are the worse seed in 7 of 27 cases (26 %): the median is then 0.2 points lower."""
    fair(tmp_path)
    (comparison,) = comparisons(read_runs([tmp_path]).runs)
    front = comparison.fronts["confidence"]
    assert front.missed(comparison.below_baseline(0.1)) == pytest.approx(0.26, abs=0.03)
    assert front.missed(comparison.below_baseline(0.2)) == 0
    behind = comparison.behind("lazy")
    assert (behind.median, behind.low, behind.high, behind.n) == pytest.approx((2.0, 2.0, 2.0, 3))


def test_a_diverged_run_stays_in_the_median(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "lazy", seed, accuracies=(0.9,), status="finished" if seed == 0 else "diverged")
    (comparison,) = comparisons(read_runs([tmp_path]).runs)
    assert comparison.best_accuracy("lazy").median == 0.0


def test_standings_are_by_time_at_equal_accuracy(tmp_path):
    fair(tmp_path)
    rows = standings(comparisons(read_runs([tmp_path]).runs)[0])
    assert [row[1] for row in rows] == ["confidence", "backprop", "lazy"] and rows[2][2] == "–"


@pytest.mark.slow
def test_ranks_as_demsar_has_them():
    """Four classifiers on 14 data sets: the critical difference is 1.25 (Demšar 2006, section 3.2.5)."""
    assert ranks(np.tile([1.0, 2.0, 3.0, 4.0], (14, 1))).critical == pytest.approx(1.25, abs=0.005)
    result = ranks(np.array([[1.0, 2.0, math.inf], [2.0, 1.0, math.inf], [1.0, math.inf, math.inf]]))
    assert list(result.mean) == [4 / 3, 5.5 / 3, 8.5 / 3] and 0 < result.p < 1
    assert ranks(np.ones((3, 3))).p == 1.0


@pytest.mark.parametrize(
    "number, shown", [(2, "No ranks over 2 comparisons"), (14, "Mean rank by that time over 14")]
)
def test_ranks_are_shown_only_if_they_can_differ(tmp_path, number, shown):
    """Three rules: the critical difference is 2.34 over two comparisons and 0.89 over fourteen, of 2 possible."""
    fair(tmp_path)
    compared = comparisons(read_runs([tmp_path]).runs) * number
    assert _rank_blocks(compared)[0].text.startswith(shown)


def test_latex_is_escaped():
    text = to_latex(Table(["a_b", "%"], [["x & y", "$1"]]))
    assert "\\toprule" in text and "a\\_b & \\%" in text and "x \\& y & \\$1" in text


@pytest.mark.slow
def test_the_report_has_pareto_fronts_method_comparison_and_data(tmp_path):
    fair(tmp_path / "runs")
    page = build.write_report([tmp_path / "runs"], tmp_path / "out", max_groups=1)
    text = page.read_text()
    assert text.index("at the end of a schedule") < text.index("<img") < text.index("<table") < text.index("<details")
    assert "Method comparison" in text and "prefers-color-scheme: dark" in text
    figures = tmp_path / "out" / "figures"
    assert {p.stem for p in figures.glob("*.png")} == {p.stem for p in figures.glob("*.csv")}
    points = pd.read_csv(figures / "pareto_digits.csv")
    assert len(points) == 5 and points["on_front"].sum() == 4
    assert "\\toprule" in (tmp_path / "out" / "summary.tex").read_text()
    assert not list(tmp_path.rglob(".*.tmp"))


def test_bars_of_misses_are_one_line(tmp_path):
    for seed in range(2):
        make_run(tmp_path, "backprop", seed, accuracies=(0.5, 0.99))
        make_run(tmp_path, "lazy", seed, accuracies=(0.5, 0.6))
    page = build.write_report([tmp_path], max_groups=0)
    assert not list((page.parent / "figures").glob("speedup_*"))
    assert page.read_text().count("no bars of speedups, the median pair missed at every accuracy") == 1
