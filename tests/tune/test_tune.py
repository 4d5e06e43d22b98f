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

from lazyexp.config.compose import register  # noqa: E402
from lazyexp.errors import UserError  # noqa: E402
from lazyexp.tune import cli as tune_cli  # noqa: E402
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


@pytest.mark.parametrize("preset", ["fair", "shifts"])
def test_the_presets_are_made_of_keys_that_exist(preset):
    register()
    for rule in ("backprop", "lazy", "confidence", "spaced", "infobatch", "random"):
        found = Space(preset, rule)
        assert len(found.points()) == 3
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["maximize", "minimize"])
        for _ in range(3):
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
    trials = tmp_path / "search" / "trials.csv"
    for n in (2, 5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not (trials.exists() and len(pd.read_csv(trials)) >= n):
            assert time.monotonic() < end and process.poll() is None, "the trials do not come"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = pd.read_csv(trials)
    assert 5 <= len(before) < 8
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(trials)
    pd.testing.assert_frame_equal(table.head(len(before)), before)
    assert len(table) == 8 and set(table["state"]) == {"complete"}
    assert all((tmp_path / "search" / "runs" / run / "summary.csv").exists() for run in table["run_id"])
    finals = [sys.executable, "-m", "lazyexp.tune.cli", "--finals", str(tmp_path / "search"), "--seeds", "2"]
    done = subprocess.run(
        [*finals, "--folder", str(tmp_path / "finals")], capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    chosen = pd.read_csv(tmp_path / "finals" / "chosen.csv")
    assert len(list((tmp_path / "finals" / "runs").glob("digits-*/summary.csv"))) == 2 * len(chosen)


def tune(monkeypatch, capsys, *words):
    """Exit code and what was said of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["lazyexp-tune", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        tune_cli.main()
    return end.value.code, capsys.readouterr().err


@pytest.fixture
def searches(tmp_path):
    """Two searches of three trials: the first one has a front of two points, the second one of a single point."""
    for name, accuracies in (("one", (0.9, 0.95, 0.94)), ("two", (0.9, 0.8, 0.7))):
        trials = pd.DataFrame({"trial": range(3), "val_accuracy": accuracies, "train_seconds": (1.0, 2.0, 3.0)})
        trials = trials.assign(state="complete", status="finished", run_id=[f"{name}{i}" for i in range(3)])
        trials["overrides"] = [f"rule={name} epochs={i + 1} dataset.val_size=100" for i in range(3)]
        (tmp_path / name).mkdir()
        trials.to_csv(tmp_path / name / "trials.csv", index=False)
    return [tmp_path / "one", tmp_path / "two"]


SUMMARY = {"train_seconds": 1.0, "val_accuracy": 0.9, "status": "finished"}


def test_what_other_searches_chose_is_borrowed_once(tmp_path, monkeypatch, capsys):
    """Of two searches two points each, one of them in both; the rule's own options stay there."""
    space = tmp_path / "space.yaml"
    space.write_text("all:\n  - {key: epochs, low: 1, high: 9}\n  - {key: batch_size, choices: [32, 64]}\n")
    searched = {"one": ((3, 2, 5), (32, 64, 32)), "two": ((3, 4, 7), (32, 64, 64)), "far": ((3, 12, 2), (32, 32, 16))}
    for name, (epochs, batch) in searched.items():  # what "far" has chosen is out of the ranges, or known
        rows = {"trial": range(3), "val_accuracy": (0.9, 0.8995, 0.8975), "train_seconds": (3.0, 2.0, 1.0)}
        rows["val_accuracy"] = rows["val_accuracy"] if name == "far" else (0.9, 0.8995, 0.5)
        trials = pd.DataFrame({**rows, "epochs": epochs, "batch_size": batch, "rule.ratio": 0.5})
        (tmp_path / name).mkdir()
        trials.assign(state="complete", status="finished").to_csv(tmp_path / name / "trials.csv", index=False)
    done = []

    def attempt(overrides, place):
        done.append(" ".join(word for word in overrides if word.startswith(("epochs", "batch"))))
        return SimpleNamespace(status="finished", folder=tmp_path / "x", summary=SUMMARY), ""

    monkeypatch.setattr(tune_cli, "attempt", attempt)
    words = ["rule=backprop", "dataset.val_size=100", "--space", space, "--folder", tmp_path / "mine"]
    words += ["--borrow", *(tmp_path / name for name in searched)]
    assert tune(monkeypatch, capsys, *words, "--trials", 2)[0] == 0
    assert tune(monkeypatch, capsys, *words, "--trials", 5)[0] == 0  # goes on, and asks nothing twice
    chosen = {"epochs=3 batch_size=32", "epochs=2 batch_size=64", "epochs=4 batch_size=64"}
    assert set(done[:3]) == chosen and len(done) == 5 and "epochs=12 batch_size=32" not in done
    assert len(pd.read_csv(tmp_path / "mine" / "trials.csv")) == 5
    code, said = tune(monkeypatch, capsys, *words, tmp_path / "nobody", "--trials", 6)
    assert code == 2 and "has no readable trials.csv" in said


def test_finals_take_turns_and_have_fresh_seeds(tmp_path, monkeypatch, capsys, searches):
    done = []
    monkeypatch.setattr(tune_cli, "attempt", lambda words, place: (done.append(words), (None, ""))[1])
    words = ["--finals", *searches, "--seeds", 3, "--slack", 0, 0.1, "--folder", tmp_path / "finals"]
    assert tune(monkeypatch, capsys, *words)[0] == 0
    assert pd.read_csv(tmp_path / "finals" / "chosen.csv")["run_id"].tolist() == ["one1", "one0", "two0"]
    told = [dict(word.split("=") for word in words) for words in done]  # of words that come twice the last one counts
    assert [one["seed"] for one in told] == ["100"] * 3 + ["101"] * 3 + ["102"] * 3
    order = ["".join(one["rule"] + one["epochs"] for one in told[at : at + 3]) for at in (0, 3, 6)]
    assert order == ["one1two1one2", "two1one2one1", "one2one1two1"]  # all three, begun by another one every time
    assert all(one["dataset.val_size"] == "0" for one in told)


def test_a_failed_final_is_told_by_the_exit_code(tmp_path, monkeypatch, capsys, searches):
    monkeypatch.setattr(tune_cli, "attempt", lambda words, place: (None, "no memory" * ("epochs=2" in words)))
    code, said = tune(monkeypatch, capsys, "--finals", *searches, "--seeds", 1, "--folder", tmp_path / "finals")
    assert code == 1 and said == "lazyexp-tune: [one, seed 100]: no memory\n"


def test_a_diverging_trial_is_a_result(tmp_path, space):
    search = Search(tmp_path / "search", [*SMALL, "rule=backprop"], Space(space, "backprop"), 0)
    register()
    row = search.next_trial(lambda words: attempt([*words, "optimizer.lr=1e30", f"runs_dir={tmp_path}"], ""))
    assert row["state"] == "complete" and row["status"] == "diverged" and row["val_accuracy"] == 0


def test_errors_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, said = tune(monkeypatch, capsys, "rule=lazy")
    assert code == 2 and "dataset.val_size=0: trials are chosen by validation samples" in said
    code, said = tune(monkeypatch, capsys, "--finals", "nowhere")
    assert code == 2 and "nowhere: has no readable trials.csv" in said and said.count("\n") == 1
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, said = tune(monkeypatch, capsys, "rule=lazy")
    assert code == 2 and 'pip install "lazyexp[tune]"' in said and said.count("\n") == 1
