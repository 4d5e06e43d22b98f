"""The published protocols for CIFAR-10: their settings, and a few steps of each on images that are made here."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import toy

from lazyexp.config.compose import compose_settings, hydra_session, register
from lazyexp.config.schema import Settings
from lazyexp.config.sweeps import expand
from lazyexp.experiment import run
from lazyexp.settings import checked

METHODS = {
    "cifar10": "lazy",
    "cifar10_infobatch": "infobatch",
    "cifar10_ies": "early_stopping",
    "cifar10_pdd": "progressive",
    "cifar10_kakurenbo": "kakurenbo",
    "cifar10_deepcore": "lazy",
}


def composed(name: str) -> list[Settings]:
    """The settings of a sweep's runs with seed 0."""
    register()
    with hydra_session():
        return [checked(compose_settings(job)) for job in expand([f"sweep={name}", "seed=0"])]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, epochs, batch_size, optimizer, loss",
    [
        ("cifar10_infobatch", 200, 128, ("sgd", 0.05, 0.9, False, 5e-4, "onecycle", None), 0.1),
        ("cifar10_ies", 200, 64, ("sgd", 0.1, 0.9, False, 5e-4, "exponential", 0.96), 0.0),
        ("cifar10_pdd", 30, 32, ("adamw", 3e-4, 0.0, False, 0.01, "constant", None), 0.0),
        ("cifar10_kakurenbo", 300, 128, ("sgd", 0.05, 0.9, True, 5e-4, "cosine", None), 0.0),
        ("cifar10_deepcore", 200, 256, ("sgd", 0.1, 0.9, True, 5e-4, "cosine", None), 0.0),
    ],
)
def test_a_protocol_has_the_settings_of_its_authors(name, epochs, batch_size, optimizer, loss):
    for settings in composed(name):
        chosen = settings.optimizer
        found = (chosen.name, chosen.lr, chosen.momentum, chosen.nesterov, chosen.weight_decay, chosen.schedule)
        assert (*found, chosen.gamma) == optimizer
        assert (settings.epochs, settings.batch_size, settings.loss.label_smoothing) == (epochs, batch_size, loss)
        assert set(settings.dataset.augment) == ({"crop", "flip"} if name != "cifar10_pdd" else set())
        assert settings.dataset.padding_mode == ("reflect" if name == "cifar10_infobatch" else "zeros")
        assert (settings.dataset.name, settings.dataset.scale, settings.dataset.padding) == ("cifar10", "channel", 4)
        assert settings.model.arch == "resnet18" and settings.model.options == {"small": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name == "cifar10" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_a_few_steps_of_each_protocol(tmp_path, name):
    x, y = toy(48, 4, (3, 8, 8))
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:16], y_test=y[:16])
    (settings, *_) = [s for s in composed(name) if s.rule["name"] == METHODS[name] and not s.dataset.subset]
    data = dataclasses.replace(settings.dataset, name="folder", path=str(tmp_path / "d.npz"))
    few = {"epochs": 2, "batch_size": 16, "eval_every": 48, "device": "cpu", "runs_dir": str(tmp_path / "runs")}
    result = run(dataclasses.replace(settings, dataset=data, **few))
    assert result.status == "finished" and result.summary["updates"] > 0
    assert result.summary["samples_seen"] <= 96
