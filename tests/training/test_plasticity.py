"""Restricted plasticity: which synapses change and what is counted, computed by hand or step by step."""

from __future__ import annotations

import math

import pytest
import test_resume
import torch
from test_resume import assert_resumes_exactly, settings

from lazyexp.config.schema import Config, ModelConfig, OptimizerConfig, PackingConfig, PlasticityConfig
from lazyexp.config.validation import check
from lazyexp.data import Samples
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy

CPU = torch.device("cpu")


def spec(plasticity, samples=8, batch_size=4, rule="backprop", engine="auto", block_size=0, **options):
    """A spec in float64 on random images, with its rule started, and its engine."""
    model = make_model(ModelConfig(width=6), (1, 3, 3), 3, 0).double()
    torch.manual_seed(1)
    images = Samples(torch.rand(samples, 1, 3, 3), torch.arange(samples) % 3, dtype=torch.float64)
    made = make_rule({"name": rule, **options})
    made.start(RunInfo(samples, batch_size, 1, 0, CPU))
    made.epoch_indices(0)
    energy = Energy(model, Clock(CPU))
    work = EngineSpec(
        model, images, made, OptimizerConfig(lr=0.1), batch_size, energy, plasticity, PackingConfig(block_size)
    )
    return work, make_engine(engine, work)


def gradients(work, batch):
    """The gradient of the batch's mean loss, for all parameters, weights first."""
    inputs, targets = work.samples.batch(batch)
    loss = torch.nn.functional.cross_entropy(work.model(inputs), targets)
    found = torch.autograd.grad(loss, list(work.model.parameters()))
    return list(found)


def test_largest_changes_the_share_with_the_largest_updates():
    work, engine = spec(PlasticityConfig(name="largest", share=0.25))
    batch = torch.arange(4)
    before = [parameter.detach().clone() for parameter in work.model.parameters()]
    expected = [-0.1 * gradient for gradient in gradients(work, batch)]
    engine.train(batch, [0.1])
    l0 = l1 = 0
    for parameter, old, change in zip(work.model.parameters(), before, expected, strict=True):
        number = max(round(0.25 * change.numel()), 1)
        smallest = change.abs().flatten().sort(descending=True).values[number - 1]
        kept = torch.where(change.abs() >= smallest, change, 0.0)
        assert (kept != 0).sum() <= number
        torch.testing.assert_close(parameter.detach() - old, kept)
        l0, l1 = l0 + int(kept.count_nonzero()), l1 + float(kept.abs().sum())
    assert int(work.energy.l0) == l0 and float(work.energy.l1) == pytest.approx(l1)


def test_with_all_synapses_it_is_plain_sgd():
    (plain, one), (largest, other) = spec(PlasticityConfig()), spec(PlasticityConfig(name="largest", share=1.0))
    (cached, third) = spec(PlasticityConfig(name="cached"))
    for engine in (one, other, third):
        engine.train(torch.arange(8), [0.1, 0.05])
    for a, b, c in zip(*(work.model.parameters() for work in (plain, largest, cached)), strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)
    assert float(plain.energy.l1) == pytest.approx(float(largest.energy.l1))


def test_without_a_threshold_the_cache_costs_the_direct_path():
    work, engine = spec(PlasticityConfig(name="cached", cost=0.01))
    stores = []
    for batch in torch.arange(8).split(4):
        engine.train(batch, [0.1])
        stores.append(work.energy.minimum()[1])
    m0, m1 = work.energy.minimum()
    assert float(work.energy.l1) == pytest.approx(m1) and int(work.energy.l0) == m0
    assert float(work.energy.maintenance) == pytest.approx(0.01 * 4 * sum(stores))


def test_a_synapse_is_made_persistent_when_its_store_is_full():
    """Each synapse separately, in Python floats."""
    threshold, decay, cost = 0.004, 0.01, 0.5
    work, engine = spec(PlasticityConfig(name="cached", threshold=threshold, decay=decay, cost=cost))
    weights = torch.cat([parameter.detach().flatten() for parameter in work.model.parameters()]).tolist()
    store, l0, l1, maintenance = [0.0] * len(weights), 0, 0.0, 0.0
    for batch in torch.arange(8).split(4):
        changes = [-0.1 * float(v) for gradient in gradients(work, batch) for v in gradient.flatten()]
        for i, change in enumerate(changes):
            weights[i], store[i] = weights[i] + change, store[i] + change
            if abs(store[i]) > threshold:
                l0, l1, store[i] = l0 + 1, l1 + abs(store[i]), 0.0
        maintenance += cost * 4 * sum(abs(value) for value in store)
        for i, value in enumerate(store):
            store[i] = value * (1 - decay) ** 4
            weights[i] -= value - store[i]
        engine.train(batch, [0.1])
        mine = torch.cat([parameter.detach().flatten() for parameter in work.model.parameters()])
        torch.testing.assert_close(mine, torch.tensor(weights, dtype=torch.float64))
    pending = [abs(value) for value in store if value]
    assert l0 > 0 and pending
    assert int(work.energy.l0) == l0 + len(pending)
    assert float(work.energy.l1) == pytest.approx(l1 + math.fsum(pending))
    assert float(work.energy.maintenance) == pytest.approx(maintenance)


def test_the_store_costs_while_no_sample_is_selected():
    work, engine = spec(PlasticityConfig(name="cached", cost=1.0), samples=8, rule="confidence", threshold=1.0)
    engine.train(torch.arange(4), [0.1])
    stored = float(engine.stored)
    work.rule.threshold = 0.0
    work.rule.select = lambda batch: torch.zeros_like(batch.wrong)
    outcome = engine.train(torch.arange(4, 8), [0.1])
    assert outcome.updates == 0 and len(outcome.trained) == 0 and outcome.forwards == 4
    assert float(work.energy.maintenance) == pytest.approx(8 * stored)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["largest", "cached"])
@pytest.mark.parametrize("rule", ["lazy", "infobatch"])
def test_restricted_runs_resume(monkeypatch, tmp_path, name, rule):
    def restricted(*arguments, **options):
        config = Config(**{k: v for k, v in vars(settings(*arguments, **options)).items() if k != "_frozen"})
        options = {"threshold": 0.01, "decay": 1e-4} if name == "cached" else {}
        config.plasticity = PlasticityConfig(name=name, **options)
        return check(config)

    monkeypatch.setattr(test_resume, "settings", restricted)
    assert_resumes_exactly(monkeypatch, tmp_path, rule=rule)


def test_packing_with_the_largest_updates():
    work, engine = spec(PlasticityConfig(name="largest", share=0.5), rule="lazy", block_size=8)
    outcome = engine.train(torch.arange(8), [0.1, 0.1])
    assert outcome.forwards >= 8 and int(work.energy.l0) <= outcome.updates * 46


@pytest.mark.parametrize(
    "options", [{"momentum": 0.9}, {"name": "adam"}, {"weight_decay": 0.1}, {"engine": "autograd"}, {"model": "cnn"}]
)
def test_restricted_plasticity_is_for_plain_sgd_on_the_mlp(options):
    config = Config(engine=options.pop("engine", "auto"), plasticity=PlasticityConfig(name="largest"))
    config.model.name = options.pop("model", "mlp")
    config.optimizer = OptimizerConfig(**options)
    with pytest.raises(UserError, match="plasticity.name=largest"):
        check(config)


def test_the_store_refuses_packing(tmp_path):
    config = Config(runs_dir=str(tmp_path), device="cpu", rule={"name": "lazy"})
    config.packing.block_size = 64
    config.plasticity = PlasticityConfig(name="cached")
    with pytest.raises(UserError, match="pack"):
        run(check(config))
