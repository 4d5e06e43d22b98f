"""The identity of a run, across versions."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pandas as pd
import pytest
from conftest import only_run

import lazyexp
from lazyexp.config.run_id import run_id
from lazyexp.config.schema import Config, ModelConfig
from lazyexp.config.validation import check
from lazyexp.runs.columns import MEASURED


def name(settings):
    return run_id(settings, {}, "cpu", "data")


def with_model(model):
    settings = check(Config())
    object.__setattr__(settings, "model", model)  # read-only, but this is a later version's
    return settings


@dataclass
class LaterModel(ModelConfig):
    """With a key that this version lacks."""

    novelty: int = 3


def test_a_new_key_at_its_default_leaves_finished_runs_valid():
    assert name(with_model(LaterModel())) == name(check(Config()))
    assert name(with_model(LaterModel(novelty=4))) != name(check(Config()))


def test_names_do_not_change_from_version_to_version():
    """If this fails, all finished runs are repeated: increase run_id.SCHEMA only if that is right."""
    assert name(check(Config())) == "digits-lazy-w1000-b1-lr0.01-s0-28987fd54c"
    other = Config(seed=3, batch_size=64, epochs=2)
    other.model.width, other.optimizer.momentum = 300, 0.9
    assert name(check(other)) == "digits-lazy-w300-b64-lr0.01-s3-6ef6c53ce2"


@pytest.mark.slow
def test_a_run_of_the_first_version_is_read_and_compared(call, tmp_path):
    """It lacks later columns and settings; the report assumes their defaults."""
    small = ["dataset.train_size=200", "epochs=1", "batch_size=20", "eval_every=100", "model.width=8"]
    assert call(*small, "rule=backprop").code == 0
    folder = only_run(tmp_path / "runs")
    for file in ("metrics.csv", "summary.csv"):
        table = pd.read_csv(folder / file)
        known = [column for column in table if not column.startswith(("plasticity", "scoring", "dataset.imbalance"))]
        later = [column.name for column in MEASURED if column.later]
        if file == "metrics.csv":
            table = table[table["samples_seen"] > 0]  # no row before training
        table[known].drop(columns=later).to_csv(folder / file, index=False)
    facts = json.loads((folder / "run.json").read_text())
    for group, keys in {"optimizer": ["warmup", "reduction", "_target_", "options"], "model": ["_target_", "arch"],
                        "dataset": ["label_noise", "imbalance", "_target_", "options"]}.items():  # fmt: skip
        for key in keys:
            facts["settings"][group].pop(key, None)
    for key in ("plasticity", "tracker", "rule_label", "precision", "packing"):
        facts["settings"].pop(key)
    facts["versions"]["lazyexp"] = "0.1.0"
    (folder / "run.json").write_text(json.dumps(facts))
    old = lazyexp.read(tmp_path / "runs")
    assert list(old["samples_seen"]) == [100, 200] and old["status"].unique() == ["finished"]
    assert call(*small, "rule=lazy").code == 0
    page = lazyexp.report(tmp_path / "runs", out=tmp_path / "report")
    table = pd.read_csv(page.parent / "runs.csv")
    assert sorted(table["rule"]) == ["backprop", "lazy"] and table["test_accuracy"].notna().all()
