"""Learning-rate schedules and optimizers: equal to PyTorch's own; the end of a run by the clock."""

from __future__ import annotations

import pytest
import torch
from conftest import only_run, rows
from torch import nn
from torch.optim import lr_scheduler

from lazyexp.config.schema import OptimizerConfig
from lazyexp.training.optimizers import make_optimizer
from lazyexp.training.schedules import TrainingSchedule

EPOCHS, BATCHES = 12, 5


def schedule(kind: str, **more) -> TrainingSchedule:
    options = {"epochs": EPOCHS, "batch_size": 10, "eval_every": 1000, "lr": 0.3, "schedule": kind, "warmup": 0.0}
    fixed = {"seed": 0, "precision": "float32", "stop_at": None, "checkpoint_every": 60}
    return TrainingSchedule(**{**fixed, **options, **more})


@pytest.mark.parametrize(
    "kind, more, reference",
    [
        ("multistep", {"milestones": [3, 7, 7]}, lambda o: lr_scheduler.MultiStepLR(o, [3, 7, 7])),
        ("multistep", {"gamma": 0.2}, lambda o: lr_scheduler.MultiStepLR(o, [6, 9], 0.2)),
        ("exponential", {}, lambda o: lr_scheduler.ExponentialLR(o, 0.96)),
        ("exponential", {"gamma": 0.5}, lambda o: lr_scheduler.ExponentialLR(o, 0.5)),
    ],
)
def test_schedules_equal_those_of_pytorch(kind, more, reference):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    expected = reference(optimizer)
    mine = schedule(kind, **more)
    for epoch in range(EPOCHS):
        rates = mine.learning_rates(epoch, 0, 47, 47)
        assert rates == pytest.approx([expected.get_last_lr()[0]] * BATCHES)
        optimizer.step()
        expected.step()


def test_milestones_hold_after_a_warm_up():
    mine = schedule("multistep", milestones=[3], warmup=0.25)
    assert [mine.learning_rate(epoch, 0, 50) for epoch in (1, 3, 4)] == pytest.approx([0.12, 0.03, 0.03])


def test_nesterov_is_that_of_pytorch():
    weight = nn.Parameter(torch.ones(3))
    optimizer = make_optimizer(OptimizerConfig(lr=0.1, momentum=0.9, nesterov=True), [weight])
    velocity, expected = torch.zeros(3), torch.ones(3)
    for _ in range(4):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
        gradient = 2 * expected
        velocity = 0.9 * velocity + gradient
        expected = expected - 0.1 * (gradient + 0.9 * velocity)
    assert torch.allclose(weight.detach(), expected)


def test_the_clock_ends_the_schedule():
    now = 0.0
    mine = schedule("linear", max_seconds=10.0, seconds=lambda: now)
    assert mine.learning_rate(0, 0, 50) == pytest.approx(0.3) and mine.chunk(0) == 10 and not mine.out_of_time()
    now = 5.0
    assert mine.learning_rate(1, 0, 50) == pytest.approx(0.15)
    assert mine.learning_rate(9, 0, 50) == pytest.approx(0.075)  # the epochs are further
    assert mine.chunk(5000) == 100  # 1 % of the time at this speed
    now = 10.0
    assert mine.learning_rate(1, 0, 50) == 0 and mine.out_of_time()


@pytest.mark.slow
def test_a_run_ends_after_max_seconds(call, tmp_path):
    answer = call("max_seconds=0.3", "epochs=100000", "model.width=20", "rule=backprop", "batch_size=16")
    assert answer.code == 0, answer.err
    row = rows(only_run(tmp_path) / "summary.csv")[0]
    assert row["status"] == "finished" and 0.3 <= float(row["train_seconds"]) < 1
    assert 0 < float(row["learning_rate"]) < 0.002  # the schedule has nearly reached its end


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["optimizer.nesterov=true"], "optimizer.nesterov=True: must be false without optimizer.momentum"),
        (["optimizer.milestones=[2]"], "optimizer.milestones=[2]: must be null unless optimizer.schedule=multistep"),
        (["optimizer.gamma=0.5"], "optimizer.gamma=0.5: must be null unless"),
        (
            ["optimizer.schedule=multistep", "optimizer.milestones=[0]"],
            "optimizer.milestones=[0]: must be at least 1",
        ),
    ],
)
def test_keys_without_effect_are_refused(call, arguments, message):
    answer = call(*arguments)
    assert answer.code == 2 and message in answer.err
