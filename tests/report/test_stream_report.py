"""The report of runs in phases and with a store: rows per phase by hand, tables and figures."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.experiment import run
from lazyexp.report.build import write_report
from lazyexp.report.read import Run, read_run
from lazyexp.report.scaling_figures import exponent
from lazyexp.report.streams import ends, phase_rows


def make(folder, rule, seed=0, kind="mistakes", capacity=20):
    config = Config(
        seed=seed, epochs=None, eval_every=50, batch_size=8, device="cpu", runs_dir=str(folder), rule={"name": rule}
    )
    config.model.width, config.dataset.train_size, config.optimizer.lr = 16, 300, 0.1
    config.stream.name, config.stream.phases = "online", [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]]
    config.memory.name, config.memory.capacity, config.memory.replay_every = kind, capacity, 40
    config.memory.restart_epochs = 4
    return run(check(config)).folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    for rule in ("backprop", "lazy"):
        for kind, capacity in (("mistakes", 20), ("reservoir", 20), ("mistakes", 60), ("reservoir", 60)):
            make(folder, rule, kind=kind, capacity=capacity)
    return folder


def test_a_phase_costs_the_difference_between_its_borders(tmp_path):
    one = read_run(make(tmp_path, "lazy"))
    table, found = one.rows, phase_rows(one)
    assert [row["phase"] for row in found] == [1, 2, 3, 4]
    assert [row["store_alone"] for row in found] == [False, False, False, True]
    lasts = [table[table["phase"] == phase].iloc[-1] for phase in (1, 2, 3, 4)]
    for name in ("updates", "samples_seen", "energy_l1", "energy_l0"):
        before = 0.0
        for row, last in zip(found, lasts, strict=True):
            assert row[name] == last[name] - before
            before = last[name]
    end, restart = ends(one)
    assert end["old_class_accuracy"] == lasts[2]["old_class_accuracy"] and not math.isnan(end["new_class_accuracy"])
    assert end["updates"] == lasts[2]["updates"] - lasts[0]["updates"]
    assert restart is not None and restart["test_accuracy"] == lasts[3]["test_accuracy"]
    assert restart["samples_seen"] == 4 * lasts[3]["memory_samples"]


@pytest.mark.slow
def test_the_report_has_the_tables_and_figures_of_streams(runs, tmp_path):
    page = write_report([runs], out=tmp_path / "report", max_groups=2)
    table = pd.read_csv(page.parent / "phases.csv")
    assert len(table) == 8 * 4 and set(table["rule"]) == {"backprop", "lazy"}
    figures = {path.stem for path in (page.parent / "figures").glob("*.png")}
    for kind in ("old_and_new", "stored", "updates_by_phase", "accuracy_stored"):
        assert any(name.startswith(kind) for name in figures), kind
    assert not any(name.startswith("share_presented") for name in figures)
    text = (page.parent / "report.md").read_text()
    assert "## Phases and stores" in text and "backward transfer (%)" in text
    (stored,) = (page.parent / "figures").glob("accuracy_stored_lazy*.csv")
    data = pd.read_csv(stored)
    assert set(data["memory"]) == {"mistakes", "reservoir"} and set(data["use"]) == {"replay", "alone"}
    assert set(data["capacity"]) == {20, 60} and len(data) == 8


@pytest.mark.slow
def test_the_tables_of_the_pages_of_results(runs, tmp_path, monkeypatch):
    """Their cells, and a CSV file with a row per run from which they can be computed."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "scripts")
    module = importlib.import_module("tables.streams")
    tables = module.streams(runs, tmp_path)
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in tables["stored"].splitlines()]
    assert rows[0][:5] == ["store", "capacity", "rule", "stored", "replay %"] and len(rows) == 2 + 8
    stored = pd.read_csv(tmp_path / "stored_table.csv")
    assert len(stored) == 8 and (stored["stored"] <= 60).all()
    phases = pd.read_csv(tmp_path / "phases_table.csv")
    raw = pd.read_csv(tmp_path / "phases.csv")
    raw = raw[(raw["phase"] > 1) & ~raw["store_alone"]].groupby(["group", "rule"])["updates"].sum()
    for (group, rule), updates in raw.items():
        (row,) = phases[(phases["group"] == group) & (phases["rule"] == rule)].to_dict("records")
        assert row["updates"] == updates
        assert row["updates_of_backprop"] == pytest.approx(100 * updates / raw[group, "backprop"])
    saved = pd.read_csv(tmp_path / "saved_table.csv")
    assert (saved["updates_of_backprop"] <= 100).all() and "(" not in tables["phases"]
    if "crossing_of_backprop" in saved:
        assert set(saved.loc[saved["rule"] == "backprop", "crossing_of_backprop"].dropna()) <= {100.0}


@pytest.mark.slow
def test_runs_without_phases_and_stores_have_no_such_section(tmp_path):
    config = Config(epochs=1, eval_every=100, batch_size=8, device="cpu", runs_dir=str(tmp_path / "runs"))
    config.model.width, config.dataset.train_size = 4, 100
    run(check(config))
    page = write_report([tmp_path / "runs"], out=tmp_path / "report")
    assert not (page.parent / "phases.csv").exists()
    assert "Phases and stores" not in (page.parent / "report.md").read_text()


def sized(size: int, distinct: float, seed: int) -> Run:
    rows = pd.DataFrame({"distinct_learned": [distinct], "samples_seen": [size]})
    return Run(Path(f"{size}-{seed}"), "x", "lazy", "{}", seed, "finished", {}, (), rows, {}, train_size=size)


def test_the_exponent_of_a_power_law():
    """2 size^0.7 exactly; then with a factor per seed, which the median removes and the interval contains."""
    exact = [sized(size, 2 * size**0.7, 0) for size in (1000, 3000, 10000)]
    assert exponent(exact).median == pytest.approx(0.7) and not exponent(exact).known
    noisy = [sized(size, 2 * size**0.7 * factor, seed) for size in (1000, 3000, 10000)
             for seed, factor in enumerate((0.97, 1.0, 1.04))]  # fmt: skip
    found = exponent(noisy)
    assert found.median == pytest.approx(0.7) and found.low < 0.7 < found.high and found.high - found.low < 0.1


@pytest.mark.slow
def test_figures_across_sizes(tmp_path):
    for size in (40, 80, 160):
        for batch_size in (1, 4, 8):
            config = Config(
                epochs=1, eval_every=200, batch_size=batch_size, device="cpu", runs_dir=str(tmp_path / "r")
            )
            config.model.width, config.dataset.train_size = 4, size
            run(check(config))
    page = write_report([tmp_path / "r"], out=tmp_path / "report", max_groups=1)
    figures = {path.stem for path in (page.parent / "figures").glob("*.csv")}
    assert any(name.startswith("distinct_samples") for name in figures)
    (shares,) = [page.parent / "figures" / f"{name}.csv" for name in figures if name.startswith("updates_share")]
    assert set(pd.read_csv(shares)["batch_size"]) == {1, 4, 8}
