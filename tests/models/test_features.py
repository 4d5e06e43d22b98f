"""A network on the features of a frozen one: of a finished run, or of torchvision's weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lazyexp.config.schema import Config, DatasetConfig
from lazyexp.config.validation import check
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.runs.rebuild import load_features, rebuild
from lazyexp.training.evaluation import accuracy


def settings(tmp_path, **model):
    config = Config(epochs=5, eval_every=2000, batch_size=10, device="cpu", runs_dir=str(tmp_path / "runs"))
    config.dataset.train_size, config.rule, config.optimizer.lr = 400, {"name": "backprop"}, 0.1
    config.model.width = 16
    for key, value in model.items():
        setattr(config.model, key, value)
    return check(config)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [0, 1])
def test_a_head_on_the_features_of_a_run(tmp_path, depth):
    base = run(settings(tmp_path, depth=2))
    weights = torch.load(base.folder / "model.pt")
    head = run(settings(tmp_path, features=str(base.folder), width=8, depth=depth))
    assert all(torch.equal(value, torch.load(base.folder / "model.pt")[key]) for key, value in weights.items())
    shapes = {tuple(value.shape) for value in torch.load(head.folder / "model.pt").values()}
    assert shapes == ({(10, 16), (10,)} if depth == 0 else {(8, 16), (8,), (10, 8), (10,)})
    assert head.summary["test_accuracy"] > 0.3
    whole = rebuild(head.folder)  # from pixels to classes
    assert whole.data.shape == (1, 8, 8)
    assert accuracy(whole.model, whole.data.test) == pytest.approx(head.summary["test_accuracy"], abs=0.004)
    # The features are the last hidden layer.
    inputs = whole.data.test.part(0, 5)[0]
    expected = torch.relu(inputs.flatten(1) @ weights["1.weight"].t() + weights["1.bias"])
    expected = torch.relu(expected @ weights["3.weight"].t() + weights["3.bias"])
    found = load_features(str(base.folder)).extract(whole.data.test.pixels[:5].view(5, 1, 8, 8))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_features_are_part_of_the_identity_of_a_run_and_their_folder_is_not(tmp_path):
    base = run(settings(tmp_path))
    moved = tmp_path / "moved"
    base.folder.rename(moved)
    one = run(settings(tmp_path, features=str(moved), width=8))
    moved.rename(base.folder)
    again = run(settings(tmp_path, features=str(base.folder), width=8))
    assert again.repeated and again.folder == one.folder
    other = run(replace(settings(tmp_path, width=17)))
    assert run(settings(tmp_path, features=str(other.folder), width=8)).folder != one.folder


@pytest.mark.slow
def test_features_of_a_torchvision_file(tmp_path):
    """Weights as torchvision names its files; images of 3 channels."""
    from torchvision import models

    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    torch.save(models.get_model("resnet18", weights=None, num_classes=1000).state_dict(), tmp_path / "resnet18-1.pth")
    torch.save(models.get_model("squeezenet1_1", weights=None).state_dict(), path)
    rng = np.random.default_rng(0)
    images, targets = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "rgb.npz", x_train=images[:30], y_train=targets[:30], x_test=images[30:], y_test=targets[30:])
    config = settings(tmp_path, features=str(tmp_path / "resnet18-1.pth"), width=8)
    data = DatasetConfig(name="folder", path=str(tmp_path / "rgb.npz"))
    result = run(check(replace(config, dataset=data)))
    assert tuple(torch.load(result.folder / "model.pt")["1.weight"].shape) == (8, 512)
    with pytest.raises(UserError, match="no last nn.Linear"):
        run(check(replace(config, dataset=data, model=replace(config.model, features=str(path)))))
    with pytest.raises(UserError, match="3 channels"):
        run(config)


def test_bad_features_end_in_one_line(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"x")
    (tmp_path / "resnet18-x.pth").write_bytes(b"x")
    for source, message in (
        (tmp_path / "nothing", "neither the folder of a run nor a file"),
        (tmp_path / "weights.pth", "does not begin with a network"),
        (tmp_path / "resnet18-x.pth", "not the weights of resnet18"),
    ):
        with pytest.raises(UserError, match=message) as error:
            run(settings(tmp_path, features=str(source)))
        assert "\n" not in str(error.value)
    config = settings(tmp_path, features=str(tmp_path))
    with pytest.raises(UserError, match="dataset.augment.*computed once"):
        check(replace(config, dataset=replace(config.dataset, augment="shift")))


def test_a_network_of_depth_0_is_one_linear_layer():
    model = make_model(replace(Config().model, depth=0), (1, 4, 4), 3, 0)
    assert [tuple(parameter.shape) for parameter in model.parameters()] == [(3, 16), (3,)]
