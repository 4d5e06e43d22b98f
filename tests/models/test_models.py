from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lazyexp.config.schema import ModelConfig
from lazyexp.models.builtin import initialise, make_model


def test_width_and_depth():
    model = make_model(ModelConfig(width=30, depth=3, activation="gelu"), (3, 4, 5), 7, 0)
    sizes = [tuple(layer.weight.shape) for layer in model if isinstance(layer, nn.Linear)]
    assert sizes == [(30, 60), (30, 30), (30, 30), (7, 30)]
    assert sum(isinstance(layer, nn.GELU) for layer in model) == 3
    assert model(torch.zeros(2, 3, 4, 5)).shape == (2, 7)


@pytest.mark.parametrize("init, gain", [("lecun_normal", 1.0), ("kaiming", 2.0)])
def test_normal_inits(init, gain):
    model = make_model(ModelConfig(width=500, init=init), (1, 28, 28), 10, 0)
    for layer in (model[1], model[3]):
        weight = layer.weight.detach()
        assert float(weight.std()) == pytest.approx(math.sqrt(gain / weight.shape[1]), rel=0.05)
        assert abs(float(weight.mean())) < 0.05 * float(weight.std()) + 1e-3
        assert not layer.bias.any()


def test_uniform_init_is_pytorchs_own():
    model = make_model(ModelConfig(width=500), (1, 28, 28), 10, 0)
    for layer in (model[1], model[3]):
        bound = 1 / math.sqrt(layer.weight.shape[1])
        fresh = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
        for mine, theirs in ((layer.weight, fresh.weight), (layer.bias, fresh.bias)):
            assert float(mine.detach().abs().max()) <= bound
            assert float(theirs.detach().abs().max()) <= bound
        mine, theirs = layer.weight.detach().std(), fresh.weight.detach().std()
        assert float(mine) == pytest.approx(float(theirs), rel=0.05)


def test_seeds_decide_and_nothing_else():
    def weights(seed):
        return make_model(ModelConfig(width=20), (1, 4, 4), 3, seed)[1].weight.detach()

    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))


@pytest.mark.parametrize("init", ["uniform", "lecun_normal", "kaiming"])
def test_layers_without_biases_are_initialised(init):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, bias=False), torch.nn.Linear(4, 3, bias=False))
    before = [parameter.clone() for parameter in model.parameters()]
    initialise(model, init, 0)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
