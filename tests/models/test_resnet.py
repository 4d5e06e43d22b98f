"""The ResNet for CIFAR: the paper's numbers of parameters, its shortcuts and its normalisation."""

from __future__ import annotations

import pytest
import torch
from conftest import only_run, rows
from torch import nn

from lazyexp.config.schema import ModelConfig
from lazyexp.models.builtin import make_model
from lazyexp.models.resnet import Block, group_norm


def made(depth=20, **more) -> nn.Module:
    return make_model(ModelConfig("resnet", depth=depth, init="kaiming", **{"width": 16, **more}), (3, 32, 32), 10, 0)


@pytest.mark.parametrize(
    "depth, parameters, paper", [(8, 75_290, 0.08), (20, 269_722, 0.27), (32, 464_154, 0.46), (56, 853_018, 0.85)]
)
def test_parameters_are_those_of_the_paper(depth, parameters, paper):
    """Table 6 of He et al. 2016, in millions; depth 8 is not in it."""
    for norm in ("batch", "group"):
        model = made(depth, norm=norm)
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert parameters / 1e6 == pytest.approx(paper, abs=0.005)
        layers = sum(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in model.modules())
        assert layers == depth
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == (norm == "batch") * (depth - 1)


def test_a_block_adds_its_input_to_its_convolutions():
    block = Block(2, 4, 2, group_norm, nn.ReLU)
    for weight in (block.conv1.weight, block.conv2.weight):
        nn.init.zeros_(weight)
    x = torch.rand(1, 2, 6, 6)
    y = block(x)
    assert torch.equal(y[:, :2], x[:, :, ::2, ::2]) and not y[:, 2:].any()


def test_groups_have_eight_channels_or_a_divisor():
    assert [group_norm(channels).num_groups for channels in (16, 32, 64, 12, 5)] == [2, 4, 8, 3, 5]


def test_channels_of_a_pixel_are_neighbours_in_memory():
    weight = made(8)[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert made(8)(torch.rand(2, 3, 9, 5)).shape == (2, 10)  # images of any size


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["model=resnet", "model.depth=18"], "model.depth=18: must be 8, 20, 32, 44, 56"),
        (["model.norm=group"], "model.norm=group: must be batch unless model=resnet"),
        (["model=torchvision", "model.norm=group"], "model.norm=group: must be unset here"),
    ],
)
def test_keys_that_do_not_fit_are_refused(call, arguments, message):
    answer = call(*arguments)
    assert answer.code == 2 and message in answer.err


@pytest.mark.slow
def test_bfloat16_ends_near_float32(call, tmp_path):
    options = ["model=resnet", "model.depth=8", "model.width=4", "epochs=3", "batch_size=32", "optimizer.lr=0.2"]
    accuracies = {}
    for precision in ("float32", "bfloat16"):
        answer = call(*options, "rule=backprop", f"precision={precision}", f"runs_dir={precision}")
        assert answer.code == 0, answer.err
        accuracies[precision] = float(rows(only_run(tmp_path / precision) / "summary.csv")[0]["test_accuracy"])
    assert accuracies["float32"] > 0.7
    assert accuracies["bfloat16"] == pytest.approx(accuracies["float32"], abs=0.05)
