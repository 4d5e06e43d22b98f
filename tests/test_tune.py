"""Searches under equal trials: what is chosen, what is recorded, what survives a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest

optuna = pytest.importorskip("optuna")

from lazyexp.compose import register  # noqa: E402
from lazyexp.errors import UserError  # noqa: E402
from lazyexp.tune.cli import attempt  # noqa: E402
from lazyexp.tune.space import Space, words  # noqa: E402
from lazyexp.tune.study import Search, choose, front, objectives  # noqa: E402

SMALL = ["dataset.val_size=100", "dataset.train_size=200", "model.width=8", "energy=false", "device=cpu"]
SPACE = """
all:
  - {key: epochs, low: 1, high: 3}
  - {key: optimizer, choices: [sgd, adam]}
  - {key: optimizer.lr, low: 0.01, high: 0.1, log: true, when: {optimizer: sgd}}
  - {key: optimizer.lr, low: 0.001, high: 0.002, when: {optimizer: adam}}
rules:
  confidence:
    - {key: rule.threshold, low: 0.5, high: 0.6}
start:
  - {epochs: 2, optimizer: adam, optimizer.lr: 0.0015}
"""


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    return str(tmp_path / "space.yaml")


def trials(*points):
    rows = [(n, "complete", status, accuracy, seconds) for n, (accuracy, seconds, status) in enumerate(points)]
    return pd.DataFrame(rows, columns=["trial", "state", "status", "val_accuracy", "train_seconds"])


def test_the_front_is_what_nothing_beats():
    table = trials(
        (0.90, 2.0, "finished"),
        (0.95, 3.0, "finished"),
        (0.94, 4.0, "finished"),  # slower and worse than 1
        (0.95, 5.0, "finished"),  # as good as 1, slower
        (0.99, 1.0, "diverged"),
        (0.97, 9.0, "finished"),
    )
    assert front(table)["trial"].tolist() == [0, 1, 5]
    assert choose(table, (0.0, 0.02, 0.03))["trial"].tolist() == [5, 1]
    assert choose(table, (0.0, 0.07))["trial"].tolist() == [5, 0]
    assert not len(choose(table.iloc[4:5], (0.0,)))


def test_a_diverged_trial_has_learned_nothing():
    assert objectives({"status": "diverged", "train_seconds": 3.0, "val_accuracy": None}) == (0.0, 3.0)
    assert objectives({"status": "finished", "train_seconds": 3.0, "val_accuracy": 0.7}) == (0.7, 3.0)


def test_all_rules_are_asked_the_same_and_their_own(space):
    common, own = Space(space, "lazy"), Space(space, "confidence")
    assert common.names() == ["epochs", "optimizer", "optimizer.lr"]
    assert own.names() == [*common.names(), "rule.threshold"]
    assert own.points() == [{"epochs": 2, "optimizer": "adam", "optimizer.lr (optimizer=adam)": 0.0015}]
    drawn = optuna.trial.FixedTrial({"epochs": 3, "optimizer": "sgd", "optimizer.lr (optimizer=sgd)": 0.03})
    assert words(common.suggest(drawn)) == ["epochs=3", "optimizer=sgd", "optimizer.lr=0.03"]


@pytest.mark.parametrize("text", ["all: [{key: epochs}]", "all: [{low: 1, high: 2}]", "nothing: 1", "{", "all: 3"])
def test_a_space_that_is_none(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError, match="--space"):
        Space(str(tmp_path / "space.yaml"), "lazy")


def test_the_preset_is_made_of_keys_that_exist():
    register()
    for rule in ("backprop", "lazy", "confidence", "spaced", "infobatch", "random"):
        found = Space("fair", rule)
        assert len(found.points()) == 3
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["maximize", "minimize"])
        for _ in range(4):
            overrides = words(found.suggest(study.ask()))
            _, error = attempt([f"rule={rule}", *overrides, "dataset.train_size=1", "runs_dir=/nowhere"], "")
            assert "batch_size" in error  # composed and checked; refused only for its single sample


def test_failed_and_diverged_trials_are_recorded(tmp_path, space):
    search = Search(tmp_path / "search", [], Space(space, "lazy"), 0)
    endings = iter(["diverged", "", "finished"])

    def run(overrides):
        status = next(endings)
        if not status:
            return None, "batch_size=9: larger than the training set"
        summary = {"status": status, "val_accuracy": 0.5, "train_seconds": 1.5}
        return SimpleNamespace(status=status, summary=summary, folder=tmp_path / "some-run"), ""

    for _ in range(3):
        search.next_trial(run)
    table = pd.read_csv(tmp_path / "search" / "trials.csv")
    assert table["state"].tolist() == ["complete", "fail", "complete"]
    assert table["status"].tolist() == ["diverged", "batch_size=9: larger than the training set", "finished"]
    assert table["val_accuracy"].fillna(-1).tolist() == [0.0, -1, 0.5]
    assert pd.read_csv(tmp_path / "search" / "front.csv")["trial"].tolist() == [2]
    assert len(Search(tmp_path / "search", [], Space(space, "lazy"), 0).counted()) == 3
    with pytest.raises(UserError, match="other overrides, ranges or seed"):
        Search(tmp_path / "search", ["epochs=3"], Space(space, "lazy"), 0)


def test_a_trial_that_was_cut_off_is_done_first_with_its_values(tmp_path, space):
    search = Search(tmp_path / "search", [], Space(space, "lazy"), 0)

    def cut_off(overrides):
        raise KeyboardInterrupt

    for _ in range(2):  # cut off twice, and still one trial
        with pytest.raises(KeyboardInterrupt):
            search.next_trial(cut_off)
        search = Search(tmp_path / "search", [], Space(space, "lazy"), 0)
        assert search.counted() == []
    summary = {"status": "finished", "val_accuracy": 0.5, "train_seconds": 1.5}
    report = SimpleNamespace(status="finished", summary=summary, folder=tmp_path)
    row = search.next_trial(lambda overrides: (report, ""))
    assert row["overrides"] == "epochs=2 optimizer=adam optimizer.lr=0.0015"
    assert len(search.counted()) == 1


@pytest.mark.slow
def test_a_killed_search_goes_on_and_has_as_many_trials(tmp_path, space):
    command = [sys.executable, "-m", "lazyexp.tune.cli", "rule=lazy", *SMALL, "--space", space, "--trials", "8"]
    command += ["--folder", str(tmp_path / "search")]
    for pause in (4.0, 5.0):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "search" / "trials.csv")
    assert len(table) == 8 and set(table["state"]) == {"complete"}
    assert all((tmp_path / "search" / "runs" / run / "summary.csv").exists() for run in table["run_id"])
    finals = [sys.executable, "-m", "lazyexp.tune.cli", "--finals", str(tmp_path / "search"), "--seeds", "2"]
    done = subprocess.run(
        [*finals, "--folder", str(tmp_path / "finals")], capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    chosen = pd.read_csv(tmp_path / "finals" / "chosen.csv")
    assert len(list((tmp_path / "finals" / "runs").glob("digits-*/summary.csv"))) == 2 * len(chosen)
