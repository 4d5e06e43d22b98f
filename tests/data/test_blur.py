"""Gaussian blur of the images."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.data import load_data
from lazyexp.data.blur import blurred
from lazyexp.errors import UserError


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.3])
def test_the_blur_is_that_of_scipy(deviation):
    images = torch.rand(3, 2, 9, 11)
    expected = gaussian_filter(
        images.numpy(), (0, 0, deviation, deviation), mode="constant", radius=(0, 0, *2 * [-int(-3 * deviation // 1)])
    )
    torch.testing.assert_close(blurred(images, deviation), torch.from_numpy(expected), rtol=1e-5, atol=1e-6)
    grey = (255 * images).to(torch.uint8)
    assert blurred(grey, deviation).dtype == torch.uint8


def test_training_and_test_images_are_blurred_and_tables_are_refused():
    config = Config()
    config.dataset.train_size = 20
    cpu = torch.device("cpu")
    plain = load_data(check(config).dataset, "", cpu)
    config.dataset.blur = 1.0
    soft = load_data(check(config).dataset, "", cpu)
    for one, other in ((plain.train, soft.train), (plain.test, soft.test)):
        assert float(other.pixels.float().std()) < 0.8 * float(one.pixels.float().std())
    assert plain.sha256 == soft.sha256
    with pytest.raises(UserError, match="dataset.blur=1: must be 0 for samples of shape"):
        blurred(torch.rand(4, 7), 1.0)
