"""What makes the engines fast, counted and not timed: calls into PyTorch, and waits for results."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lazyexp.config.schema import ModelConfig, OptimizerConfig
from lazyexp.data import Data, Samples
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.runs.columns import MEASURED
from lazyexp.training import EngineSpec, Trainer, TrainingSchedule, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.lookahead import LookAhead

CPU = torch.device("cpu")
# Calls that start no kernel, and calls that make the host wait for a GPU: for a number, a list, or a length.
VIEWS = (
    "t",
    "transpose",
    "slice",
    "select",
    "view",
    "_unsafe_view",
    "alias",
    "detach",
    "squeeze",
    "unsqueeze",
    "expand",
)
WAITS = ("_local_scalar_dense", "nonzero", "masked_select")


class Calls(TorchDispatchMode):
    """Counts the calls into PyTorch, each about one launch on a GPU, and those that wait for a result."""

    def __init__(self):
        super().__init__()
        self.all = self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        self.all += name not in VIEWS
        to_host = name in ("_to_copy", "copy_") and (kwargs or {}).get("device") == CPU
        self.waits += name in WAITS or to_host
        return function(*args, **(kwargs or {}))


def spec(rule, n, batch_size=1):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(n, 1, 8, 8, dtype=torch.float64, generator=rng)
    targets = (pixels.flatten(1) @ torch.randn(64, 10, dtype=torch.float64, generator=rng)).argmax(1)
    images = Samples(pixels, targets, 2.0, -1.0, 0, torch.float64)
    model = make_model(ModelConfig(width=40), (1, 8, 8), 10, 0).double()
    rule = make_rule(rule)
    rule.start(RunInfo(n, batch_size, 2, 0, CPU))
    rule.epoch_indices(0)
    return EngineSpec(model, images, rule, OptimizerConfig(lr=0.05), batch_size, Energy(model, Clock(CPU)))


def test_backprop_waits_for_nothing():
    """A thousand updates at batch 1 without a wait, so that a block can be a CUDA graph."""
    engine = Deferred(spec({"name": "backprop"}, 1024))
    with Calls() as calls:
        outcome = engine.train(torch.arange(1024), [0.01] * 1024)
    assert outcome.updates == 1024 and calls.waits == 0


def test_look_ahead_waits_once_per_scored_window(record_property):
    """With 1 of 100 samples selected, far fewer calls and waits than samples."""
    work = spec({"name": "lazy"}, 2048)
    with torch.no_grad():
        work.samples.targets.copy_(work.model(work.samples.batch(torch.arange(2048))[0]).argmax(1))
        work.samples.targets[::100] += 1
        work.samples.targets %= 10
    engine = LookAhead(work)
    engine.share = 0.01
    with Calls() as calls:
        outcome = engine.train(torch.arange(2048), [1e-6] * 2048)
    selected = len(outcome.trained)
    assert selected == 21
    scored = 2 * selected + 2048 / engine.block + 2048 / engine.window()
    # A scored window waits for the number of selected samples and for their positions; an update waits for nothing.
    assert calls.waits <= 2 * scored
    assert calls.all < 2048  # fewer than samples, though a backprop step alone takes a dozen
    record_property("figure", f"look-ahead, 2,048 samples, 21 selected: {calls.all} calls, {calls.waits} waits")


class Rows:
    """A callback that keeps the rows of a run."""

    def __init__(self):
        self.rows = []

    def evaluated(self, context):
        self.rows.append({column.name: column.measure(context) for column in MEASURED})

    def checkpoint(self, state): ...
    def progress(self, samples, correct, selected): ...
    def stop(self):
        return False


SAME = ("epoch", "samples_seen", "backward_samples", "updates", "updates_possible", "train_accuracy", "test_accuracy",
        "energy_l0_min", "distinct_learned", "learning_rate")  # fmt: skip
CLOSE = ("train_loss", "energy_l1", "energy_l1_min")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["lazy", "backprop", "confidence"])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_whole_runs_of_both_engines_have_the_same_rows_and_counts(rule, batch_size):
    """In float64, with evaluations inside blocks: all numbers of the rows and of learned.npz."""

    def run(name):
        work = spec({"name": rule}, 1200, batch_size)
        samples = work.samples
        data = Data(samples, samples, None, torch.arange(1200), 10, samples.shape, "", None, {})
        callback = Rows()
        schedule = TrainingSchedule(0, 2, batch_size, 352, 0.05, "linear", 0.0, "float32", None, math.inf)
        trainer = Trainer(schedule, data, work.model, work.rule, make_engine(name, work), work.energy, callback)
        assert trainer.run() == "finished"
        return callback.rows, trainer.counters

    (plain, counts), (fast, fast_counts) = run("autograd"), run("fast")
    assert len(plain) == len(fast) >= 6
    for row, other in zip(plain, fast, strict=True):
        assert {name: row[name] for name in SAME} == {name: other[name] for name in SAME}
        names = [name for name in CLOSE if row[name] is not None]  # before training there is no loss
        assert [row[name] for name in names] == pytest.approx([other[name] for name in names], rel=1e-9)
        assert all(other[name] is None for name in CLOSE if name not in names)
        assert row["energy_l0"] == pytest.approx(other["energy_l0"], rel=1e-3)
        assert other["forward_samples"] >= row["forward_samples"]
    for name in ("presented", "misclassified", "learned"):
        assert torch.equal(getattr(counts, name), getattr(fast_counts, name))
