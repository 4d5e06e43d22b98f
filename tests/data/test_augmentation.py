"""Random changes of images: equal to torchvision's on the same draws, and a function of seed, epoch and sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import toy
from torchvision.transforms.v2 import functional as reference

from lazyexp.config.schema import DatasetConfig
from lazyexp.data import Samples, load_data
from lazyexp.data.augmentation import Augmentation

N, SHAPE = 40, (3, 9, 7)


def images() -> torch.Tensor:
    return torch.randint(256, (N, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def made(kind: Augmentation, **more) -> Samples:
    samples = Samples(images(), torch.arange(N), augmentation=kind, **more)
    samples.start_epoch(3, 5)
    return samples


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_crop_and_flip_equal_those_of_torchvision(mode):
    samples = made(Augmentation(padding=2, reflect=mode == "reflect", flip=True))
    inputs = samples.batch(torch.arange(N))[0]
    draws = samples._draws
    for i, image in enumerate(images()):
        row, column = divmod(int(draws.corner[i]), SHAPE[2] + 4)
        expected = reference.crop(reference.pad(image, 2, padding_mode=mode), row, column, *SHAPE[1:])
        expected = reference.horizontal_flip(expected) if draws.flip[i] else expected
        assert torch.equal(inputs[i], expected.float())
    assert len(draws.corner.unique()) > 15 and 10 < int(draws.flip.sum()) < 30  # of 25; of 40


@pytest.mark.parametrize("size", [1, 4, 5])
def test_cutout_erases_a_square_after_scaling(size):
    samples = made(Augmentation(cutout=size), scale=0.5, offset=1.0)
    inputs = samples.batch(torch.arange(N))[0]
    for i, image in enumerate(images()):
        row, column = samples._draws.centre[:, i].tolist()
        top, left = max(row - size // 2, 0), max(column - size // 2, 0)  # DeVries & Taylor cut it off at the border
        height, width = row - size // 2 + size - top, column - size // 2 + size - left
        expected = reference.erase(image * 0.5 + 1, top, left, height, width, torch.zeros(1))
        assert torch.equal(inputs[i], expected)
    rows, columns = samples._draws.centre
    assert set(rows.tolist()) == set(range(9)) and set(columns.tolist()) == set(range(7))


def test_the_draw_depends_on_seed_epoch_and_sample_alone():
    samples = made(Augmentation(padding=2, flip=True, cutout=3))
    whole = samples.batch(torch.arange(N))[0]
    some = torch.tensor([31, 4, 17])
    assert torch.equal(samples.batch(some)[0], whole[some])
    for seed, epoch, equal in ((3, 6, False), (4, 5, False), (3, 5, True)):
        samples.start_epoch(seed, epoch)
        assert torch.equal(samples.batch(torch.arange(N))[0], whole) is equal
    assert torch.equal(samples.bytes(torch.arange(N))[0], made(Augmentation(2, flip=True)).bytes(torch.arange(N))[0])


def test_channels_are_scaled_by_themselves(tmp_path):
    x, y = images().numpy(), np.arange(N) % 4
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    config = DatasetConfig("folder", path=str(tmp_path / "d.npz"), scale="channel", test_size=4, augment=["flip"])
    data = load_data(config, "", torch.device("cpu"))
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    data.train.start_epoch(0, 0)
    batch, flipped = data.train.batch(torch.arange(N))[0], data.train._draws.flip
    expected = reference.normalize(torch.from_numpy(x).float(), mean.tolist(), std.tolist())
    assert torch.allclose(torch.where(flipped.view(-1, 1, 1, 1), batch.flip(3), batch), expected, atol=1e-5)
    assert torch.allclose(batch.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.bincount(data.test.targets).tolist() == [1] * 4  # of the test set, as many of every class
    assert not data.train.affine and not data.test.augmented


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["dataset.augment=[crop,shift]"],
            "dataset.augment=['crop', 'shift']: must be without shift or without crop",
        ),
        (["dataset.augment=crop", "dataset.padding=8"], "dataset.padding=8: must be smaller than the images"),
        (["dataset.augment=[rotate]"], "one of shift, crop, flip, cutout"),
        (["dataset.test_size=361"], "dataset.test_size=361: larger than the test set, 360 samples"),
    ],
)
def test_what_cannot_be_is_refused(call, arguments, message):
    answer = call("epochs=1", *arguments)
    assert answer.code == 2 and message in answer.err


@pytest.mark.slow
def test_packing_in_low_precision_needs_inputs_that_are_scaled_alike(call):
    packing = ["packing.block_size=64", "packing.precision=bfloat16"]
    answer = call("epochs=1", *packing, "dataset.augment=cutout", "dataset.cutout_size=2")
    assert answer.code == 2 and "packing.precision=bfloat16: must be float32" in answer.err
    x, y = toy(60, 4, (3, 6, 6))
    np.savez("d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    folder = ["dataset=folder", "dataset.path=d.npz", "dataset.scale=channel", "packing.block_size=64"]
    assert call(*folder, "epochs=1", "packing.precision=auto").code == 0
