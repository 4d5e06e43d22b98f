"""The first lines of the report: what was run, and sentences that agree with the figure beside them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from made_runs import make_run

from lazyexp.report.blocks import Table
from lazyexp.report.comparisons import comparisons
from lazyexp.report.description import what_was_run
from lazyexp.report.formatting import count, setting
from lazyexp.report.groups import matched_groups
from lazyexp.report.headline import CURVE, SCHEDULE, headlines
from lazyexp.report.intervals import Interval
from lazyexp.report.labels import spread
from lazyexp.report.main_table import main_table
from lazyexp.report.read import read_runs
from lazyexp.report.summary import lead, sentences
from lazyexp.report.tables import speedup_table


def found_in(top):
    runs = read_runs([top]).runs
    groups = matched_groups(runs)
    return headlines(groups, comparisons(runs), speedup_table(groups))


def test_the_sentence_follows_the_curve_not_the_ends_of_the_runs(tmp_path):
    """Backprop reaches the target first in every seed although its run takes longer to end."""
    for seed, (fast, slow) in enumerate([(1.18, 1.57), (1.28, 2.25), (2.19, 2.26)]):
        backprop = (0.5, 0.962, 0.97, 0.971, 0.9715)
        make_run(tmp_path, "backprop", seed, cost=fast / 2, accuracies=backprop)
        make_run(tmp_path, "lazy", seed, cost=slow / 3, accuracies=(0.5, 0.9, 0.963, 0.9645))
    (one,) = found_in(tmp_path)
    assert one.kind == CURVE and one.target == "backprop-1"
    (lazy,) = one.competitors
    assert lazy.speedups["backprop-1"].median == pytest.approx(1.18 / 1.57)
    (text,) = sentences([one])
    assert "faster" not in text and text.startswith(
        "`lazy` takes 1.3 times as long as `backprop` to backprop-1 (96.15 %)"
    )
    assert "along the curve" in text


def test_an_interval_that_contains_1_is_not_faster(tmp_path):
    for seed, cost in enumerate((0.5, 0.6, 1.5)):
        make_run(tmp_path, "backprop", seed)
        make_run(tmp_path, "lazy", seed, cost=cost)
    (text,) = sentences(found_in(tmp_path))
    assert text.startswith("`lazy` and `backprop` do not differ clearly") and "1.7 [0.67, 2.0]" in text


def test_several_schedules_are_compared_at_their_ends(tmp_path):
    for seed in range(3):
        for epochs in (1, 2):
            make_run(tmp_path, "backprop", seed, cost=4.0, accuracies=(0.95,) * epochs, epochs=epochs)
            make_run(tmp_path, "lazy", seed, cost=1.0, accuracies=(0.95,) * epochs, epochs=epochs)
    (one,) = found_in(tmp_path)
    assert one.kind == SCHEDULE
    assert "4.0 times faster than `backprop` to backprop-0 (95 %) at the end of a schedule" in sentences([one])[0]


def test_a_missed_target_is_a_dash_and_counted(tmp_path):
    for seed in range(2):
        make_run(tmp_path, "backprop", seed)
        make_run(tmp_path, "lazy", seed, accuracies=(0.5, 0.9, 0.91))
    (_one,) = found = found_in(tmp_path)
    assert "does not reliably reach backprop-1" in sentences(found)[0] and "2 of 2 pairs" in sentences(found)[0]
    table = main_table(found)
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert rows["lazy"]["to\nbackprop-1\n(s)"] == "–" and rows["lazy"]["to\n90 %\n(s)"] == "2.00"
    assert rows["lazy"]["speedup\nto backprop-1"] == "–" and [row[0] for row in table.rows] == ["backprop", "lazy"]


def test_one_comparison_of_many_rules_is_one_sentence(tmp_path):
    for rule in ("backprop", "lazy", "random", "confidence", "spaced"):
        for seed in range(2):
            make_run(tmp_path, rule, seed, cost=0.5 if rule == "spaced" else 1.0 + (rule != "backprop"))
    (text,) = sentences(found_in(tmp_path))
    assert text.startswith("`spaced` is 2.0 times faster") and "1 faster than the baseline, 3 slower" in text


def test_several_comparisons_share_a_line_that_names_the_target(tmp_path):
    for width in (50, 100):
        for seed in range(2):
            make_run(tmp_path, "backprop", seed, cost=2.0, model__width=width)
            make_run(tmp_path, "lazy", seed, model__width=width)
    found = found_in(tmp_path)
    assert lead(found) == "Training time to backprop-0.1 along the curve, compared with `backprop`:"
    assert sentences(found) == [f"model.width={width}: `lazy` is 2.0 [2.0, 2.0] times faster." for width in (50, 100)]


def test_what_was_run_names_common_and_varied_settings(tmp_path):
    for width in (50, 100):
        make_run(tmp_path, "lazy", model__width=width, optimizer__schedule="linear")
    text = what_was_run(read_runs([tmp_path]).runs)
    for part in ("digits (100 training samples)", "batch size 1", "SGD at learning rate 0.01 (linear schedule)",
                 "3 epochs", "seeds 0", "A CPU, 1 thread", "Varied: model.width 50, 100."):  # fmt: skip
        assert part in text
    assert "None" not in text


def test_groups_are_named_by_all_settings_that_differ(tmp_path):
    make_run(tmp_path, "lazy", model__width=50, optimizer__lr=0.1, batch_size=1)
    make_run(tmp_path, "lazy", model__width=100, optimizer__lr=0.2, batch_size=8)
    labels = [group.label for group in matched_groups(read_runs([tmp_path]).runs)]
    assert labels[0] == "model.width=50, batch_size=1, optimizer.lr=0.1"


def test_settings_are_written_as_on_the_command_line():
    assert setting("dataset.train_size", None) == "dataset.train_size=null" and setting("a", 5000.0) == "a=5000"
    assert setting("a", True) == "a=true" and count(1, "group") == "1 group" and count(2000, "run") == "2,000 runs"


def test_constant_columns_become_a_line():
    table = Table(["rule", "n", "x", "to 99 %"], [["a", "3", "", "–"], ["b", "3", "", "–"], ["c", "3", "", "–"]])
    compact, line = table.compact()
    assert compact.columns == ["rule"] and line.text == "In all rows: n 3; to 99 % never."


def test_labels_are_moved_apart_and_stay_in_the_figure():
    placed = spread([0.0, 0.01, 0.02, 0.5, 0.99, 1.0], 0.1)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(placed))
    assert min(placed) >= 0 and max(placed) <= 1 and placed[3] == 0.5


def test_an_interval_is_known_if_it_has_ends():
    assert Interval(1.0, 0.5, 2.0).known and not Interval(1.0).known and math.isnan(Interval().median)
