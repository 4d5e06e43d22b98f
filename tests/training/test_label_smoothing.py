"""Label smoothing: PyTorch's own, in the loss that trains, in the rules' losses and in train_loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import only_run, rows

from lazyexp.config.schema import Config, OptimizerConfig
from lazyexp.config.validation import check
from lazyexp.data import Samples
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, ScoredBatch, make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy

CPU = torch.device("cpu")


def test_a_step_minimises_the_smoothed_loss():
    pixels, targets = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    samples, rule = Samples(pixels, targets), make_rule({"name": "backprop"})
    samples.label_smoothing = 0.2
    rule.start(RunInfo(6, 6, 1, 0, CPU))
    config = Config()
    config.model.width = 5
    model, twin = (make_model(config.model, (1, 2, 2), 3, 0) for _ in range(2))
    spec = EngineSpec(model, samples, rule, OptimizerConfig(lr=0.5), 6, Energy(model, Clock(CPU)))
    engine = make_engine("auto", spec)
    assert isinstance(engine, AutogradEngine)
    engine.train(torch.arange(6), [0.5])
    F.cross_entropy(twin(pixels), targets, label_smoothing=0.2).backward()
    for moved, parameter in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(moved, parameter - 0.5 * parameter.grad, atol=1e-6)


def test_rules_get_the_loss_that_is_minimised():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    batch = ScoredBatch(torch.arange(4), logits, targets, label_smoothing=0.1)
    assert torch.equal(batch.loss, F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.1))


@pytest.mark.slow
def test_the_loss_in_the_files_is_smoothed(call, tmp_path):
    """With equal logits the smoothed loss is log(10) as well; a confident network's is far above the plain one."""
    losses = {}
    for smoothing in (0.0, 0.5):
        config = Config(epochs=10, batch_size=16, device="cpu", runs_dir=str(tmp_path / str(smoothing)))
        config.model.width, config.loss.label_smoothing, config.rule = 50, smoothing, {"name": "backprop"}
        config.optimizer.lr = 0.1
        losses[smoothing] = float(rows(run(check(config)).folder / "summary.csv")[0]["train_loss"])
    assert losses[0.0] < 0.5 < 1.4 < losses[0.5]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["engine=fast"], "engine=fast: is for loss.label_smoothing=0; use engine=auto"),
        (["plasticity=largest"], "loss.label_smoothing=0.1: must be 0 unless plasticity=all"),
    ],
)
def test_engines_without_it_refuse(call, arguments, message):
    answer = call("loss.label_smoothing=0.1", "epochs=1", *arguments)
    assert answer.code == 2 and message in answer.err


@pytest.mark.slow
def test_packing_trains_with_the_smoothed_loss(call, tmp_path):
    packing = ["packing.block_size=64", "batch_size=8", "rule=confidence"]
    assert call("loss.label_smoothing=0.1", "epochs=2", "model.width=20", *packing).code == 0
    assert float(rows(only_run(tmp_path) / "summary.csv")[0]["test_accuracy"]) > 0.5


def test_nesterov_momentum_is_for_autograd():
    samples, rule = Samples(torch.rand(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64)), make_rule({"name": "lazy"})
    rule.start(RunInfo(6, 6, 1, 0, CPU))
    model = make_model(Config().model, (1, 2, 2), 3, 0)
    optimizer = OptimizerConfig(momentum=0.9, nesterov=True)
    engine = make_engine("auto", EngineSpec(model, samples, rule, optimizer, 6, Energy(model, Clock(CPU))))
    assert isinstance(engine, AutogradEngine)
