"""The budget of a GPU: launches and waits, counted and not timed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from cuda_emulator import pretend

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))
from gpu_budget import Budget, count, work

from lazyexp.training import make_engine


def counted(rule: str, batch_size: int, record_property) -> Budget:
    budget = count(rule, batch_size, 4096)
    record_property("figure", f"emulated GPU, {rule}, batch {batch_size}: {budget}")
    return budget


@pytest.mark.slow
def test_backprop_at_batch_1_does_not_wait(record_property):
    budget = counted("backprop", 1, record_property)
    assert budget.presented == budget.trained == 4096
    assert budget.waits == 0
    assert budget.launches <= 2 * budget.presented


@pytest.mark.slow
def test_lazy_at_batch_1(record_property):
    """With 1 % selected samples: at most one launch per 4 samples and one wait per selected sample."""
    budget = counted("lazy", 1, record_property)
    assert (budget.presented, budget.trained) == (4096, 41)
    assert budget.waits <= budget.trained
    assert budget.launches <= budget.presented / 4


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["backprop", "lazy", "confidence", "spaced", "fast_lazy", "infobatch"])
def test_at_most_one_wait_in_16_batches_of_64(rule, record_property):
    budget = counted(rule, 64, record_property)
    assert budget.waits <= budget.presented / 64 / 16
    assert budget.launches <= budget.presented / 4


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 16, 64])
@pytest.mark.parametrize("optimizer", [{}, {"momentum": 0.9, "weight_decay": 0.1}])
def test_nothing_changes_on_a_gpu_while_no_sample_is_selected(batch_size, optimizer):
    """Neither momentum nor weight decay changes a bit of a weight."""
    with pretend() as gpu:
        spec, _ = work(gpu, {"name": "lazy"}, batch_size, 256, **optimizer)
        engine, everything = make_engine("auto", spec), torch.arange(256).to("cuda")
        engine.train(everything, [0.01] * (256 // batch_size))  # a few are wrong: momentum builds up
        assert any(value.any() for value in engine.velocity) == bool(optimizer)
        spec.samples.targets.copy_(spec.model(spec.samples.batch(everything)[0]).argmax(1))
        before = [p.detach().cpu().clone() for p in [*spec.model.parameters(), *engine.velocity]]
        spent = float(spec.energy.l1)
        outcome = engine.train(everything, [0.01] * (256 // batch_size))
        assert int(outcome.updates) == 0 and not outcome.selected.any()
        for old, new in zip(before, [*spec.model.parameters(), *engine.velocity], strict=True):
            assert torch.equal(old, new.detach().cpu())
        assert float(spec.energy.l1) == spent > 0


@pytest.mark.slow
def test_a_capture_within_a_chunk_keeps_its_results():
    """When the share of updates changes within a chunk, the warm-up passes of another window must not be counted."""
    with pretend() as gpu:
        ends = []
        for made in (False, True):  # whether the graph for windows of one exists beforehand
            spec, _ = work(gpu, {"name": "lazy"}, 1, 512)
            spec.samples.targets[256:] += 1  # wrong from the middle on
            spec.samples.targets %= 10
            engine, index = make_engine("auto", spec), torch.arange(512).to("cuda")
            engine.train(index[:8], [0.0] * 8)
            if not made:
                engine.graphs.clear()
            engine.share = 0.01
            outcome = engine.train(index, [1e-9] * 512)
            assert {window for window, _ in engine.graphs} > {1}
            ends.append((outcome.logits.cpu(), outcome.selected.cpu(), int(outcome.updates)))
    assert torch.equal(ends[0][1], ends[1][1]) and ends[0][2] == ends[1][2] == int(ends[0][1].sum()) > 256
    torch.testing.assert_close(ends[0][0], ends[1][0])
    assert ends[0][1][0]  # the first sample was selected
