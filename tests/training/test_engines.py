"""Every engine makes the same updates as plain autograd, step by step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lazyexp.config.schema import ModelConfig, OptimizerConfig
from lazyexp.data import Samples
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.clock import Clock
from lazyexp.training.counters import Outcome
from lazyexp.training.energy import Energy
from lazyexp.training.engines import FAST, RESTRICTED, engine_table
from lazyexp.training.fast.adam import DirectAdam
from lazyexp.training.fast.adaptive import Adaptive
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.lookahead import LookAhead
from lazyexp.training.fast.packed import Packed
from lazyexp.training.fast.rounds import Rounds

CPU = torch.device("cpu")


def problem(n: int, dtype=torch.float64):
    """n noisy images of 8x8 pixels in 10 classes that a network can learn, but not perfectly."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(n, 1, 8, 8, dtype=torch.float64, generator=rng)
    targets = (pixels.flatten(1) @ torch.randn(64, 10, dtype=torch.float64, generator=rng)).argmax(1)
    return pixels.to(dtype), targets


def train(kind, rule, n=3000, batch_size=1, lr=0.05, dtype=torch.float64, chunk=1000, device=CPU, **options):
    """Trains a small network with an engine of `kind`. Returns (model, outcomes, energy)."""
    depth, activation = options.pop("depth", 1), options.pop("activation", "relu")
    pixels, targets = problem(n, dtype)
    images = Samples(pixels.to(device), targets.to(device), 2.0, -1.0, 0, dtype)
    model = make_model(ModelConfig(width=40, depth=depth, activation=activation), (1, 8, 8), 10, 0)
    model = model.to(device, dtype)
    rule = make_rule(rule)
    rule.start(RunInfo(n, batch_size, 1, 0, device))
    rule.epoch_indices(0)
    energy = Energy(model, Clock(device))
    engine = kind(EngineSpec(model, images, rule, OptimizerConfig(lr=lr, **options), batch_size, energy))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1)).to(device)
    outcomes = []
    for index in order.split(chunk // batch_size * batch_size):
        rates = [lr * (1 - i / n) for i in range(0, len(index), batch_size)]
        outcomes.append(engine.train(index, rates))
    return model, outcomes, energy


def assert_same(one, other, tolerance=1e-10):
    for p, q in zip(one[0].parameters(), other[0].parameters(), strict=True):
        assert (p - q).abs().max() < tolerance
    for a, b in zip(one[1], other[1], strict=True):
        assert torch.equal(a.trained, b.trained)
        assert a.updates == b.updates
        assert (a.logits - b.logits).abs().max() < tolerance
    assert float(one[2].l1) == pytest.approx(float(other[2].l1), rel=max(1e-9, tolerance))


RULES = {
    "backprop": {"name": "backprop"},
    "lazy": {"name": "lazy"},
    "confidence": {"name": "confidence", "threshold": 0.6},
    "random": {"name": "random", "window": 50},
}
NETWORKS = {
    "relu": {},
    "gelu": {"depth": 2, "activation": "gelu", "reduction": "selected"},
    "tanh": {"depth": 3, "activation": "tanh"},
    "leaky": {"activation": "leaky_relu", "reduction": "selected"},
}


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize("network", [slow(name) if name != "relu" else name for name in NETWORKS])
@pytest.mark.parametrize("batch_size", [slow(1), slow(3), 16, slow(64)])
@pytest.mark.parametrize("rule", RULES)
def test_hand_derived_engines_equal_autograd(rule, batch_size, network):
    options = dict(
        n=2000 if network == "relu" and batch_size > 1 else 600, batch_size=batch_size, **NETWORKS[network]
    )
    plain = train(AutogradEngine, RULES[rule], **options)
    kinds = [Direct]
    if batch_size <= 32:
        kinds.append(Deferred)
    if rule in ("lazy", "confidence"):
        kinds += [LookAhead, Adaptive]
    for kind in kinds:
        assert_same(train(kind, RULES[rule], **options), plain)
    if batch_size > 1 or rule in ("lazy", "random"):
        few = {**options, "n": 600}
        assert_same(train(Rounds, RULES[rule], **few), train(AutogradEngine, RULES[rule], **few))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch_size", [1, 16])
def test_direct_with_momentum_and_decay_equals_autograd(rule, batch_size):
    options = {"n": 800, "batch_size": batch_size, "momentum": 0.9, "weight_decay": 0.01, "lr": 0.005}
    plain = train(AutogradEngine, RULES[rule], **options)
    assert_same(train(Direct, RULES[rule], **options), plain)
    few = {**options, "n": 600}
    assert_same(train(Rounds, RULES[rule], **few), train(AutogradEngine, RULES[rule], **few))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["lazy", "confidence"])
@pytest.mark.parametrize("lr", [0.005, 0.02, 0.1])
def test_look_ahead_equals_one_by_one_training(rule, lr):
    """More than 20,000 samples: selected samples and weights are those of the online loop."""
    options = {"n": 21000, "lr": lr}
    plain = train(Direct, RULES[rule], **options)
    ahead = train(LookAhead, RULES[rule], **options)
    assert_same(ahead, plain)
    assert sum(len(outcome.trained) for outcome in plain[1]) > 500
    assert sum(outcome.forwards for outcome in ahead[1]) > 21000  # discarded results are counted


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Direct, Deferred, LookAhead])
def test_single_precision_stays_close(kind):
    options = {"dtype": torch.float32, "lr": 0.02}
    fast, plain = train(kind, RULES["lazy"], **options), train(AutogradEngine, RULES["lazy"], **options)
    trained, expected = ({*torch.cat([o.trained for o in run[1]]).tolist()} for run in (fast, plain))
    assert len(trained ^ expected) < 0.01 * len(expected)
    for p, q in zip(fast[0].parameters(), plain[0].parameters(), strict=True):
        assert (p - q).abs().max() < 1e-2 * q.abs().max()


@pytest.mark.slow
def test_the_last_batch_may_be_short():
    for kind in (Direct, Deferred, LookAhead, Rounds):
        options = {"n": 1003, "batch_size": 8, "chunk": 1003}
        assert_same(train(kind, RULES["lazy"], **options), train(AutogradEngine, RULES["lazy"], **options))


def test_the_first_engine_that_fits_is_used():
    def choose(rule="lazy", batch_size=1, name="auto", **optimizer):
        model = make_model(ModelConfig(width=4), (1, 8, 8), 10, 0)
        energy = Energy(model, Clock(CPU))
        config = OptimizerConfig(**optimizer)
        images = Samples(*problem(10))
        return type(
            make_engine(name, EngineSpec(model, images, make_rule({"name": rule}), config, batch_size, energy))
        )

    assert choose() is Adaptive
    assert choose("backprop") is Deferred
    assert choose("random") is Deferred
    assert choose("backprop", batch_size=256) is Direct
    assert choose(momentum=0.9) is Direct
    assert choose(weight_decay=0.1) is Direct
    assert choose("backprop", momentum=0.9) is choose("backprop", weight_decay=0.1) is Direct
    assert choose(name="autograd") is AutogradEngine


def test_adaptive_avoids_look_ahead_while_most_batches_have_an_update(monkeypatch):
    """Look-ahead would discard most of its results."""
    shares = []
    monkeypatch.setattr(LookAhead, "train", lambda self, index, rates: shares.append(self.share))
    model = make_model(ModelConfig(width=4), (1, 8, 8), 10, 0)
    rule = make_rule({"name": "lazy"})
    spec = EngineSpec(model, Samples(*problem(40)), rule, OptimizerConfig(), 1, Energy(model, Clock(CPU), False))
    for share, expected in ((0.6, []), (0.4, [0.4])):
        engine = Adaptive(spec)
        engine.look_ahead.share = share
        engine.one_by_one.train = lambda index, rates: Outcome(None, index, 0, 0, None)
        engine.train(torch.arange(40), [0.1] * 40)
        assert shares == expected


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("name, decay", [("adam", 0.0), ("adam", 0.01), ("adamw", 0.01)])
@pytest.mark.parametrize("rule", ["backprop", "confidence"])
def test_hand_derived_adam_equals_autograd(rule, name, decay, batch_size):
    options = {
        "n": 960,
        "chunk": 480,
        "batch_size": batch_size,
        "name": name,
        "weight_decay": decay,
        "lr": 0.003,
        "depth": 2,
    }
    assert_same(train(DirectAdam, RULES[rule], **options), train(AutogradEngine, RULES[rule], **options), 1e-9)


def test_adam_is_hand_derived_for_an_mlp_only():
    optimizer = OptimizerConfig(name="adam")

    def choose(name, kind):
        model = make_model(ModelConfig(name=kind, width=4), (1, 8, 8), 10, 0)
        images, energy = Samples(*problem(10)), Energy(model, Clock(CPU))
        return make_engine(name, EngineSpec(model, images, make_rule({"name": "lazy"}), optimizer, 1, energy))

    assert type(choose("auto", "mlp")) is DirectAdam
    assert type(choose("autograd", "mlp")) is AutogradEngine
    assert type(choose("auto", "cnn")) is AutogradEngine
    with pytest.raises(UserError, match="engine=fast"):
        choose("fast", "cnn")


@pytest.mark.parametrize("optimizer, momentum", [("sgd", 0.0), ("sgd", 0.9), ("adam", 0.0), ("adamw", 0.0)])
def test_nothing_changes_while_no_sample_is_selected(optimizer, momentum):
    """Neither momentum nor weight decay moves a weight in a batch without a mistake."""
    pixels, targets = problem(64)
    images = Samples(pixels, targets, dtype=torch.float64)
    model = make_model(ModelConfig(width=40), (1, 8, 8), 10, 0).double()
    rule = make_rule({"name": "lazy"})
    energy = Energy(model, Clock(CPU))
    config = OptimizerConfig(name=optimizer, momentum=momentum, weight_decay=0.1, lr=0.01)
    engine = make_engine("auto", EngineSpec(model, images, rule, config, 8, energy))
    everything = torch.arange(64)
    engine.train(everything, [0.01] * 8)  # momentum builds up
    with torch.no_grad():
        images.targets.copy_(model(images.batch(everything)[0]).argmax(1))  # from now on all is right
    before, spent = [p.clone() for p in model.parameters()], float(energy.l1)
    outcome = engine.train(everything, [0.01] * 8)
    assert outcome.updates == 0 and len(outcome.trained) == 0
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    assert float(energy.l1) == spent > 0


@pytest.mark.parametrize("kind", [AutogradEngine, Direct, Deferred, LookAhead])
@pytest.mark.parametrize("reduction", ["batch", "selected"])
def test_lazy_is_backprop_when_all_are_wrong(kind, reduction):
    """Targets are set so that every sample is misclassified when it is scored."""
    pixels, _ = problem(40)

    def model_and_engine(rule):
        images = Samples(pixels, torch.zeros(40, dtype=torch.int64), dtype=torch.float64)
        model = make_model(ModelConfig(width=20), (1, 8, 8), 10, 0).double()
        energy = Energy(model, Clock(CPU))
        config = OptimizerConfig(lr=1e-3, reduction=reduction)
        return model, images, kind(EngineSpec(model, images, make_rule({"name": rule}), config, 4, energy))

    rules = ["lazy"] if kind is LookAhead else ["lazy", "backprop"]
    ends = []
    for rule in rules:
        model, images, engine = model_and_engine(rule)
        with torch.no_grad():
            images.targets.copy_(model(images.batch(torch.arange(40))[0]).argmin(1))
        outcome = engine.train(torch.arange(40), [1e-3] * 10)
        assert len(outcome.trained) == 40 and (outcome.logits.argmax(1) != images.targets).all()
        assert outcome.updates == 10
        ends.append([p.detach().clone() for p in model.parameters()])
    if kind is LookAhead:
        model, images, _ = model_and_engine("backprop")
        with torch.no_grad():
            images.targets.copy_(model(images.batch(torch.arange(40))[0]).argmin(1))
        energy = Energy(model, Clock(CPU))
        config = OptimizerConfig(lr=1e-3, reduction=reduction)
        spec = EngineSpec(model, images, make_rule({"name": "backprop"}), config, 4, energy)
        AutogradEngine(spec).train(torch.arange(40), [1e-3] * 10)
        ends.append(list(model.parameters()))
    for p, q in zip(*ends, strict=True):
        assert (p - q).abs().max() < 1e-12


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [Direct, Deferred, LookAhead])
def test_engines_on_a_gpu(kind):
    rule = RULES["lazy"] if kind is LookAhead else RULES["backprop"]
    on_gpu = train(kind, rule, device=torch.device("cuda"))
    on_cpu = train(AutogradEngine, rule)
    for p, q in zip(on_gpu[0].parameters(), on_cpu[0].parameters(), strict=True):
        assert (p.cpu() - q).abs().max() < 1e-10


def test_the_table_of_engines_lists_all_in_order_and_is_that_of_the_documentation():
    table = engine_table()
    names = [line.split("`")[1] for line in table.splitlines()[2:]]
    expected = [Packed, *RESTRICTED, *FAST, AutogradEngine]
    assert names == [kind.__name__ for kind in expected] and len(set(names)) == 9
    page = Path(__file__).resolve().parents[2] / "docs" / "design" / "engines.md"
    if page.exists():
        text = page.read_text()  # the table, or the mark in whose place the site is built with it
        assert table in text or "<!-- generated: engines -->" in text
