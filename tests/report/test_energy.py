"""Energy at equal accuracy over rules and choices of synapses, on made-up runs with known answers."""

import math

import pytest
from made_runs import make_run

from lazyexp.report import build
from lazyexp.report.energy import energy_table
from lazyexp.report.read import read_runs

ALL = {"name": "all", "threshold": None, "decay": 0.0}
CACHED = {"name": "cached", "threshold": None, "decay": 0.0}


def one(top, rule, seed, m1, accuracy, upkeep=0.0, synapses=None, **changed):
    """A run that ends with so much M1."""
    synapses = {f"plasticity__{key}": value for key, value in (synapses or ALL).items()}
    make_run(top, rule, seed, cost=m1 / 100, accuracies=(accuracy,), upkeep=upkeep, **synapses, **changed)


def grid(top, seeds=(0, 1, 2)):
    for seed in seeds:
        one(top, "backprop", seed, 1000, 0.980, epochs=5)
        one(top, "backprop", seed, 400, 0.976, epochs=2)  # within 0.5 points: the baseline that counts
        one(top, "backprop", seed, 100, 0.970, epochs=1)  # cheap, but not as good
        one(top, "lazy", seed, 200, 0.974)  # 0.1 points short
        one(top, "lazy", seed, 50, 0.975, 30, CACHED, epochs=3)  # on the line
        one(top, "lazy", seed, 40, 0.975, 360, CACHED, epochs=4)  # less M1, more upkeep
        one(top, "confidence", seed, 100 + seed, 0.978, 0, {**CACHED, "threshold": 0.5})


def test_the_cheapest_that_is_good_enough_against_the_cheapest_baseline_that_is(tmp_path):
    grid(tmp_path)
    table = energy_table(read_runs([tmp_path]).runs).set_index(["rule", "synapses"])
    assert table["target"].unique() == pytest.approx([0.975])
    assert table.loc[("backprop", "all"), "m1"] == 400 and table.loc[("backprop", "all"), "m1_times"] == 1
    assert table.loc[("lazy", "cached"), "m1"] == 40 and table.loc[("lazy", "cached"), "m1_times"] == 10
    assert table.loc[("lazy", "cached"), "with_upkeep"] == 80
    assert table.loc[("lazy", "cached"), "with_upkeep_times"] == 5
    confidence = table.loc[("confidence", "cached (threshold=0.5)")]
    assert confidence["m1"] == 101 and (confidence["m1_low"], confidence["m1_high"]) == (100, 102)
    assert math.isinf(table.loc[("lazy", "all"), "m1"]) and table.loc[("lazy", "all"), "m1_times"] == 0
    assert [method[0] for method in table.index] == ["lazy", "confidence", "backprop", "lazy"]


def test_the_report_has_the_section_where_synapses_were_chosen(tmp_path):
    grid(tmp_path / "runs")
    build.write_report([tmp_path / "runs"], tmp_path / "out", max_groups=0)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Energy at equal accuracy: samples and synapses" in text and (tmp_path / "out" / "energy.csv").exists()
    assert "| lazy | all | – |  |  | 97.4" in text.replace("[97.40, 97.40]", "").replace("97.40", "97.4")
    one(tmp_path / "plain", "backprop", 0, 10, 0.9)
    assert energy_table(read_runs([tmp_path / "plain"]).runs).empty
    build.write_report([tmp_path / "plain"], tmp_path / "other", max_groups=0)
    assert not (tmp_path / "other" / "energy.csv").exists()
