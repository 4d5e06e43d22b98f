"""scripts/bench/paper_loop.py: its loops agree with the engines, and its table has what a reader may quote."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from lazyexp.config.schema import DatasetConfig
from lazyexp.data import load_data

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bench" / "paper_loop.py"
CPU = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("paper_loop", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def samples():
    return load_data(DatasetConfig(name="digits", train_size=400), "data", CPU).train


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["backprop", "lazy"])
def test_the_plain_loop_makes_the_updates_of_the_engines(script, samples, rule):
    index = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    plain = network()
    mistakes = script.plain_loop(plain, *samples.batch(index), rule)
    for engine in ("autograd", "auto"):
        model = network()
        assert script.engine_loop(model, samples, index, engine, rule) == mistakes
        for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert 50 < mistakes < 350


@pytest.mark.slow
def test_the_table_and_its_figure(script, samples, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "plain_network", network)
    monkeypatch.setattr(script, "load_data", lambda *_: SimpleNamespace(train=samples))
    threads = torch.get_num_threads()
    table = pd.DataFrame(script.measure(1, 40, 2, None))
    torch.set_num_threads(threads)
    assert len(table) == 3 * 7 and (table["samples"] == 40).all() and (table["repeats"] == 2).all()
    assert table[["machine", "torch", "date"]].notna().all().all() and (table["threads"] == 1).all()
    assert (table[table["rule"] == "backprop"]["ratio"] == 1).all()
    loops = table[(table["situation"] == "scratch") & (table["rule"] == "lazy")]
    assert loops["mistakes"].nunique() == 1 and loops["mistakes"].iloc[0] > 0.4
    none = table[(table["situation"] == "none") & (table["rule"] == "lazy")]
    assert (none["mistakes"] == 0).all()  # lazy: no update, so no new mistake
    ceiling = none[none["engine"] == "plain"]
    assert ceiling["cost_ratio"].item() == pytest.approx(ceiling["ratio"].item() - 1, abs=2e-3)
    table.to_csv(tmp_path / "paper_loop.csv", index=False)
    script.draw(tmp_path / "paper_loop.csv")
    drawn = pd.read_csv(tmp_path / "predicted_speedup.csv")
    assert (drawn["kind"] == "point").sum() == 6 and (tmp_path / "predicted_speedup.png").exists()
