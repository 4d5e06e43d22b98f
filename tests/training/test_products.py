"""The library that computes float32 products changes nothing but rounding, and follows from processor and shape."""

from __future__ import annotations

import itertools

import pytest
import torch

from lazyexp.config.schema import ModelConfig, OptimizerConfig, PackingConfig
from lazyexp.data import Samples
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.runs import provenance
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.evaluation import evaluate
from lazyexp.utils import products

CPU = torch.device("cpu")
SETTINGS = [
    *itertools.product(("backprop", "lazy", "confidence", "random"), (1, 16, 64), ("sgd",)),
    *itertools.product(("backprop", "lazy", "top_loss"), (64,), ("momentum", "adam")),
    *itertools.product(("lazy", "confidence"), (16,), ("packing",)),
]


@pytest.fixture
def counted(monkeypatch):
    """oneDNN for every product of 32 rows and more, if switched on; counts its calls."""
    calls = []
    original = products._onednn
    monkeypatch.setattr(products, "WORK", 0)
    monkeypatch.setattr(products, "_onednn", lambda *factors: calls.append(1) or original(*factors))

    def switch(on: bool) -> list[int]:
        monkeypatch.setattr(products, "onednn_is_faster", lambda: on)
        return calls

    return switch


def train(rule, batch_size, optimizer, n=768):
    """Train on noisy images. Returns the selected samples, the counts, the weights, and the accuracy."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(n, 1, 8, 8, generator=rng)
    targets = (pixels.flatten(1) @ torch.randn(64, 10, generator=rng)).argmax(1)
    samples, model = Samples(pixels, targets, 2.0, -1.0), make_model(ModelConfig(width=48), (1, 8, 8), 10, 0)
    made = make_rule({"name": rule})
    made.start(RunInfo(n, batch_size, 1, 0, CPU))
    made.epoch_indices(0)
    config = OptimizerConfig(
        name="adam" if optimizer == "adam" else "sgd", momentum=0.9 if optimizer == "momentum" else 0.0
    )
    packing = PackingConfig(block_size=128 if optimizer == "packing" else 0)
    energy = Energy(model, Clock(CPU))
    engine = make_engine("auto", EngineSpec(model, samples, made, config, batch_size, energy, packing=packing))
    outcomes = [engine.train(index, [0.02] * -(-len(index) // batch_size)) for index in torch.arange(n).split(384)]
    trained, counts = [outcome.trained for outcome in outcomes], [int(outcome.updates) for outcome in outcomes]
    quality = evaluate(model, samples)
    return torch.cat(trained), counts, [p.detach() for p in model.parameters()], quality.accuracy, float(energy.l1)


@pytest.mark.parametrize("rule, batch_size, optimizer", SETTINGS)
def test_both_libraries_select_the_same_samples(counted, rule, batch_size, optimizer):
    assert len(SETTINGS) == 20
    calls = counted(False)
    expected = train(rule, batch_size, optimizer)
    assert not calls
    counted(True)
    trained, counts, weights, accuracy, l1 = train(rule, batch_size, optimizer)
    assert calls  # oneDNN computed some of the products
    assert torch.equal(trained, expected[0]) and counts == expected[1]
    for one, other in zip(weights, expected[2], strict=True):
        assert (one - other).abs().max() < 1e-4 * other.abs().max()
    assert accuracy == pytest.approx(expected[3], abs=2 / 768)
    assert l1 == pytest.approx(expected[4], rel=1e-4)


def test_small_products_and_other_types_stay_with_the_default(monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "_onednn", lambda *factors: pytest.fail("a small product"))
    weight, bias = torch.randn(1000, 784), torch.randn(1000)
    for x in (torch.randn(31, 784), torch.randn(0, 784)):
        assert torch.equal(products.affine(x, weight, bias), torch.addmm(bias, x, weight.t()))
    few, many = torch.randn(64, 10), torch.randn(64, 784)  # fewer outputs than 32
    assert torch.equal(products.outer(few, many), few.t() @ many)
    double = torch.randn(64, 784).double()
    assert products.affine(double, weight.double(), bias.double()).dtype == torch.float64


def test_every_function_is_its_formula(counted):
    x, weight, bias, delta = (torch.randn(*shape) for shape in ((64, 70), (50, 70), (50,), (64, 50)))
    for on in (False, True):
        counted(on)
        out, changed = torch.empty(64, 50), weight.clone()
        assert products.affine(x, weight, bias, out=out) is out
        products.add_outer(changed, delta, x, alpha=-0.1, beta=0.9)
        for one, other in (
            (out, x @ weight.t() + bias),
            (products.affine(x, weight, bias), out),
            (products.matmul(delta, weight), delta @ weight),
            (products.outer(delta, x), delta.t() @ x),
            (changed, 0.9 * weight - 0.1 * delta.t() @ x),
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_choice_needs_avx512_on_an_amd_processor_and_equal_results(monkeypatch):
    def choose(capability, amd, agrees=True):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(products, "is_amd", lambda: amd)
        monkeypatch.setattr(products, "agrees", lambda: agrees)
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
        return products.onednn_is_faster.__wrapped__()

    assert choose("AVX512", True)
    assert not choose("AVX512", False)  # Intel: MKL uses AVX-512, too
    assert not choose("AVX2", True)  # no wider instructions
    assert not choose("AVX512", True, agrees=False)


def test_a_missing_or_wrong_operator_is_not_used(monkeypatch):
    assert products.agrees()
    monkeypatch.setattr(products, "_onednn", lambda x, weight, bias: (x @ weight.t()) * 1.001)
    assert not products.agrees()
    monkeypatch.setattr(products, "_onednn", lambda x, weight, bias: torch.ops.mkldnn.no_such_operator(x))
    assert not products.agrees()


def test_run_json_has_the_library():
    now = provenance.session(CPU)
    assert now["products"] == products.library()
    former = {**now, "products": "another"}
    assert provenance.changes(former, now) == [f"products was another, is now {products.library()}"]
