"""M0 of every engine, counted by hand: which updates count that are too small for single precision."""

from __future__ import annotations

import pytest
import torch

from lazyexp.config.schema import ModelConfig, OptimizerConfig
from lazyexp.data import Samples
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.adam import DirectAdam
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.lookahead import LookAhead

CPU = torch.device("cpu")
MOMENTUM, ADAM = {"momentum": 0.9}, {"name": "adam"}


def energy_of_two_steps(kind, dtype, **optimizer) -> tuple[int, int]:
    """(M0, weights that differ after a step, summed) of a 2-2-2 network, one weight of which is 2^26.

    Sample 0, inputs (1, 0), activates hidden unit 0, sample 1, inputs (0, 1), unit 1. Sample 0 is wrong.
    A step of one sample changes 6 parameters: a weight and the bias of its unit, two weights behind the unit, and two
    output biases. The first of them of sample 0 is the weight of 2^26, whose update of about 0.1 is lost in float32.
    """
    model = make_model(ModelConfig(width=2, depth=1), (1, 1, 2), 2, 0).to(dtype)
    values = ([[2.0**26, 0.0], [-1.0, 1.0]], [-1.0, 0.0], [[1.0, 1.0], [-1.0, -1.0]], [0.0, 0.0])
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value, dtype=dtype))
    inputs = torch.eye(2, dtype=dtype).view(2, 1, 1, 2)
    samples = Samples(inputs, torch.tensor([1, 0]), 1.0, 0.0, 0, dtype)
    rule = make_rule({"name": "backprop"})
    rule.start(RunInfo(2, 1, 1, 0, CPU))
    energy = Energy(model, Clock(CPU))
    engine = kind(EngineSpec(model, samples, rule, OptimizerConfig(lr=0.1, **optimizer), 1, energy))
    differ = 0
    for sample in (0, 1):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        engine.train(torch.tensor([sample]), [0.1])
        differ += sum(int((p.detach() != q).sum()) for p, q in zip(model.parameters(), before, strict=True))
    return int(energy.l0), differ


@pytest.mark.parametrize("kind", [Direct, Deferred, LookAhead, AutogradEngine])
def test_plain_sgd_counts_nonzero_updates_by_hand_and_changed_weights_by_autograd(kind):
    assert energy_of_two_steps(kind, torch.float64) == (6 + 6, 6 + 6)
    counted = 5 + 6 if kind is AutogradEngine else 6 + 6
    assert energy_of_two_steps(kind, torch.float32) == (counted, 5 + 6)


@pytest.mark.parametrize(
    "kind, optimizer", [(Direct, MOMENTUM), (AutogradEngine, MOMENTUM), (DirectAdam, ADAM), (AutogradEngine, ADAM)]
)
def test_momentum_and_adam_count_changed_weights(kind, optimizer):
    """The second step changes all parameters of both steps: 6 and 4 more, the output biases being shared."""
    assert energy_of_two_steps(kind, torch.float64, **optimizer) == (6 + 10, 6 + 10)
    assert energy_of_two_steps(kind, torch.float32, **optimizer) == (5 + 9, 5 + 9)
