"""Principal components by singular value decomposition; scores, training and the saved network by brute force."""

from __future__ import annotations

import json

import pytest
import torch

import lazyexp
from lazyexp.config import registry
from lazyexp.config.schema import Config, ModelConfig, OptimizerConfig, PackingConfig
from lazyexp.config.validation import check
from lazyexp.data import Data, Samples
from lazyexp.data.components import ComponentSamples, principal_components
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.components import ComponentScorer
from lazyexp.training.fast.packed import Packed
from lazyexp.training.folding import folded, onto_components

CPU = torch.device("cpu")


def samples(n=400, side=6, rank=8, max_shift=0, dtype=torch.float64):
    """Images of few directions and some noise, in 3 classes."""
    rng = torch.Generator().manual_seed(0)
    factors, directions = torch.randn(n, rank, generator=rng), torch.randn(rank, side * side, generator=rng)
    pixels = factors @ directions + 0.1 * torch.randn(n, side * side, generator=rng) + 0.5
    targets = (factors[:, :3] + 0.3 * torch.randn(n, 3, generator=rng)).argmax(1)
    return Samples(pixels.view(n, 1, side, side).to(dtype), targets, 1.5, -0.2, max_shift, dtype)


def inputs_of(images):
    return images.batch(torch.arange(len(images)))[0].flatten(1)


def captured(centred, basis):
    return float((centred @ basis).square().sum())


@pytest.mark.parametrize("side, count", [(6, 5), (6, 36), (20, 8), (20, 12)])
def test_components_are_those_of_a_singular_value_decomposition(side, count):
    """Exact for few inputs; beyond 256 by subspace iteration, which finds nearly all of the variance."""
    images = samples(side=side)
    components = principal_components(images, count, "key")
    centred = inputs_of(images) - inputs_of(images).mean(0)
    wanted = torch.linalg.svd(centred, full_matrices=False)[2][:count].t()
    torch.testing.assert_close(components.mean, inputs_of(images).mean(0))
    torch.testing.assert_close(components.basis.t() @ components.basis, torch.eye(count, dtype=torch.float64))
    best, found = captured(centred, wanted), captured(centred, components.basis)
    assert best * (1 if side == 6 else 0.998) <= found + 1e-6 <= best + 2e-6
    spread = (centred @ components.basis).var(0)
    assert (spread.diff() <= 1e-9).all()  # in falling order
    again = principal_components(images, count, "key")
    assert torch.equal(components.basis, again.basis)  # a seed of their own


def test_projected_samples_are_the_coordinates_of_their_inputs():
    index = torch.tensor([7, 3, 250])
    for shift in (0, 2):
        images = samples(max_shift=shift)
        images.start_epoch(0, 1)
        components = principal_components(images, 9, "key")
        projected = ComponentSamples(images, components)
        projected.start_epoch(0, 2)
        assert projected.augmented == bool(shift) and len(projected) == 400
        wanted = (images.batch(index)[0].flatten(1) - components.mean) @ components.basis
        for values, targets in (projected.batch(index), projected.bytes(index)):
            torch.testing.assert_close(values, wanted)
            assert torch.equal(targets, images.targets[index])
    torch.testing.assert_close(ComponentSamples(samples(), components).part(3, 5)[0],
        (samples().part(3, 5)[0].flatten(1) - components.mean) @ components.basis)  # fmt: skip


def packed(components, batch_size=16, shift=0, precision="float32", dtype=torch.float64, **optimizer):
    images, model = (
        samples(max_shift=shift, dtype=dtype),
        make_model(ModelConfig(width=20), (1, 6, 6), 3, 0).to(dtype),
    )
    images.start_epoch(0, 0)
    rule = make_rule({"name": "confidence"})
    rule.start(RunInfo(len(images), batch_size, 1, 0, CPU))
    rule.epoch_indices(0)
    packing = PackingConfig(64, precision, components)
    spec = EngineSpec(
        model, images, rule, OptimizerConfig(**optimizer), batch_size, Energy(model, Clock(CPU)), packing=packing
    )
    return make_engine("auto", spec), model, images


CASES = {
    "followed by the deferred engine": {},
    "followed by the direct engine": {"batch_size": 40},
    "computed anew after a step with momentum": {"momentum": 0.9},
    "computed anew after a step of Adam": {"name": "adam"},
    "augmented": {"shift": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_projected_inputs_under_the_current_weights(case):
    options = CASES[case]
    engine, model, images = packed(8, **options)
    assert isinstance(engine, Packed) and isinstance(engine.scorer, ComponentScorer)
    assert engine.scorer.follows == case.startswith(("followed", "augmented"))
    size, updates, before = options.get("batch_size", 16), 0, model[1].weight.detach().clone()
    for index in torch.arange(400).split(200):
        outcome = engine.train(index, [0.02] * -(-len(index) // size))
        updates += outcome.updates
    assert updates > 5 and not torch.allclose(before, model[1].weight)
    components, index = engine.scorer.components, torch.arange(10, 330)
    x = images.batch(index)[0].flatten(1)
    close = components.mean + (x - components.mean) @ components.basis @ components.basis.t()
    with torch.no_grad():
        wanted = model(close.view(-1, 1, 6, 6))
    logits, targets = engine.scorer(index)
    torch.testing.assert_close(logits, wanted, rtol=1e-9, atol=1e-9)
    assert torch.equal(targets, images.targets[index])


def test_scores_on_all_components_select_what_the_network_selects():
    outcomes = [packed(count)[0].train(torch.arange(400), [0.05] * 25) for count in (36, None)]
    assert torch.equal(outcomes[0].trained, outcomes[1].trained) and len(outcomes[0].trained) > 50
    torch.testing.assert_close(outcomes[0].logits, outcomes[1].logits, rtol=1e-9, atol=1e-9)
    assert outcomes[0].forwards == outcomes[1].forwards


def test_rounded_scores_are_close():
    exact, rounded = (packed(8, precision=name, dtype=torch.float32)[0] for name in ("float32", "bfloat16"))
    logits, other = (engine.scorer(torch.arange(400))[0] for engine in (exact, rounded))
    assert (logits - other).abs().max() < 0.03 * logits.abs().max()


def test_the_folded_network_computes_what_the_trained_one_does():
    images, model = samples(), make_model(ModelConfig(width=20, depth=2), (1, 6, 6), 3, 0).double()
    initial, x = {name: value.clone() for name, value in model.state_dict().items()}, inputs_of(images)
    data, clock = Data(images, samples(60), None, torch.arange(400), 3, (1, 6, 6), "", None, {}), Clock(CPU)
    onto_components(data, model, 7, clock)
    assert clock.seconds > 0  # components and projection are paid for
    components = data.train.components
    assert model[1].weight.shape == (20, 7)
    close = components.mean + (x - components.mean) @ components.basis @ components.basis.t()
    network = make_model(ModelConfig(width=20, depth=2), (1, 6, 6), 3, 1).double()
    network.load_state_dict(initial)
    with torch.no_grad():  # it starts as the network of the projected inputs
        torch.testing.assert_close(model(data.train.pixels), network(close.view(-1, 1, 6, 6)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.load_state_dict(folded(model.state_dict(), components))
    with torch.no_grad():
        torch.testing.assert_close(network(x.view(-1, 1, 6, 6)), model(data.train.pixels))


@pytest.mark.parametrize("engine", ["auto", "autograd"])
def test_training_on_components_is_training_on_a_table_of_them(engine):
    """The engine sees k numbers per sample; weights, selected samples and energy are those of such a data set."""
    ends = []
    for by_hand in (False, True):
        images, model = samples(), make_model(ModelConfig(width=20), (1, 6, 6), 3, 0).double()
        data = Data(images, samples(60), None, torch.arange(400), 3, (1, 6, 6), "", None, {})
        onto_components(data, model, 7, Clock(CPU))
        train = data.train
        if by_hand:
            components = train.components
            table = (inputs_of(images) - components.mean) @ components.basis
            train = Samples(table, images.targets, dtype=torch.float64)
        rule = make_rule({"name": "lazy"})
        rule.start(RunInfo(400, 8, 1, 0, CPU))
        energy = Energy(model, Clock(CPU))
        chosen = make_engine(engine, EngineSpec(model, train, rule, OptimizerConfig(), 8, energy))
        outcome = chosen.train(torch.arange(400), [0.05] * 50)
        ends.append((outcome.trained, [p.detach() for p in model.parameters()], float(energy.l1), int(energy.l0)))
    (trained, weights, l1, l0), (others, expected, other_l1, other_l0) = ends
    assert torch.equal(trained, others) and len(trained) > 20
    for one, other in zip(weights, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert l1 == pytest.approx(other_l1) and l0 == other_l0
    assert l0 <= 50 * sum(weight.numel() for weight in weights)  # 7 weights per hidden unit, not 36


def settings(tmp_path, rule="lazy", **changes):
    config = Config(epochs=2, batch_size=16, device="cpu", runs_dir=str(tmp_path), rule={"name": rule})
    config.model.width, config.dataset.train_size, config.dataset.components = 16, 400, 12
    for key, value in changes.items():
        group, _, name = key.rpartition("__")
        setattr(getattr(config, group) if group else config, name, value)
    return check(config)


@pytest.mark.parametrize("rule", registry.RULES)
def test_every_rule_trains_on_components(tmp_path, rule):
    folder = run(settings(tmp_path, rule)).folder
    network = lazyexp.open(folder).model()
    assert network[1].weight.shape == (16, 64)  # the saved network takes pixels
    summary = lazyexp.open(folder).summary
    images = lazyexp_test_images()
    with torch.no_grad():
        right = (network(images[0]).argmax(1) == images[1]).double().mean()
    assert float(right) == pytest.approx(summary["test_accuracy"], abs=1e-9)
    assert summary["energy_l0_min"] <= 16 * 12 + 16 + 16 * 10 + 10


def lazyexp_test_images():
    from lazyexp.config.schema import DatasetConfig
    from lazyexp.data import load_data

    return load_data(DatasetConfig(train_size=400), "", CPU).test.part(0, 360)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dataset__components": 65}, "dataset.components=65: must be at most 64"),
        ({"model__name": "cnn"}, "dataset.components=12: must be null for model=cnn"),
        ({"packing__components": 5}, "packing.components=5: must be null without packing"),
        (
            {"packing__components": 5, "packing__block_size": 64, "packing__precision": "int8"},
            "packing.precision=int8: must be float32, bfloat16 or auto with packing.components",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(settings(tmp_path, **changes))


def test_tokens_have_no_components():
    tokens = Samples(torch.randint(5, (20, 8)), torch.arange(20) % 2)
    with pytest.raises(UserError, match="not for tokens"):
        principal_components(tokens, 2, "dataset.components")


def test_more_components_than_inputs_are_all_inputs():
    engine = packed(1000)[0]
    engine.train(torch.arange(64), [0.05] * 4)
    assert engine.scorer.components.basis.shape == (36, 36)


def test_other_models_are_scored_on_all_inputs(tmp_path, capsys):
    """So that a preset with components fits every model; run.json records what was used."""
    changes = {"model__name": "cnn", "dataset__components": None, "packing__components": 5, "packing__block_size": 64}
    result = run(settings(tmp_path, **changes, model__depth=1, model__width=2))
    assert "note: packing.components=5: is for model=mlp on a CPU" in capsys.readouterr().err
    recorded = json.loads((result.folder / "run.json").read_text())["settings"]
    assert recorded["packing"]["components"] is None
