"""An interrupted and resumed run ends as an uninterrupted one, for every rule, engine and optimizer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import timeless

from lazyexp.config import registry
from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.runs.recorder import Recorder

ROOT = Path(__file__).resolve().parents[2]
RULES = {
    "backprop": {},
    "lazy": {},
    "confidence": {"threshold": 0.8},
    "random": {"window": 100},
    "mistake_gated": {},
    "progressive": {"revision_epochs": 1},
    "spaced": {"max_interval": 2},
    "packed": {"name": "lazy"},
    "top_loss": {},
    "selective_backprop": {},
    "composer_selective_backprop": {"begin": 0.0},
    "infobatch": {"ratio": 0.3, "anneal": 0.7},
    "kakurenbo": {},
    "early_stopping": {"threshold": 0.1, "average": 1},
    "for_good": {"name": "early_stopping", "threshold": 0.1, "average": 1, "skip_forwards": True},
    "evolved_sampling": {"anneal": 0.0},
    "order_dp": {},
    "smrd": {},
    "srd": {"decay": 0.8},
    "seta": {},
    "bls": {},
    "bls_of_seta": {"name": "bls", "method": "seta"},
    "repb": {"window": 2},
    "rho_loss": {"keep": 0.5},
}


def settings(
    tmp_path, folder, rule="lazy", batch_size=8, optimizer="sgd", momentum=0.0, engine="auto", shift=False, custom="",
    components=None, scored_on=None, resnet=None, precision="float32",
):  # fmt: skip
    config = Config(
        epochs=3, eval_every=250, batch_size=batch_size, engine=engine, device="cpu", checkpoint_every=0,
        runs_dir=str(tmp_path / folder), rule={"name": rule, **RULES[rule]},
    )  # fmt: skip
    config.model.width, config.dataset.train_size = 20, 600
    config.optimizer.name, config.optimizer.momentum, config.optimizer.schedule = optimizer, momentum, "cosine"
    config.dataset.augment = ["shift"] if shift else []
    config.packing.block_size = 64 if rule == "packed" else 0
    config.dataset.components, config.packing.components = components, scored_on
    if resnet:  # and all that goes with it in the protocols of CIFAR
        config.model.name, config.model.depth, config.model.width, config.model.norm = "resnet", 8, 2, resnet
        config.precision, config.loss.label_smoothing, config.dataset.train_size = precision, 0.1, 200
        config.optimizer.momentum, config.optimizer.nesterov, config.optimizer.schedule = 0.9, True, "multistep"
        config.dataset.augment, config.dataset.padding_mode = ["crop", "flip", "cutout"], "reflect"
        config.dataset.cutout_size, config.dataset.scale, config.eval_every = 2, "channel", 80
    if custom:  # a module with Net, data and Descent
        config.model._target_, config.model.width = f"{custom}.Net", Config().model.width
        config.dataset._target_, config.dataset.train_size = f"{custom}.data", None
        config.optimizer._target_ = f"{custom}.Descent"
        config.optimizer.lr, config.optimizer.options = 0.02, {"alpha": 0.9}
    return check(config)


def assert_resumes_exactly(monkeypatch, tmp_path, **options):
    """Stop a run in the first and in the last epoch and compare it with an uninterrupted run, which is returned."""
    calls, stops = 0, ()

    def stop(self):
        nonlocal calls
        calls += 1
        return calls in stops

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "stop", stop)
        whole = run(settings(tmp_path, "whole", **options))
    calls, stops = 0, (2, min(6, calls))  # a rule that presents fewer samples has fewer calls
    assert stops[1] > 2
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "stop", stop)
        states = [run(settings(tmp_path, "broken", **options)).status for _ in range(3)]
    assert states == ["interrupted", "interrupted", "finished"]
    (broken,) = (path.parent for path in (tmp_path / "broken").glob("*/summary.csv"))
    for name in ("metrics.csv", "summary.csv"):
        assert timeless(broken / name) == timeless(whole.folder / name)
    one, other = (torch.load(folder / "model.pt") for folder in (broken, whole.folder))
    assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = (np.load(folder / "learned.npz") for folder in (broken, whole.folder))
    assert all(np.array_equal(one[key], other[key]) for key in one)
    return whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"components": 9},
        {"components": 9, "shift": True, "engine": "autograd"},
        {"scored_on": 9, "rule": "packed"},
        {"scored_on": 9, "rule": "packed", "momentum": 0.9},
        {"scored_on": 9, "rule": "packed", "shift": True},
        {"scored_on": 9, "rule": "packed", "components": 20},
    ],
)
def test_runs_on_components(monkeypatch, tmp_path, options):
    assert_resumes_exactly(monkeypatch, tmp_path, **options)


# A network with training and evaluation modes, data that are not images, an optimizer with a state.
CUSTOM = """
import numpy as np
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.table = nn.Embedding(7, 6)
        first, last = nn.Linear(6 * shape[0], 12), nn.Linear(12, classes)
        self.layers = nn.Sequential(first, NORM, nn.ReLU(), nn.Dropout(0.2), last)
    def forward(self, x):
        return self.layers(self.table(x).flatten(1))

def data():
    x = np.random.default_rng(0).integers(0, 7, (760, 4))
    y = x[:, 0] % 3
    return x[:600], y[:600], x[600:], y[600:]

Descent = torch.optim.RMSprop
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule, norm", [*((rule, "BatchNorm1d") for rule in RULES), *((rule, "LayerNorm") for rule in [*RULES][::3])]
)
def test_every_rule_with_custom_model_data_and_optimizer(monkeypatch, tmp_path, rule, norm):
    name = f"custom_{rule}_{norm}"
    (tmp_path / f"{name}.py").write_text(CUSTOM.replace("NORM", f"nn.{norm}(12)"))
    monkeypatch.syspath_prepend(tmp_path)
    whole = assert_resumes_exactly(monkeypatch, tmp_path, rule=rule, custom=name)
    row, learned = whole.summary, np.load(whole.folder / "learned.npz")
    assert row["samples_seen"] == learned["presented"].sum() > 0
    assert row["backward_samples"] == learned["learned"].sum() > 0
    assert row["test_accuracy"] > 0.4  # chance is a third
    start = make_model(settings(tmp_path, "whole", rule=rule, custom=name).model, (4,), 3, 0).state_dict()
    end = torch.load(whole.folder / "model.pt")
    moved = sum(float((end[key] - start[key]).abs().sum()) for key in end if key.endswith(("weight", "bias")))
    assert row["energy_l1_min"] == pytest.approx(moved, rel=1e-4) and row["energy_l1"] > moved


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule(monkeypatch, tmp_path, rule, batch_size):
    assert_resumes_exactly(monkeypatch, tmp_path, rule=rule, batch_size=batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["backprop", "lazy"])
@pytest.mark.parametrize(
    "options",
    [
        {"engine": "autograd"},
        {"engine": "autograd", "momentum": 0.9},
        {"engine": "fast", "momentum": 0.9},
        {"optimizer": "adam"},
        {"optimizer": "adamw"},
        {"batch_size": 64},
        {"shift": True},
    ],
    ids=str,
)
def test_every_engine_and_optimizer(monkeypatch, tmp_path, rule, options):
    assert_resumes_exactly(monkeypatch, tmp_path, rule=rule, **options)


@pytest.mark.slow
@pytest.mark.parametrize("norm, precision", [("batch", "float32"), ("group", "bfloat16")])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_with_a_resnet(monkeypatch, tmp_path, rule, norm, precision):
    assert_resumes_exactly(monkeypatch, tmp_path, rule=rule, batch_size=32, resnet=norm, precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize("revision_epochs", [2, 3])
def test_spaced_review_and_revision_epochs(monkeypatch, tmp_path, revision_epochs):
    """Progressive with spaced review, interrupted within its revision epochs."""
    monkeypatch.setitem(RULES, "progressive", {"revision_epochs": revision_epochs, "max_interval": 4})
    assert_resumes_exactly(monkeypatch, tmp_path, rule="progressive")


@pytest.mark.slow
def test_the_position_in_a_replay(monkeypatch, tmp_path):
    source = run(settings(tmp_path, "source"))
    monkeypatch.setitem(RULES, "random", {"replay": str(source.folder)})
    assert_resumes_exactly(monkeypatch, tmp_path, rule="random")


def test_every_rule_is_in_these_tests_and_in_the_fault_tests():
    spec = importlib.util.spec_from_file_location("twins", ROOT / "tests" / "faults" / "twins.py")
    twins = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twins)
    here = {options.get("name", rule) for rule, options in RULES.items()}
    assert here == set(registry.RULES) == {case[0] for case in twins.CASES}
