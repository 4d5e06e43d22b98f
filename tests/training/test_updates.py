"""Energy from an optimizer's state equals the difference of the weights before and after its steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lazyexp.training import updates
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.optimizers import Stepper
from lazyexp.training.updates import KnownUpdates

KNOWN = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "dampened": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "fused adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.99), weight_decay=0.0),
}
COPIED = {
    "sgd with decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
    "nesterov with decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw with decay": lambda p: torch.optim.AdamW(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "maximize": lambda p: torch.optim.SGD(p, lr=0.1, maximize=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KNOWN | COPIED)
def test_energy_is_the_difference_of_the_weights(monkeypatch, name, dtype):
    monkeypatch.setattr(updates, "PIECE", 37)  # several pieces, the last one short
    rng = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 4)).to(dtype)
    model[2].bias.requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    optimizer = (KNOWN | COPIED)[name](model.parameters())
    energy = Energy(model, Clock(torch.device("cpu")))
    stepper = Stepper(optimizer, optimizer.param_groups[0]["lr"], energy)
    assert (stepper.known is not None) == (name in KNOWN)
    l0, l1 = 0, 0.0
    for step in range(6):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        x = torch.randn(5, 20, generator=rng, dtype=dtype)
        x[:, :4] = 0  # synapses that do not change
        optimizer.zero_grad()
        model(x).square().mean().backward()
        stepper.step(0.1 / (step + 1))
        changes = [p.detach() - q for p, q in zip(model.parameters(), before, strict=True)]
        l0 += sum(int(change.count_nonzero()) for change in changes)
        l1 += sum(float(change.abs().sum()) for change in changes)
    assert float(energy.l1) == pytest.approx(l1, rel=1e-5 if dtype == torch.float32 else 1e-12)
    assert float(energy.l0) == pytest.approx(l0, rel=2e-3 if dtype == torch.float32 else 0)


def test_an_update_too_small_to_change_a_weight_does_not_count():
    """The velocity of an input that is silent for long decays for ever."""
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = torch.tensor([1e-9, 1.0, 0.0])
    optimizer.step()
    assert KnownUpdates(optimizer).measure() == (1, pytest.approx(0.1))


def test_sparse_gradients_are_copied():
    model = nn.Embedding(6, 2, sparse=True)
    optimizer, energy = torch.optim.SGD(model.parameters(), lr=0.5), Energy(model, Clock(torch.device("cpu")))
    stepper = Stepper(optimizer, 0.5, energy)
    model(torch.tensor([1, 4])).sum().backward()
    stepper.step(0.5)
    assert float(energy.l0) == 4 and float(energy.l1) == pytest.approx(2.0)
