"""Networks with lazy modules, whose weights PyTorch draws in the first forward pass."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from lazyexp.models.checks import check_output, materialize


def network():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.Dropout(), nn.LazyBatchNorm1d(), nn.LazyLinear(3))


def generators():
    return torch.get_rng_state().tolist(), str(random.getstate()), str(np.random.get_state())


def checked(seed):
    model, inputs = network(), torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = generators()
    materialize(model, inputs, seed, "the model")
    check_output(model, inputs, 3, "the model")
    assert generators() == before
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_weights_follow_the_seed_and_the_callers_generators_are_left():
    torch.manual_seed(1)
    first = checked(0)
    torch.manual_seed(2)
    assert torch.equal(first, checked(0)) and not torch.equal(first, checked(1))


def test_a_model_that_draws_in_evaluation_leaves_the_callers_generators():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.rand(1) + random.random() + float(np.random.random())

    model, before = Noisy(4, 3), generators()
    materialize(model, torch.rand(2, 4, generator=torch.Generator().manual_seed(0)), 0, "the model")
    check_output(model, torch.zeros(2, 4), 3, "the model")
    assert generators() == before
