"""Scoring with split weights: pixels exact, weights to 16 or 24 bits, samples near a boundary in full precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cuda_emulator import pretend

from lazyexp.config.schema import ModelConfig, OptimizerConfig, PackingConfig
from lazyexp.data import Samples
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.rules import make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.bf16_split import AGAIN, SplitScorer, split


def spec(device="cpu", name="mlp", dtype=torch.uint8, rule="lazy"):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (640, 1, 6, 6), generator=rng).to(dtype).to(device)
    images = Samples(pixels, (torch.arange(640) % 3).to(device), 0.0127, -0.42)
    model = make_model(ModelConfig(name=name, width=40), (1, 6, 6), 3, 0).to(device)
    made = make_rule({"name": rule})
    return EngineSpec(model, images, made, OptimizerConfig(), 16, Energy(model, Clock(torch.device(device)), False))


@pytest.mark.parametrize("parts, bits", [(1, 8), (2, 16), (3, 24)])
def test_parts_of_8_bits(parts, bits):
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    rest = weight.double() - sum(part.double() for part in split(weight, parts))
    assert (rest.abs() <= 2.0**-bits * weight.abs().double()).all()
    assert rest.any() or parts == 3


def test_every_pixel_is_exact_in_bfloat16():
    assert torch.equal(torch.arange(256).to(torch.bfloat16).long(), torch.arange(256))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_close_to_the_network_and_the_same_decisions(device):
    with pretend() as gpu:
        work = spec(device)
        index = torch.arange(640).flip(0).to(device)
        inputs, wanted = work.samples.batch(index)
        with torch.no_grad():
            exact = work.model(inputs)
        one, two = SplitScorer(work, parts=1), SplitScorer(work)
        gpu.reset()
        (rough, _), (logits, targets) = one(index), two(index)
        assert not gpu.waits
        assert torch.equal(targets.cpu(), wanted.cpu())
        errors = [(found - exact).abs().cpu() for found in (rough, logits)]
        assert errors[0].max() > 20 * errors[1].max()  # the second part counts
        assert errors[1].max() < 3e-5
        assert torch.equal(logits.argmax(1).cpu(), exact.argmax(1).cpu())


@pytest.mark.parametrize("rule", ["lazy", "confidence"])
def test_samples_near_a_boundary_are_scored_again(rule):
    """With one part, whose error is far larger than rounding, for all other samples."""
    work = spec(rule=rule)
    scorer = SplitScorer(work, parts=1)
    scorer.threshold *= 0.5  # some samples of this unsure network are near it
    index = torch.arange(640)
    logits, targets = scorer(index)
    with torch.no_grad():
        exact = work.model(work.samples.batch(index)[0])
    again = (logits - exact).abs().amax(1) < 2e-6
    assert 640 // AGAIN <= again.sum() < 640 // AGAIN + 40
    distance = scorer._distance(exact, targets)
    assert again[distance.topk(10, largest=False).indices].all()


@pytest.mark.parametrize("options", [{"name": "cnn"}, {"dtype": torch.float32}])
def test_where_it_does_not_fit(options):
    with pytest.raises(UserError, match="packing.precision=bfloat16"):
        SplitScorer(spec(**options))


def test_samples_that_are_scored_again_count_as_forwarded_again():
    """Ten blocks of 64: four samples of each block twice, and the selected samples once more."""
    work = replace(spec(), packing=PackingConfig(block_size=64))
    engine = make_engine("auto", work)
    engine.scorer = SplitScorer(work)
    outcome = engine.train(torch.arange(640), [0.0] * 40)
    assert outcome.forwards == 640 + 10 * 4 + len(outcome.trained)
    assert 0 < len(outcome.trained) < 640
