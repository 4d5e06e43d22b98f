"""Published numbers against numbers computed by hand: engines share code, and would agree if it were wrong."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
from conftest import rows
from torch import nn

from lazyexp.config.schema import Config, OptimizerConfig, PackingConfig
from lazyexp.config.validation import check
from lazyexp.data import Samples
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.rules import RunInfo, ScoredBatch, make_rule
from lazyexp.runs.columns import MEASURED
from lazyexp.runs.folder import RunFolder
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.counters import Outcome
from lazyexp.training.energy import Energy
from lazyexp.training.fast.lookahead import LookAhead
from lazyexp.training.fast.packed import Packed

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    """h = relu(x_0), logits = (h, -h): class 0 wherever x_0 > 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        weights = {"1.weight": [[1.0, 0.0]], "3.weight": [[1.0], [-1.0]], "1.bias": [0.0], "3.bias": [0.0, 0.0]}
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(weights[name]))
    return model


def spec(model, targets, rule, batch_size, block_size=0, **optimizer) -> EngineSpec:
    """Sample i has the pixels (i + 1, 0)."""
    number = len(targets)
    pixels = torch.stack([torch.arange(1.0, number + 1), torch.zeros(number)], 1).view(number, 1, 1, 2)
    made = make_rule(rule)
    made.start(RunInfo(number, batch_size, 1, 0, CPU))
    energy = Energy(model, Clock(CPU))
    samples, packing = Samples(pixels, torch.tensor(targets)), PackingConfig(block_size=block_size)
    return EngineSpec(model, samples, made, OptimizerConfig(**optimizer), batch_size, energy, packing=packing)


@pytest.mark.parametrize("engine", ["autograd", "fast"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("reduction, divide_by", [("batch", 2), ("selected", 1)])
def test_one_step_of_the_lazy_rule(engine, momentum, reduction, divide_by):
    """Two samples, the second one wrong: h = 2, logits (2, -2), class 1; softmax - onehot = (p, -p)."""
    model = network()
    work = spec(model, [0, 1], {"name": "lazy"}, 2, reduction=reduction, momentum=momentum)
    outcome = make_engine(engine, work).train(torch.arange(2), [0.1])
    p = 1 / (1 + math.exp(-4))
    step = 0.1 / divide_by
    expected = {
        "1.weight": [[1 - step * 4 * p, 0.0]],  # W2^T (p, -p) = 2p, times x = (2, 0)
        "1.bias": [-step * 2 * p],
        "3.weight": [[1 - step * 2 * p], [-1 + step * 2 * p]],
        "3.bias": [-step * p, step * p],
    }
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, torch.tensor(expected[name]))
    assert outcome.selected.tolist() == [False, True]
    assert outcome.trained.tolist() == [1] and (outcome.forwards, outcome.updates) == (2, 1)
    energy = work.energy
    assert float(energy.l1) == pytest.approx(step * p * (4 + 2 + 2 + 2 + 1 + 1))
    assert int(energy.l0) == 6  # of seven parameters; the weight of the black pixel does not change


def test_forwards_of_look_ahead():
    """Only sample 3 is misclassified. Forwarded: a first window of 17 = floor(sqrt(2 * 80 / 0.5)), again the 13
    behind the update, then a window of the last 3."""
    model = network()
    engine = LookAhead(spec(model, [0, 0, 0, 1] + [0] * 16, {"name": "lazy"}, 1))
    outcome = engine.train(torch.arange(20), [1e-6] * 20)
    assert outcome.trained.tolist() == [3] and outcome.updates == 1
    assert outcome.forwards == 17 + 13 + 3


def test_packed_uses_the_learning_rate_at_the_end_of_a_block():
    class Inner:
        def __init__(self):
            self.rates = []

        def train(self, index, rates):
            self.rates.append(rates)
            return Outcome(torch.zeros(len(index), 2), index, len(index), len(rates), index >= 0)

    inner = Inner()
    engine = Packed(spec(network(), [1] * 8, {"name": "lazy"}, 2, 8), inner)
    outcome = engine.train(torch.arange(8), [0.4, 0.3, 0.2, 0.1])  # all are wrong: one block, four batches
    assert inner.rates == [[0.1] * 4]
    assert (outcome.forwards, outcome.updates) == (16, 4)  # scored, and forwarded again for the updates
    assert outcome.selected.tolist() == [True] * 8


def config(tmp_path, **keys) -> Config:
    made = Config(epochs=2, batch_size=8, eval_every=10, device="cpu", runs_dir=str(tmp_path))
    made.model.width, made.dataset.train_size = 4, 30
    for key, value in keys.items():
        setattr(made, key, value)
    return check(made)


def test_possible_updates_count_the_short_batch(tmp_path):
    """30 samples in batches of 8: 4 updates per epoch; rows at the first batch border after every 10th sample."""
    table = rows(run(config(tmp_path, rule={"name": "backprop"})).folder / "metrics.csv")
    assert [int(row["samples_seen"]) for row in table] == [0, 16, 24, 30, 46, 54, 60]
    assert [int(row["updates_possible"]) for row in table] == [0, 2, 3, 4, 6, 7, 8]
    assert [row["updates"] for row in table] == [row["updates_possible"] for row in table]
    assert [float(row["epoch"]) for row in table] == [0.0, 0.533333, 0.8, 1.0, 1.533333, 1.8, 2.0]  # of 30; 6 digits


def test_the_best_accuracy_and_the_first_crossing(tmp_path):
    constants = dict.fromkeys(
        ("run_id", "dataset", "train_size", "rule", "width", "depth", "batch_size", "lr", "seed", "device"), 1
    )
    constants["run_id"] = "run"
    settings = config(tmp_path, targets=[0.9, 0.95])
    with RunFolder(tmp_path / "run", constants) as folder:
        for seconds, accuracy in ((0, 0.99), (1, 0.5), (2, 0.9), (3, 0.93), (4, 0.7)):  # the first before training
            row = dict.fromkeys([column.name for column in MEASURED], 0) | {"samples_seen": 10 * seconds}
            folder.append({**row, "train_seconds": seconds, "test_accuracy": accuracy, "updates": 10 * seconds})
        summary = folder.write_summary(asdict(settings), settings.targets, "finished")
    assert float(summary["best_test_accuracy"]) == 0.93 and float(summary["test_accuracy"]) == 0.7
    assert (float(summary["seconds_to_0.9"]), int(summary["updates_to_0.9"])) == (2, 20)  # reached exactly
    assert summary["seconds_to_0.95"] is None


def test_a_run_stops_at_exactly_stop_at(tmp_path):
    table = rows(run(config(tmp_path)).folder / "metrics.csv")
    best = max(table, key=lambda row: float(row["test_accuracy"]))
    report = run(config(tmp_path, stop_at=float(best["test_accuracy"])))
    assert report.status == "stopped" or best is table[-1]
    first = next(row for row in table if row["test_accuracy"] == best["test_accuracy"])
    assert rows(report.folder / "metrics.csv")[-1]["samples_seen"] == first["samples_seen"]


def test_kakurenbo_hides_no_misclassified_sample():
    rule = make_rule({"name": "kakurenbo", "fraction": 0.5, "confidence_threshold": 0.7})
    rule.start(RunInfo(4, 2, 2, 0, CPU))
    rule.epoch_indices(0)
    # 0: correct and confident; 1: wrong and confident; 2: correct, not confident; 3: wrong, not confident.
    logits = torch.tensor([[5.0, 0.0], [5.0, 0.0], [0.1, 0.0], [0.1, 0.0]])
    rule.update(ScoredBatch(torch.arange(4), logits, torch.tensor([0, 1, 0, 1])))
    assert rule.confident.tolist() == [True, False, False, False]
    order = rule.epoch_indices(1)
    assert order[-1] == 0 and not rule.preselect(torch.tensor([0]))  # the hidden sample is forwarded last
    # Half the epochs are done: F is 0.8 * 0.5, however few are hidden.
    assert rule.preselect(torch.arange(1, 4)).all() and rule.rate_factor(1) == pytest.approx(1 / 0.6)


@pytest.mark.parametrize("share, size", [(1.0, 8), (0.5, 16), (0.1, 64), (0.01, 512), (0.0, 512)])
def test_blocks_grow_as_fewer_samples_are_selected(share, size):
    """For four batches of 2: 8 / share samples, down to a power of two, at most the block of 512."""
    engine = Packed(spec(network(), [1] * 8, {"name": "lazy"}, 2, 512), None)
    engine.share = share
    assert engine._size() == size


BELOW, ABOVE = math.nextafter(0.0, -1.0), math.nextafter(1.0, 2.0)  # just outside 0 to 1
INTERVAL = [-1, 2**30 + 1]
# Rule and option, values that are just allowed, and values that are just not.
BOUNDS = [
    ("composer_selective_backprop", "keep", [5e-324, 1.0], [0.0, ABOVE]),
    ("composer_selective_backprop", "begin", [0.0, 1.0], [BELOW, ABOVE]),
    ("composer_selective_backprop", "end", [0.0, 1.0], [BELOW, ABOVE]),
    ("composer_selective_backprop", "interrupt", [0, 10**9], [-1]),
    ("confidence", "threshold", [0.0, 1.0], [BELOW, ABOVE, math.nan]),
    ("early_stopping", "threshold", [0.0, 1e300], [BELOW, math.inf]),
    ("early_stopping", "average", [1], [0]),
    ("evolved_sampling", "keep", [5e-324, 1.0], [0.0, ABOVE]),
    ("evolved_sampling", "beta1", [0.0, 1.0], [BELOW, ABOVE]),
    ("evolved_sampling", "beta2", [0.0, 1.0], [BELOW, ABOVE]),
    ("evolved_sampling", "anneal", [0.0, 0.5], [BELOW, math.nextafter(0.5, 1)]),
    ("infobatch", "ratio", [0.0, 0.9], [BELOW, math.nextafter(0.9, 1)]),
    ("infobatch", "anneal", [0.0, 1.0], [BELOW, ABOVE]),
    ("kakurenbo", "fraction", [0.0, math.nextafter(1.0, 0)], [BELOW, 1.0]),
    ("kakurenbo", "confidence_threshold", [0.0, 1.0], [BELOW, ABOVE]),
    ("lazy", "max_interval", [0, 1, 2**30], INTERVAL),
    ("lazy", "skip_threshold", [0.0, 1.0], [BELOW, ABOVE]),
    ("order_dp", "subset", [5e-324, 1.0], [0.0, ABOVE]),
    ("order_dp", "top", [5e-324, 1.0], [0.0, ABOVE]),
    ("progressive", "revision_epochs", [0], [-1]),
    ("progressive", "threshold", [0.0, 1.0], [BELOW, ABOVE]),
    ("random", "window", [1], [0]),
    ("selective_backprop", "beta", [0.0, 1e300], [BELOW, math.inf]),
    ("selective_backprop", "history", [1], [0]),
    ("smrd", "revision_epochs", [0], [-1]),
    ("smrd", "threshold", [0.0, 1.0], [BELOW, ABOVE]),
    ("spaced", "max_interval", [0, 1, 2**30], INTERVAL),
    ("srd", "decay", [5e-324, 1.0], [0.0, ABOVE]),
    ("srd", "revision_epochs", [0], [-1]),
    ("top_loss", "q", [0], [-1]),
]


@pytest.mark.parametrize("name, key, allowed, refused", BOUNDS)
def test_the_bounds_of_an_option(name, key, allowed, refused):
    needed = {"max_interval": 4} if key == "skip_threshold" else {}  # without it the option has no effect
    for value in allowed:
        assert getattr(make_rule({"name": name, key: value, **needed}), key) == value
    for value in refused:
        with pytest.raises(UserError, match=rf"rule\.{key}=.*must be"):
            make_rule({"name": name, key: value, **needed})
