"""The network and the data of a finished run, from its folder; subsets by the name of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from lazyexp.config.schema import Config, DatasetConfig
from lazyexp.config.validation import check
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.runs import matching
from lazyexp.runs.rebuild import rebuild
from lazyexp.training.evaluation import accuracy


@pytest.fixture
def settings(tmp_path, toy_npz):
    """Settings of a small run on an .npz, in a folder whose name has brackets."""
    data = DatasetConfig(name="folder", path=str(toy_npz), label_noise=0.1)
    config = Config(
        epochs=1, eval_every=400, batch_size=10, device="cpu", runs_dir=str(tmp_path / "runs [1]"), dataset=data
    )
    config.model.width = 8
    return config


def with_subset(config, subset, rule="backprop"):
    return check(replace(config, dataset=replace(config.dataset, subset=subset), rule={"name": rule}))


@pytest.mark.parametrize("subset", [None, "matched", "random"])
def test_a_rebuilt_run_has_its_weights_and_its_samples(settings, subset):
    lazy = run(check(settings))
    result = run(with_subset(settings, subset)) if subset else lazy
    if subset:  # the other run is not needed
        (lazy.folder / "run.json").unlink()
        (lazy.folder / "learned.npz").unlink()
    rebuilt = rebuild(result.folder)
    assert accuracy(rebuilt.model, rebuilt.data.test) == pytest.approx(float(result.summary["test_accuracy"]))
    with np.load(result.folder / "learned.npz") as learned:
        assert rebuilt.data.index.tolist() == learned["index"].tolist()
        assert rebuilt.data.noisy.tolist() == learned["noisy"].tolist()
    assert len(rebuilt.data.train) == int(result.summary["train_size"])
    assert not rebuilt.model.training


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: (folder / "run.json").write_text("{}"), "has no settings"),
        (lambda folder: (folder / "learned.npz").unlink(), "learned.npz cannot be read: the run has not ended"),
        (lambda folder: (folder / "model.pt").write_bytes(b"x"), "model.pt does not fit"),
    ],
)
def test_a_damaged_run_is_refused(settings, damage, message):
    folder = run(check(settings)).folder
    damage(folder)
    with pytest.raises(UserError, match=message):
        rebuild(folder)


def test_changed_data_are_refused(settings, toy_npz):
    folder = run(check(settings)).folder
    with np.load(toy_npz) as archive:
        arrays = dict(archive)
    arrays["x_train"] = 255 - arrays["x_train"]
    np.savez(toy_npz, **arrays)
    with pytest.raises(UserError, match="its data set has changed since the run"):
        rebuild(folder)


def test_published_data_are_not_downloaded_for_a_report(settings, monkeypatch):
    monkeypatch.delenv("LAZYEXP_DATA", raising=False)
    folder = run(check(settings)).folder
    facts = json.loads((folder / "run.json").read_text())
    facts["settings"]["dataset"] |= {"name": "mnist", "path": None}
    facts["settings"]["data_dir"] = "/nonexistent"
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="set LAZYEXP_DATA to their folder"):
        rebuild(folder, download=False)


def test_a_run_of_another_version_does_not_prevent_a_matched_subset(settings):
    """Keys that are unknown here are another run's; a rule with unknown options is not the plain one."""
    folder = run(check(settings)).folder
    for name, rule in (("a", {"name": "lazy", "block": 64}), ("b", {"name": "unheard_of"}), ("c", {"name": 3})):
        other = folder.with_name(f"folder-lazy-{name}")
        other.mkdir()
        facts = json.loads((folder / "run.json").read_text())
        facts["settings"] |= {"rule": rule, "engine_2": "general"}
        (other / "run.json").write_text(json.dumps(facts))
    found = matching.resolve(asdict(with_subset(settings, "matched")))
    assert found == matching.Subset(str(folder / "learned.npz"), None)
    assert matching.resolve(asdict(with_subset(settings, "random"))).random


def test_the_cost_of_a_subset_is_that_of_the_run_that_chose_it(settings):
    lazy = run(check(settings))
    config = asdict(with_subset(settings, "matched"))
    cost = matching.cost(config, matching.resolve(config))
    assert cost["run_id"] == lazy.folder.name and cost["rule"] == "lazy"
    assert matching.cost(config, matching.Subset(None, None)) == {}
    with pytest.raises(UserError, match="no finished run of rule=lazy with these settings"):
        matching.resolve({**config, "seed": 77})


def test_weights_are_loaded_safely(settings):
    folder = run(check(settings)).folder
    torch.save({"weight": object()}, folder / "model.pt")
    with pytest.raises(UserError, match="model.pt does not fit"):
        rebuild(folder)
