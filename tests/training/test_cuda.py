"""Whole runs on the emulated GPU: the same numbers as on the CPU, and no call that CUDA would refuse.

In float64, because a GPU uses other engines, which score samples in other groups: updates differ by rounding only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL, needs_data, rows
from cuda_emulator import pretend
from torch import nn

import lazyexp.building as building
import lazyexp.experiment as experiment
from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.loss import LazyLoss
from lazyexp.runs.recorder import Recorder
from lazyexp.training.fast.bf16_split import SplitScorer

ROOT = Path(__file__).resolve().parents[2]
RULES = {
    "backprop": {"name": "backprop"},
    "lazy": {"name": "lazy"},
    "confidence": {"name": "confidence", "threshold": 0.8},
    "random": {"name": "random", "window": 100},
    "mistake_gated": {"name": "mistake_gated"},
    "progressive": {"name": "progressive", "revision_epochs": 1},
    "spaced": {"name": "spaced", "max_interval": 2},
    "fast_lazy": {"name": "spaced", "threshold": 0.9, "max_interval": 4, "skip_threshold": 0.99},
    "top_loss": {"name": "top_loss"},
    "selective_backprop": {"name": "selective_backprop"},
    "infobatch": {"name": "infobatch", "ratio": 0.3, "anneal": 0.7},
    "kakurenbo": {"name": "kakurenbo"},
}
# Engines round differently and score in other groups, and rounding may turn a zero change of a weight into a change.
CLOSE = ("train_loss", "test_loss", "energy_l1", "energy_l1_min", "energy_l0", "calibration_error")
DIFFERENT = ("run_id", "device", "forward_samples")


@pytest.fixture(autouse=True)
def double(monkeypatch):
    """Runs in float64."""
    load, make = building.load_data, building.make_model

    def loaded(*args, **kwargs):
        data = load(*args, **kwargs)
        for images in (data.train, data.test, data.val):
            if images is not None:
                images.dtype = torch.float64
        return data

    monkeypatch.setattr(building, "load_data", loaded)
    monkeypatch.setattr(building, "make_model", lambda *args: make(*args).double())


def settings(tmp_path, device, rule="lazy", batch_size=8, optimizer="sgd", momentum=0.0, engine="auto", shift=False,
             model="mlp", folder="runs", decay=0.0, depth=1, activation="relu", reduction=None,
             precision="float32"):  # fmt: skip
    config = Config(
        epochs=3, eval_every=60, batch_size=batch_size, engine=engine, device=device, checkpoint_every=0,
        runs_dir=str(tmp_path / folder), rule=RULES[rule],
    )  # fmt: skip
    config.model.width, config.dataset.val_size = 12, 50
    config.dataset.train_size = 160 if batch_size == 1 else max(320, batch_size)
    config.model.name, config.model.depth, config.model.activation = model, depth, activation
    config.optimizer.name, config.optimizer.momentum, config.optimizer.weight_decay = optimizer, momentum, decay
    config.optimizer.lr = 0.05 if optimizer == "sgd" else 0.003
    if reduction:
        config.optimizer.reduction = reduction
    if rule == "fast_lazy":
        config.packing.block_size, config.packing.precision = 64, precision
    config.dataset.augment = ["shift"] if shift else []
    return check(config)


def assert_alike(one: Path, other: Path) -> None:
    """Rows, learned.npz and weights of two runs."""
    first, second = rows(one / "metrics.csv"), rows(other / "metrics.csv")
    assert len(first) == len(second) >= 3
    for row, twin in zip(first, second, strict=True):
        for name, value in row.items():
            if name in CLOSE and value:
                assert float(value) == pytest.approx(float(twin[name]), rel=1e-3 if name == "energy_l0" else 1e-6), (
                    name
                )
            elif name not in DIFFERENT and "seconds" not in name:
                assert value == twin[name], name
    with np.load(one / "learned.npz") as a, np.load(other / "learned.npz") as b:
        for name in ("index", "presented", "misclassified", "learned"):
            assert np.array_equal(a[name], b[name]), name
    a, b = torch.load(one / "model.pt"), torch.load(other / "model.pt")
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-7, atol=1e-9)


def assert_equal_to_the_cpu(tmp_path, **options):
    with pretend() as gpu:
        on_gpu = experiment.run(settings(tmp_path, "cuda", **options))
        assert gpu.launches > 100 and sum(gpu.waits.values()) > 3
    on_cpu = experiment.run(settings(tmp_path, "cpu", **options))
    assert on_gpu.status == on_cpu.status == "finished"
    assert on_gpu.summary["device"] == "cuda" and on_cpu.summary["device"] == "cpu"
    assert_alike(on_gpu.folder, on_cpu.folder)
    return gpu


@pytest.mark.parametrize(
    "batch_size", [8, pytest.param(1, marks=pytest.mark.slow), pytest.param(64, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "rule", [name if name in ("lazy", "infobatch") else pytest.param(name, marks=pytest.mark.slow) for name in RULES]
)
def test_every_rule(tmp_path, rule, batch_size):
    assert_equal_to_the_cpu(tmp_path, rule=rule, batch_size=batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["backprop", "lazy", "infobatch"])
@pytest.mark.parametrize(
    "options",
    [
        {"engine": "autograd"},
        {"engine": "autograd", "momentum": 0.9},
        {"engine": "fast", "momentum": 0.9, "decay": 0.01},
        {"engine": "fast", "momentum": 0.9, "batch_size": 64},
        {"engine": "fast", "decay": 0.01, "batch_size": 64},
        {"optimizer": "adam"},
        {"optimizer": "adamw"},
        {"batch_size": 600},
        {"batch_size": 1, "depth": 2, "activation": "gelu", "reduction": "selected"},
        {"batch_size": 64, "depth": 3, "activation": "tanh", "reduction": "selected"},
        {"batch_size": 1, "shift": True},
        {"batch_size": 64, "shift": True},
        {"model": "cnn", "batch_size": 32},
    ],
    ids=str,
)
def test_every_engine_model_and_optimizer(tmp_path, rule, options):
    assert_equal_to_the_cpu(tmp_path, rule=rule, **options)


@pytest.mark.parametrize("rule", ["lazy", pytest.param("backprop", marks=pytest.mark.slow),
                                  pytest.param("infobatch", marks=pytest.mark.slow),
                                  pytest.param("mistake_gated", marks=pytest.mark.slow),
                                  pytest.param("random", marks=pytest.mark.slow)])  # fmt: skip
@pytest.mark.parametrize("batch_size", [64, pytest.param(1, marks=pytest.mark.slow)])
def test_an_interrupted_run_resumes(monkeypatch, tmp_path, rule, batch_size):
    calls = 0

    def stop(self):
        nonlocal calls
        calls += 1
        return calls in (2, 6)

    with pretend():
        whole = experiment.run(settings(tmp_path, "cuda", rule=rule, batch_size=batch_size))
        monkeypatch.setattr(Recorder, "stop", stop)
        again = settings(tmp_path, "cuda", rule=rule, batch_size=batch_size, folder="broken")
        results = [experiment.run(again) for _ in range(3)]
    assert [result.status for result in results] == ["interrupted", "interrupted", "finished"]
    assert_alike(results[-1].folder, whole.folder)


@pytest.mark.slow
def test_float32_is_computed_as_float32_and_run_json_records_it(tmp_path):
    with pretend():
        folder = experiment.run(settings(tmp_path, "cuda", batch_size=64)).folder
    facts = json.loads((folder / "run.json").read_text())
    found = facts["fp32_precision"]
    assert found == facts["sessions"][0]["fp32_precision"]
    assert found == {"float32_matmul": "highest", "cudnn": "float32"}


@pytest.mark.slow
def test_scoring_in_bfloat16_on_a_gpu_splits_the_weights(tmp_path, monkeypatch):
    made = []
    start = SplitScorer.__init__
    monkeypatch.setattr(SplitScorer, "__init__", lambda self, spec: (made.append(self), start(self, spec))[1])
    with pretend():
        result = experiment.run(settings(tmp_path, "cuda", rule="fast_lazy", batch_size=16, precision="bfloat16"))
    assert result.status == "finished" and len(made) == 1 and result.summary["updates"] > 0


def program(tmp_path, *arguments: str, timeout: int = 300) -> subprocess.CompletedProcess:
    """A process on the emulated GPU."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}", "LAZYEXP_DATA": str(REAL), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "cuda_emulator.py"), *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.mark.slow
def test_the_program_a_sweep_and_its_report(tmp_path):
    sweep = ["rule=lazy,backprop", "seed=0,1", "epochs=2", "dataset.train_size=200", "model.width=8"]
    answer = program(tmp_path, "lazyexp", "-m", *sweep, "device=auto", "runs_dir=runs")
    assert answer.returncode == 0, answer.stderr
    found = list((tmp_path / "runs").glob("*/summary.csv"))
    assert len(found) == 4 and all(rows(path)[0]["device"] == "cuda" for path in found)
    report = [sys.executable, "-m", "lazyexp.report.cli", "runs"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(report, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow
def test_the_tests_for_a_gpu(tmp_path):
    tests = [str(ROOT / "tests" / name) for name in ("training/test_engines.py", "test_loss.py")]
    arguments = [
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(ROOT),
        "-c",
        f"{ROOT}/pyproject.toml",
    ]
    answer = program(tmp_path, "pytest", *arguments, *tests)
    assert answer.returncode == 0, answer.stdout
    assert "4 passed" in answer.stdout and "skipped" not in answer.stdout


@pytest.mark.slow
@needs_data
def test_the_benchmark(tmp_path):
    options = ["--batches", "64", "--widths", "16", "--samples", "256", "--repeats", "1", "--epochs", "0"]
    answer = program(tmp_path, "script", f"{ROOT}/scripts/bench.py", "--device", "cuda", *options, timeout=900)
    assert answer.returncode == 0, answer.stderr
    assert len(rows(tmp_path / "bench.csv")) == 8


def test_lazy_loss_in_a_custom_loop():
    def train(device):
        torch.manual_seed(0)
        x, y = torch.randn(96, 5).to(device), (torch.arange(96) % 3).to(device)
        model, criterion = nn.Linear(5, 3).to(device), LazyLoss(nn.CrossEntropyLoss(), threshold=0.5).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for start in range(0, 96, 8):
            loss = criterion(model(x[start : start + 8]), y[start : start + 8])
            if criterion.learned:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return [p.detach().cpu() for p in model.parameters()]

    with pretend():
        on_gpu = train("cuda")
    for one, other in zip(on_gpu, train("cpu"), strict=True):
        torch.testing.assert_close(one, other)
