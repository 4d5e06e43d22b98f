"""Packing: judged at once, learned in full batches; every pass counted."""

from __future__ import annotations

import torch

from lazyexp.accounting import Clock, Energy
from lazyexp.config import Config, ModelConfig, OptimizerConfig, check
from lazyexp.data import Images
from lazyexp.experiment import run
from lazyexp.models import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import Job, make_engine
from lazyexp.training.fast.packed import Packed


def engine(rule, batch_size, n=240):
    rng = torch.Generator().manual_seed(0)
    images = Images(torch.rand(n, 1, 4, 4, generator=rng, dtype=torch.float64), torch.arange(n) % 3)
    images.dtype = torch.float64
    model = make_model(ModelConfig(width=10), (1, 4, 4), 3, 0).double()
    rule = make_rule(rule)
    rule.start(RunInfo(n, batch_size, 1, 0, torch.device("cpu")))
    rule.visit(0)
    energy = Energy(model, Clock(torch.device("cpu")))
    return model, make_engine("auto", Job(model, images, rule, OptimizerConfig(), batch_size, energy))


def test_everybody_packed_is_backprop():
    everybody = {"name": "confidence", "threshold": 1.0}
    ends = []
    for rule in ({**everybody, "block": 8}, everybody):
        model, learner = engine(rule, 8)
        outcome = learner.train(torch.arange(240), [0.05] * 30)
        assert outcome.updates == 30 and outcome.learned.tolist() == list(range(240))
        ends.append(list(model.parameters()))
    assert all(torch.allclose(p, q, atol=1e-12) for p, q in zip(*ends, strict=True))


def test_passes_and_queue_by_hand():
    _, learner = engine({"name": "lazy", "block": 48}, 16)
    assert isinstance(learner, Packed)
    learned = []
    forwards = updates = 0
    for index in torch.arange(240).split(60):
        outcome = learner.train(index, [0.0] * 4)  # weights stay, so it is known who is wrong
        learned += outcome.learned.tolist()
        forwards, updates = forwards + outcome.forwards, updates + outcome.updates
    with torch.no_grad():
        inputs, targets = learner.images.batch(torch.arange(240))
        wrong = (learner.model(inputs).argmax(1) != targets).nonzero().squeeze(1).tolist()
    assert updates == len(wrong) // 16 and len(learned) == 16 * updates
    assert learned + learner.queue.tolist() == wrong  # in order, every one once
    assert forwards == 240 + len(learned)


def config(tmp_path, rule, **changes):
    settings = Config(epochs=2, batch_size=16, device="cpu", runs_dir=str(tmp_path), rule=rule)
    settings.model.width, settings.eval_every, settings.optimizer.lr = 30, 700, 0.1
    for key, value in changes.items():
        setattr(settings.model, key, value)
    return check(settings)


def test_a_packed_run_counts_what_it_did(tmp_path):
    summary = run(config(tmp_path, {"name": "spaced", "threshold": 0.9, "max_interval": 4, "block": 256})).summary
    seen, learned = int(summary["samples_seen"]), int(summary["backward_samples"])
    assert learned == 16 * int(summary["updates"])
    assert int(summary["forward_samples"]) == seen + learned
    assert seen <= 2 * 1437
    assert float(summary["test_accuracy"]) > 0.8


def test_rules_run_on_a_cnn(tmp_path):
    """The general loop: those who learn are forwarded again, and that is counted."""
    for name in ("lazy", "backprop"):
        summary = run(config(tmp_path, {"name": name}, name="cnn", width=4, depth=2)).summary
        again = int(summary["backward_samples"]) if name == "lazy" else 0
        assert int(summary["forward_samples"]) == 2 * 1437 + again
        assert float(summary["test_accuracy"]) > 0.5
