"""What a lazy rule could save, predicted from a backprop run alone."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from made_runs import make_run

from lazyexp.errors import UserError
from lazyexp.report.build import make_report
from lazyexp.report.cli import parser
from lazyexp.report.formatting import number
from lazyexp.report.prediction import predicted_speedup, prediction, required_ratio, share_of_mistakes
from lazyexp.report.read import read_runs


def backprop_run(top, *accuracies, **options):
    """A run whose evaluations report these running training accuracies over 100 samples each."""
    folder = make_run(top, "backprop", accuracies=(0.5, 0.9, 0.96)[: len(accuracies)], **options)
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for row, accuracy in zip(rows, accuracies, strict=True):
        row["train_accuracy"] = accuracy
    with (folder / "metrics.csv").open("w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.parametrize(
    "mistakes, ratio, overhead, speedup",
    [
        (1.0, 2.0, 0.0, 1.0),  # all wrong: backprop
        (0.0, 2.0, 0.0, 3.0),  # ceiling: 1 + B / F
        (0.06, 4.6, 0.0, 5.6 / 1.276),
        (0.5, 2.0, 1.0, 1.0),  # a second forward pass
        (0.25, 1e9, 0.0, 4.0),  # free forward passes: 1 / s
    ],
)
def test_predicted_speedup(mistakes, ratio, overhead, speedup):
    assert predicted_speedup(mistakes, ratio, overhead) == pytest.approx(speedup, rel=1e-6)


def test_what_a_speedup_of_7_6_requires():
    assert required_ratio(7.6, 0.0) == pytest.approx(6.6)
    assert required_ratio(7.6, 0.06) == pytest.approx(6.6 / 0.544)
    assert predicted_speedup(0.06, required_ratio(7.6, 0.06)) == pytest.approx(7.6)
    assert required_ratio(7.6, 0.14) == math.inf


def test_the_share_of_mistakes_is_that_of_all_presented_samples(tmp_path):
    backprop_run(tmp_path, 0.7, 0.9, 0.98)
    (run,) = read_runs([tmp_path]).runs
    assert share_of_mistakes(run) == pytest.approx(0.14)


@pytest.mark.slow
def test_the_report_on_backprop_alone_predicts(tmp_path):
    backprop_run(tmp_path / "runs", 0.7, 0.9, 0.98)
    made = make_report([tmp_path / "runs"], tmp_path / "out", max_groups=1)
    # 3 / 1.28 = 2.34: saves 57 %.
    text = (
        "Only backprop was run. With this data and network a lazy rule could save at most 57 % of the training time "
        "(2.3 times faster) if a backward pass and its step cost 2 forward passes (by counting products, not "
        "measured; --cost-ratio takes a measured value): backprop misclassified 14 % of the samples that it "
        "presented. Without a mistake it would be 3.0 times, and with free forward passes 7.1 times."
    )
    assert made.text().startswith(text)
    assert text in (tmp_path / "out" / "report.md").read_text().replace("`", "")
    data = pd.read_csv(tmp_path / "out" / "figures" / "predicted_speedup.csv")
    (point,) = data[data["kind"] == "point"].to_dict("records")
    assert point["mistakes"] == pytest.approx(0.14) and point["speedup"] == pytest.approx(3 / 1.28)
    assert set(data["name"]) >= {"B/F=2", "B/F=10"}
    given = make_report([tmp_path / "runs"], tmp_path / "out", max_groups=0, cost_ratio=4.0).text()
    # 5 / 1.56 = 3.21: saves 69 %.
    assert "at most 69 % of the training time (3.2 times faster) at the given cost" in given
    assert "4 forward passes: backprop" in given and "it would be 5.0 times" in given


@pytest.mark.slow
def test_no_prediction_beside_other_rules_or_without_training_accuracy(tmp_path):
    backprop_run(tmp_path / "both", 0.7, 0.9, 0.98)
    make_run(tmp_path / "both", "lazy")
    make_run(tmp_path / "old", "backprop")
    make_run(tmp_path / "lazy", "lazy")
    for name in ("both", "old", "lazy"):
        assert "could save" not in make_report([tmp_path / name], max_groups=0).text()


def test_batches_save_a_step_only_where_no_sample_is_wrong():
    assert "With batches of 64, a step is saved only where no sample is wrong." in prediction(0.1, 64, None)
    assert "batches" not in prediction(0.1, 1, 3.6)
    assert "without limit" in prediction(0.0, 1, None)
    assert prediction(math.nan, 1, None) == ""


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_cost_ratio_is_positive(tmp_path, value):
    with pytest.raises(UserError, match="--cost-ratio"):
        make_report([tmp_path], cost_ratio=value)


def test_the_command_takes_a_cost_ratio():
    assert parser().parse_args(["runs", "--cost-ratio", "3.6"]).cost_ratio == 3.6


def test_the_table_of_the_documentation_is_that_of_the_formula():
    page = (Path(__file__).resolve().parents[2] / "docs" / "speedup.md").read_text()
    head, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in re.findall(r"^\|.*\|$", page, re.M))
    ratios = [float(cell.removeprefix("B/F = ")) for cell in head[1:-2]]
    assert len(ratios) == 4 and len(rows) == 8
    for share, *cells in rows[1:]:
        s = float(share.removesuffix(" %")) / 100
        required = required_ratio(7.6, s)
        expected = [*(predicted_speedup(s, ratio) for ratio in ratios), 1 / s if s else math.inf, required]
        words = {math.inf: "none"} if s else {math.inf: "no limit"}
        assert cells == [words.get(value) or number(value) for value in expected]
