"""Energies against a brute-force sum, counters against a hand count, clocks against a simulated time."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn

from lazyexp.config.schema import OptimizerConfig
from lazyexp.data import Samples
from lazyexp.rules import ScoredBatch, make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.counters import Counters, Outcome
from lazyexp.training.energy import Energy
from lazyexp.training.scores import Scores

CPU = torch.device("cpu")


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("rule", ["backprop", "lazy"])
@pytest.mark.parametrize(
    "optimizer, batch_size",
    [
        (OptimizerConfig(lr=0.05), 1),
        (OptimizerConfig(lr=0.05), 8),
        (OptimizerConfig(lr=0.5), 64),
        (OptimizerConfig(lr=0.05, momentum=0.9), 8),
        (OptimizerConfig(lr=0.05, momentum=0.9, weight_decay=0.01), 64),
        (OptimizerConfig(name="adam", lr=0.001), 8),
    ],
)
def test_energy_is_the_brute_force_sum(engine, rule, optimizer, batch_size):
    """One batch at a time, so that every change of every weight is visible from outside."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(256, 1, 3, 4, dtype=torch.float64, generator=rng)
    pixels[pixels < 0.3] = 0  # so that M0 is not just the number of weights
    images = Samples(pixels, torch.randint(0, 5, (256,), generator=rng), dtype=torch.float64)
    layers = [nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5)]
    model = nn.Sequential(*layers).double()
    for p in model.parameters():
        nn.init.uniform_(p, -0.5, 0.5, generator=rng)
    energy = Energy(model, Clock(CPU))
    made = make_engine(engine, EngineSpec(model, images, make_rule({"name": rule}), optimizer, batch_size, energy))
    initial = [p.detach().clone() for p in model.parameters()]
    l0, l1, updates = 0, 0.0, 0
    for index in torch.arange(256).repeat(2).split(batch_size):
        before = [p.detach().clone() for p in model.parameters()]
        updates += made.train(index, [optimizer.lr]).updates
        for p, q in zip(before, model.parameters(), strict=True):
            l0 += int((p != q).sum())
            l1 += float((p - q).detach().abs().sum())
    assert updates > 2
    assert float(energy.l1) == pytest.approx(l1, rel=1e-9)
    assert float(energy.l0) == pytest.approx(l0, rel=1e-3)
    direct = [(p - q).detach() for p, q in zip(initial, model.parameters(), strict=True)]
    m0, m1 = energy.minimum()
    assert m0 == sum(int((change != 0).sum()) for change in direct)
    assert m1 == pytest.approx(sum(float(change.abs().sum()) for change in direct), rel=1e-12)


def test_energy_can_be_switched_off():
    model = nn.Linear(3, 2)
    energy = Energy(model, Clock(CPU), enabled=False)
    energy.before_step()
    energy.after_step()
    energy.add_step(torch.ones(2, 2), torch.ones(2, 3))
    energy.add_rank_one_steps(torch.ones(2, 2), torch.ones(2, 3))
    assert float(energy.l1) == float(energy.l0) == 0 and not energy.initial


def test_one_update_by_hand():
    """dW = d x^T with d = (1, -2), x = (3, 0, 4): |dW| sums to 21, four entries; the bias adds 3 and two."""
    model = nn.Linear(3, 2)
    energy = Energy(model, Clock(CPU))
    energy.add_rank_one_steps(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.0, 4.0]]))
    assert (float(energy.l1), float(energy.l0)) == (24.0, 6.0)


def test_counters_by_hand():
    counters = Counters(5, CPU)
    yes, no = True, False

    def add(index, wrong, selected, updates):
        """Logits 0 and 0 give the loss ln 2 and, by the first argmax, class 0."""
        logits = torch.zeros(len(index), 2)
        batch = ScoredBatch(torch.tensor(index), logits, torch.tensor(wrong).long())
        mask = torch.tensor(selected)
        counters.add(batch, Outcome(logits, batch.index, 2 * len(index), updates, mask, mask))
        return counters.settle()

    assert add([4, 0, 2], [yes, no, yes], [yes, no, no], 1) == (1, 1, True)
    assert add([4, 1], [yes, no], [yes, yes], 2) == (1, 2, True)
    tally = counters.tally
    assert (tally.samples_seen, tally.forward_samples) == (5, 10)
    assert (tally.backward_samples, tally.updates) == (3, 3)
    assert counters.presented.tolist() == [1, 1, 1, 0, 2]
    assert counters.misclassified.tolist() == [0, 0, 1, 0, 2]
    assert counters.learned.tolist() == [0, 1, 0, 0, 2]
    assert counters.take_interval() == (pytest.approx(math.log(2)), 0.4)
    assert counters.tally.count == 0
    add([3], [yes], [no], 0)  # an interval of a single sample
    assert counters.take_interval() == (pytest.approx(math.log(2)), 0.0)


def test_counters_notice_divergence():
    logits = torch.tensor([[1.0, 0.0], [float("nan"), 0.0]])
    batch = ScoredBatch(torch.arange(2), logits, torch.zeros(2, dtype=torch.int64))
    counters = Counters(2, CPU)
    counters.add(batch, Outcome(logits, batch.index, 2, 2, batch.index >= 0))
    assert counters.settle()[2] is False


def test_a_clock_does_not_count_what_is_off(monkeypatch):
    now = iter([10.0, 12.0, 15.0, 20.0])  # in, off, on again, out
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = Clock(CPU)
    with clock, clock.off():
        pass
    assert clock.seconds == 7.0


def test_scores_of_samples_by_hand():
    """Sample 0 is correct, wrong, correct, wrong; sample 1 wrong, then correct; sample 2 is presented once."""
    scores = Scores(3, torch.device("cpu"))
    right, wrong = [4.0, 0.0], [0.0, 1.0]
    for first, second in ((right, wrong), (wrong, right), (right, right), (wrong, right)):
        scores.add(ScoredBatch(torch.tensor([1, 0]), torch.tensor([second, first]), torch.tensor([0, 0])))
    scores.add(ScoredBatch(torch.tensor([2]), torch.tensor([[0.0, 0.0]]), torch.tensor([1])))
    assert scores.forgotten.tolist() == [2, 0, 0]
    # Softmax of the target is 0.2689, 0.9820 and 0.5; the error is the same in both classes.
    assert scores.el2n.tolist() == pytest.approx([0.7311 * 2**0.5, 0.0180 * 2**0.5, 0.5 * 2**0.5], abs=1e-4)


def test_the_direct_path_of_a_resumed_run_starts_where_the_run_did():
    """Even if the same seed would give other initial weights later."""
    first, later = (nn.Sequential(nn.Linear(2, 1)) for _ in range(2))
    for model, value in ((first, 1.0), (later, 7.0)):
        for parameter in model.parameters():
            nn.init.constant_(parameter, value)
    energy, resumed = Energy(first, Clock(CPU)), Energy(later, Clock(CPU))
    with torch.no_grad():
        first[0].weight[0, 0] = 4.0
    later.load_state_dict(first.state_dict())
    resumed.restore(energy.state())
    assert resumed.minimum() == energy.minimum() == (1, 3.0)
