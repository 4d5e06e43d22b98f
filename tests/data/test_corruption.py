"""Label noise, imbalance, and the metrics that show them: all expected values are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import rows, toy
from torch import nn

from lazyexp.config.schema import Config, DatasetConfig
from lazyexp.config.validation import check
from lazyexp.data import Samples, load_data
from lazyexp.data.corrupt import add_label_noise, make_imbalanced
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.training.evaluation import evaluate

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Settings of a data set of 1,000 balanced training and 200 test images in 10 classes."""
    (x_train, y_train), (x_test, y_test) = toy(1000, 10, (6, 6)), toy(200, 10, (6, 6), seed=1)
    path = tmp_path / "toy.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return DatasetConfig(name="folder", path=str(path), val_size=100)


def load(folder, **options):
    return load_data(DatasetConfig(**{**vars(folder), **options}), "", CPU)


def test_label_noise_has_its_share_and_is_uniform():
    targets = torch.arange(1000) % 10
    index = torch.arange(0, 1000, 2)
    labels, noisy = add_label_noise(targets, index, 0.4, 10)
    assert noisy.sum() == 200 and torch.equal(labels != targets[index], noisy)
    errors = ((labels - targets[index]) % 10)[noisy].bincount(minlength=10)
    assert errors[0] == 0 and (errors[1:] > 8).all()  # 22 each expected
    few, less = add_label_noise(targets, index, 0.1, 10)
    assert less.sum() == 50 and (noisy | ~less).all() and torch.equal(few[less], labels[less])
    assert add_label_noise(targets, index, 0.0, 10)[1].sum() == 0


def test_class_sizes_fall_exponentially():
    targets = torch.arange(1000) % 10
    kept = make_imbalanced(targets, torch.arange(1000), 0.01, 10)
    # 100 * 0.01^(c / 9)
    assert targets[kept].bincount().tolist() == [100, 60, 36, 22, 13, 8, 5, 3, 2, 1]
    more = make_imbalanced(targets, torch.arange(1000), 0.1, 10)
    assert set(kept.tolist()) <= set(more.tolist()) and torch.equal(kept, kept.sort().values)
    assert torch.equal(make_imbalanced(targets, torch.arange(1000), 1.0, 10), torch.arange(1000))


def test_only_the_training_set_is_changed(folder):
    clean, noisy = load(folder), load(folder, label_noise=0.2)
    assert torch.equal(clean.test.targets, noisy.test.targets) and torch.equal(clean.val.targets, noisy.val.targets)
    assert torch.equal(clean.train.targets != noisy.train.targets, noisy.noisy) and noisy.noisy.sum() == 180
    assert torch.equal(clean.index, noisy.index) and clean.sha256 == noisy.sha256 and not clean.noisy.any()
    imbalanced = load(folder, imbalance=0.1)
    assert torch.equal(imbalanced.test.targets, clean.test.targets) and len(imbalanced.val) == 100
    sizes = imbalanced.train.targets.bincount().tolist()
    assert sizes == [round(90 * 0.1 ** (c / 9)) for c in range(10)]


@pytest.mark.slow
def test_lazy_selects_wrong_labels_more_often(tmp_path, folder):
    config = Config(epochs=10, batch_size=10, device="cpu", runs_dir=str(tmp_path), dataset=folder)
    config.model.width, config.dataset.label_noise, config.optimizer.lr = 30, 0.2, 0.1
    with np.load(run(check(config)).folder / "learned.npz") as counts:
        learned, noisy = counts["learned"], counts["noisy"]
    assert learned[noisy].mean() > 2 * learned[~noisy].mean()


def test_a_run_records_which_labels_are_wrong(tmp_path, folder):
    config = Config(epochs=1, eval_every=450, batch_size=10, device="cpu", runs_dir=str(tmp_path), dataset=folder)
    config.model.width, config.dataset.label_noise = 8, 0.3
    result = run(check(config))
    with np.load(result.folder / "learned.npz") as learned:
        assert learned["noisy"].sum() == 270 and len(learned["noisy"]) == 900
        assert learned["learned"][learned["noisy"]].sum() > 0
    last = rows(result.folder / "metrics.csv")[-1]
    assert {"worst_class_accuracy", "calibration_error"} <= set(last)
    assert 0 <= float(last["worst_class_accuracy"]) <= float(last["test_accuracy"])
    config.dataset.label_noise = 0.2
    assert run(check(config)).folder != result.folder


class Fixed(nn.Module):
    """Logits that are the images."""

    def forward(self, images):
        return images.flatten(1)


def test_quality_by_hand():
    # Largest softmaxes: 0.8 right, 0.8 wrong (both in the bin up to 12/15), 0.6 right, 0.6 right (up to 9/15).
    probabilities = torch.tensor([[0.8, 0.2, 0.0], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.4, 0.6, 0.0]])
    logits = probabilities.clamp_min(1e-30).log().view(4, 1, 1, 3)
    quality = evaluate(Fixed(), Samples(logits, torch.tensor([0, 1, 0, 1])))
    assert quality.accuracy == 0.75
    assert quality.worst_class_accuracy == 0.5  # class 0: 2 of 2, class 1: 1 of 2; class 2 does not occur
    # |1 - 1.6| and |2 - 1.2| of 4 samples.
    assert quality.calibration_error == pytest.approx((0.6 + 0.8) / 4, abs=1e-6)


def test_bins_and_batches_of_an_evaluation():
    """Against a plain computation, over more samples than are forwarded at once."""
    torch.manual_seed(0)
    logits, targets = torch.randn(9000, 1, 1, 5) * 2, torch.randint(5, (9000,))
    quality = evaluate(Fixed(), Samples(logits, targets))
    confidence, guess = logits.flatten(1).softmax(1).max(1)
    right = (guess == targets).double()
    error = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            error += (
                inside.double().mean().item() * abs(right[inside].mean() - confidence[inside].double().mean()).item()
            )
    assert quality.calibration_error == pytest.approx(error, abs=1e-4)
    assert quality.accuracy == pytest.approx(right.mean().item())
    assert quality.worst_class_accuracy == pytest.approx(min(right[targets == c].mean().item() for c in range(5)))


def test_a_diverged_network_can_be_evaluated():
    quality = evaluate(Fixed(), Samples(torch.full((4, 1, 1, 3), float("nan")), torch.tensor([0, 1, 2, 0])))
    assert 0 <= quality.accuracy <= 1 and 0 <= quality.calibration_error <= 1


@pytest.mark.parametrize("options", [{"label_noise": 1.5}, {"label_noise": -0.1}, {"imbalance": 0.0}])
def test_shares_out_of_bounds_are_refused(options):
    with pytest.raises(UserError, match=f"dataset.{next(iter(options))}"):
        check(Config(dataset=DatasetConfig(**options)))
