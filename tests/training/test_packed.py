"""Packing: judged at once, learned in full batches; every pass counted."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from conftest import only_run, rows

from lazyexp.config.schema import Config, ModelConfig, OptimizerConfig
from lazyexp.config.validation import check
from lazyexp.data import Samples
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec, make_engine, precision
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.bf16 import Bfloat16Scorer
from lazyexp.training.fast.int8 import Int8Scorer
from lazyexp.training.fast.packed import Packed


def engine(rule, batch_size, n=240):
    rng = torch.Generator().manual_seed(0)
    images = Samples(torch.rand(n, 1, 4, 4, generator=rng, dtype=torch.float64), torch.arange(n) % 3)
    images.dtype = torch.float64
    model = make_model(ModelConfig(width=10), (1, 4, 4), 3, 0).double()
    rule = make_rule(rule)
    rule.start(RunInfo(n, batch_size, 1, 0, torch.device("cpu")))
    rule.epoch_indices(0)
    energy = Energy(model, Clock(torch.device("cpu")))
    return model, make_engine("auto", EngineSpec(model, images, rule, OptimizerConfig(), batch_size, energy))


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
        inputs, targets = learner.judge.images.batch(torch.arange(240))
        wrong = (learner.judge.model(inputs).argmax(1) != targets).nonzero().squeeze(1).tolist()
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


def byte_job(scale, offset):
    rng = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (300, 1, 6, 6), generator=rng, dtype=torch.uint8)
    images = Samples(pixels, torch.arange(300) % 3, scale, offset)
    model = make_model(ModelConfig(width=40), (1, 6, 6), 3, 0)
    rule = make_rule({"name": "lazy", "block": 64, "judge": "int8"})
    rule.start(RunInfo(300, 16, 1, 0, torch.device("cpu")))
    rule.epoch_indices(0)
    return EngineSpec(model, images, rule, OptimizerConfig(), 16, Energy(model, Clock(torch.device("cpu")), False))


@pytest.mark.parametrize("lowest", [-0.1, -0.4])
@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0.0), (0.0127, -0.42)])
def test_judging_in_int8_is_the_network_with_rounded_weights(scale, offset, lowest):
    spec = byte_job(scale, offset)
    spec.model[1].weight.data[0, 0] = lowest  # the largest one by size may be negative
    index = torch.arange(300).flip(0)
    logits, targets = Int8Scorer(spec)(index)
    rounded = copy.deepcopy(spec.model).double()
    weight = rounded[1].weight.data
    step = weight.abs().max() / 127
    weight.copy_((weight / step).round() * step)
    with torch.no_grad():
        wanted = rounded(spec.images.batch(index)[0].double())
        exact = spec.model(spec.images.batch(index)[0])
    assert torch.equal(targets, spec.images.targets[index])
    assert torch.allclose(logits.double(), wanted, atol=1e-5)
    assert 0 < (logits - exact).abs().max() < 0.05  # rounded, and not by much


@pytest.mark.parametrize("depth", [1, 2])
def test_judging_in_bfloat16_is_the_network_with_rounded_weights(depth):
    spec = byte_job(0.0127, -0.42)
    spec = replace(spec, model=make_model(ModelConfig(width=40, depth=depth), (1, 6, 6), 3, 0))
    index = torch.arange(300).flip(0)
    logits, targets = Bfloat16Scorer(spec)(index)
    rounded = copy.deepcopy(spec.model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16().float()
    with torch.no_grad():
        inputs = spec.images.batch(index)[0]
        wanted, exact = rounded(inputs.bfloat16().float()), spec.model(inputs)
    assert torch.equal(targets, spec.images.targets[index])
    assert torch.allclose(logits, wanted, atol=0.02)  # activations and logits are rounded, too
    assert 0 < (logits - exact).abs().max() < 0.05


@pytest.mark.parametrize("kind", [Bfloat16Scorer, Int8Scorer])
def test_a_judge_knows_new_weights_when_told(kind):
    spec = byte_job(0.0127, -0.42)
    judge, index = kind(spec), torch.arange(50)
    before = judge(index)[0].clone()
    spec.model[1].weight.data.mul_(-1.0)
    assert torch.equal(judge(index)[0], before)
    judge.weights_changed()
    after = judge(index)[0]
    with torch.no_grad():
        assert torch.allclose(after, spec.model(spec.images.batch(index)[0]), atol=0.05)
    assert (after - before).abs().max() > 0.1


def test_blocks_have_few_sizes():
    _, learner = engine({"name": "lazy", "block": 1000}, 16)
    sizes = set()
    for share in torch.linspace(0, 1, 500).tolist():
        learner.share = share
        sizes.add(learner._size())
    assert sizes == {64, 128, 256, 512, 1000}


def test_extreme_weights_do_not_overflow_in_int8():
    spec = byte_job(1 / 255, 0.0)
    spec.images.pixels.fill_(255)
    spec.model[1].weight.data.fill_(1.0)
    with torch.no_grad():
        wanted = spec.model(spec.images.batch(torch.arange(20))[0])
    assert torch.allclose(Int8Scorer(spec)(torch.arange(20))[0], wanted, rtol=1e-5)


def test_judges_round_and_learning_does_not():
    """The same learners in the same order as with exact judging give the same weights."""
    ends = []
    for judge in ("int8", "bfloat16", "float32"):
        spec = byte_job(1 / 255, 0.0)
        spec.packing.precision = judge
        spec.rule.weigh = lambda judged: judged.targets == 1  # not a matter of precision
        learner = make_engine("auto", spec)
        outcome = learner.train(torch.arange(300), [0.1] * 19)
        assert outcome.updates == 100 // 16 and outcome.forwards == 300 + 96
        ends.append([parameter.detach().clone() for parameter in spec.model.parameters()])
    assert all(torch.equal(p, q) and torch.equal(p, r) for p, q, r in zip(*ends, strict=True))


@pytest.mark.parametrize(
    "words",
    [
        ["packing.precision=int4", "packing.block_size=64"],
        ["packing.precision=int8"],
        ["packing.precision=bfloat16"],
        ["packing.precision=bfloat16", "packing.block_size=64", "model=cnn"],
        ["packing.precision=int8", "packing.block_size=64", "model=cnn"],
        ["packing.precision=int8", "packing.block_size=64", "optimizer=adam"],
    ],
)
def test_judges_where_they_do_not_fit(call, words):
    answer = call("rule=lazy", "epochs=1", "dataset.train_size=200", "model.width=8", "energy=false", *words)
    if words[-1] == "optimizer=adam":  # judging is no matter of the optimizer
        assert answer.code == 0, answer.err
    else:
        assert answer.code == 2 and "packing.precision=" in answer.err


@pytest.mark.parametrize(
    ("features", "words", "expected"),
    [
        (("avx512_bf16", "vnni"), [], "bfloat16"),
        (("vnni",), [], "int8"),
        ((), [], "float32"),
        (("avx512_bf16", "vnni"), ["model=cnn", "model.width=2"], "float32"),
    ],
    ids=str,
)
def test_the_judge_is_what_the_machine_has(call, tmp_path, monkeypatch, features, words, expected):
    """And everything that is written says which; a machine that has another one does another run."""
    monkeypatch.setattr(precision, "_has", lambda feature: feature in features)
    small = ["rule=fast_lazy", "epochs=1", "dataset.train_size=100", "device=cpu", "model.width=8", *words]
    assert call(*small).code == 0
    folder = only_run(tmp_path / "runs")
    assert json.loads((folder / "run.json").read_text())["settings"]["rule"]["judge"] == expected
    assert json.loads(rows(folder / "summary.csv")[0]["rule_options"])["judge"] == expected
    assert (
        call(*small, f"packing.precision={expected}").out.count("finished before") == 1
    )  # the same run by its own name
