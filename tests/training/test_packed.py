"""Packing: blocks are scored, full batches of selected samples are trained on, and every forward pass is counted."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from conftest import only_run, rows

from lazyexp.config.schema import Config, ModelConfig, OptimizerConfig, PackingConfig
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


def engine(rule, batch_size, block_size=0, n=240):
    rng = torch.Generator().manual_seed(0)
    images = Samples(torch.rand(n, 1, 4, 4, generator=rng, dtype=torch.float64), torch.arange(n) % 3)
    images.dtype = torch.float64
    model = make_model(ModelConfig(width=10), (1, 4, 4), 3, 0).double()
    rule = make_rule(rule)
    rule.start(RunInfo(n, batch_size, 1, 0, torch.device("cpu")))
    rule.epoch_indices(0)
    energy = Energy(model, Clock(torch.device("cpu")))
    packing = PackingConfig(block_size=block_size)
    spec = EngineSpec(model, images, rule, OptimizerConfig(), batch_size, energy, packing=packing)
    return model, make_engine("auto", spec)


def test_packing_of_all_samples_is_backprop():
    ends = []
    for block_size in (8, 0):
        model, packed = engine({"name": "confidence", "threshold": 1.0}, 8, block_size)
        outcome = packed.train(torch.arange(240), [0.05] * 30)
        assert outcome.updates == 30 and outcome.trained.tolist() == list(range(240))
        ends.append(list(model.parameters()))
    assert all(torch.allclose(p, q, atol=1e-12) for p, q in zip(*ends, strict=True))


def test_passes_and_queue_by_hand():
    _, packed = engine({"name": "lazy"}, 16, 48)
    assert isinstance(packed, Packed)
    trained = []
    forwards = updates = 0
    for index in torch.arange(240).split(60):
        outcome = packed.train(index, [0.0] * 4)  # weights stay, so the misclassified samples are known
        trained += outcome.trained.tolist()
        forwards, updates = forwards + outcome.forwards, updates + outcome.updates
    with torch.no_grad():
        inputs, targets = packed.scorer.samples.batch(torch.arange(240))
        wrong = (packed.scorer.model(inputs).argmax(1) != targets).nonzero().squeeze(1).tolist()
    assert updates == len(wrong) // 16 and len(trained) == 16 * updates
    assert trained + packed.queue.tolist() == wrong  # in order, each once
    assert forwards == 240 + len(trained)


def config(tmp_path, rule, block_size=0, **changes):
    settings = Config(epochs=2, batch_size=16, device="cpu", runs_dir=str(tmp_path), rule=rule)
    settings.model.width, settings.eval_every, settings.optimizer.lr = 30, 700, 0.1
    settings.packing.block_size = block_size
    for key, value in changes.items():
        setattr(settings.model, key, value)
    return check(settings)


def test_a_packed_run_counts_what_it_did(tmp_path):
    summary = run(config(tmp_path, {"name": "spaced", "threshold": 0.9, "max_interval": 4}, 256)).summary
    seen, trained = int(summary["samples_seen"]), int(summary["backward_samples"])
    assert trained == 16 * int(summary["updates"])
    assert int(summary["forward_samples"]) == seen + trained
    assert seen <= 2 * 1437
    assert float(summary["test_accuracy"]) > 0.8


@pytest.mark.slow
def test_rules_run_on_a_cnn(tmp_path):
    """The autograd engine forwards selected samples again, and counts them."""
    for name in ("lazy", "backprop"):
        summary = run(config(tmp_path, {"name": name}, name="cnn", width=4, depth=2)).summary
        again = int(summary["backward_samples"]) if name == "lazy" else 0
        assert int(summary["forward_samples"]) == 2 * 1437 + again
        assert float(summary["test_accuracy"]) > 0.5


def byte_spec(scale, offset, precision="int8"):
    rng = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (300, 1, 6, 6), generator=rng, dtype=torch.uint8)
    images = Samples(pixels, torch.arange(300) % 3, scale, offset)
    model = make_model(ModelConfig(width=40), (1, 6, 6), 3, 0)
    rule = make_rule({"name": "lazy"})
    rule.start(RunInfo(300, 16, 1, 0, torch.device("cpu")))
    rule.epoch_indices(0)
    energy = Energy(model, Clock(torch.device("cpu")), False)
    return EngineSpec(model, images, rule, OptimizerConfig(), 16, energy, packing=PackingConfig(64, precision))


@pytest.mark.parametrize("lowest", [-0.1, -0.4])
@pytest.mark.parametrize("scale, offset", [(1 / 255, 0.0), (0.0127, -0.42)])
def test_scoring_in_int8_is_the_network_with_rounded_weights(scale, offset, lowest):
    spec = byte_spec(scale, offset)
    spec.model[1].weight.data[0, 0] = lowest  # the largest weight by size may be negative
    index = torch.arange(300).flip(0)
    logits, targets = Int8Scorer(spec)(index)
    rounded = copy.deepcopy(spec.model).double()
    weight = rounded[1].weight.data
    step = weight.abs().max() / 127
    weight.copy_((weight / step).round() * step)
    with torch.no_grad():
        wanted = rounded(spec.samples.batch(index)[0].double())
        exact = spec.model(spec.samples.batch(index)[0])
    assert torch.equal(targets, spec.samples.targets[index])
    assert torch.allclose(logits.double(), wanted, atol=1e-5)
    assert 0 < (logits - exact).abs().max() < 0.05  # rounded, and not by much


@pytest.mark.parametrize("depth", [1, 2])
def test_scoring_in_bfloat16_is_the_network_with_rounded_weights(depth):
    spec = byte_spec(0.0127, -0.42)
    spec = replace(spec, model=make_model(ModelConfig(width=40, depth=depth), (1, 6, 6), 3, 0))
    index = torch.arange(300).flip(0)
    logits, targets = Bfloat16Scorer(spec)(index)
    rounded = copy.deepcopy(spec.model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16().float()
    with torch.no_grad():
        inputs = spec.samples.batch(index)[0]
        wanted, exact = rounded(inputs.bfloat16().float()), spec.model(inputs)
    assert torch.equal(targets, spec.samples.targets[index])
    assert torch.allclose(logits, wanted, atol=0.02)  # activations and logits are rounded, too
    assert 0 < (logits - exact).abs().max() < 0.05


@pytest.mark.parametrize("kind", [Bfloat16Scorer, Int8Scorer])
def test_a_scorer_uses_new_weights_after_weights_changed(kind):
    spec = byte_spec(0.0127, -0.42)
    scorer, index = kind(spec), torch.arange(50)
    before = scorer(index)[0].clone()
    spec.model[1].weight.data.mul_(-1.0)
    assert torch.equal(scorer(index)[0], before)
    scorer.weights_changed()
    after = scorer(index)[0]
    with torch.no_grad():
        assert torch.allclose(after, spec.model(spec.samples.batch(index)[0]), atol=0.05)
    assert (after - before).abs().max() > 0.1


def test_blocks_have_few_sizes():
    _, packed = engine({"name": "lazy"}, 16, 1000)
    sizes = set()
    for share in torch.linspace(0, 1, 500).tolist():
        packed.share = share
        sizes.add(packed._size())
    assert sizes == {64, 128, 256, 512, 1000}


def test_extreme_weights_do_not_overflow_in_int8():
    spec = byte_spec(1 / 255, 0.0)
    spec.samples.pixels.fill_(255)
    spec.model[1].weight.data.fill_(1.0)
    with torch.no_grad():
        wanted = spec.model(spec.samples.batch(torch.arange(20))[0])
    assert torch.allclose(Int8Scorer(spec)(torch.arange(20))[0], wanted, rtol=1e-5)


def test_scoring_is_rounded_and_training_is_not():
    """The same selected samples in the same order as with exact scoring give the same weights."""
    ends = []
    for name in ("int8", "bfloat16", "float32"):
        spec = byte_spec(1 / 255, 0.0, name)
        spec.rule.select = lambda batch: batch.targets == 1  # independent of the precision
        packed = make_engine("auto", spec)
        outcome = packed.train(torch.arange(300), [0.1] * 19)
        assert outcome.updates == 100 // 16 and outcome.forwards == 300 + 96
        ends.append([parameter.detach().clone() for parameter in spec.model.parameters()])
    assert all(torch.equal(p, q) and torch.equal(p, r) for p, q, r in zip(*ends, strict=True))


@pytest.mark.slow
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
def test_scoring_precisions_where_they_do_not_fit(call, words):
    answer = call("rule=lazy", "epochs=1", "dataset.train_size=200", "model.width=8", "energy=false", *words)
    if words[-1] == "optimizer=adam":  # scoring does not depend on the optimizer
        assert answer.code == 0, answer.err
    else:
        assert answer.code == 2 and "packing.precision=" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "features, words, expected",
    [
        (("avx512_bf16", "vnni"), ["packing.components=null"], "bfloat16"),
        (("vnni",), ["packing.components=null"], "int8"),
        ((), ["packing.components=null"], "float32"),
        (("avx512_bf16", "vnni"), [], "bfloat16"),
        (("vnni",), [], "float32"),  # components are no bytes
        (("avx512_bf16", "vnni"), ["model=cnn", "model.width=2"], "float32"),
    ],
    ids=str,
)
def test_auto_is_the_fastest_precision_of_the_machine(call, tmp_path, monkeypatch, features, words, expected):
    """Files record the precision itself, and it is part of the run id."""
    monkeypatch.setattr(precision, "_has", lambda feature: feature in features)
    small = ["rule=fast_lazy", "epochs=1", "dataset.train_size=100", "device=cpu", "model.width=8", *words]
    assert call(*small).code == 0
    folder = only_run(tmp_path / "runs")
    assert json.loads((folder / "run.json").read_text())["settings"]["packing"]["precision"] == expected
    assert rows(folder / "summary.csv")[0]["packing.precision"] == expected
    assert (
        call(*small, f"packing.precision={expected}").out.count("finished before") == 1
    )  # the same run by its own name
