"""Searches under equal trials: what is chosen, what is recorded, what survives a kill."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

optuna = pytest.importorskip("optuna")

from lazyexp.config.compose import register  # noqa: E402
from lazyexp.config.registry import RULES  # noqa: E402
from lazyexp.errors import UserError  # noqa: E402
from lazyexp.tune import cli, finals  # noqa: E402
from lazyexp.tune.fronts import choose, front  # noqa: E402
from lazyexp.tune.space import Space, words  # noqa: E402
from lazyexp.tune.study import Search, objectives  # noqa: E402
from lazyexp.tune.trial import Outcome, attempt  # noqa: E402

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
COMMAND = [sys.executable, "-m", "lazyexp.tune.cli"]


@pytest.fixture
def space(tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    return str(tmp_path / "space.yaml")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "search").mkdir()
    return tmp_path / "search"


def outcome(status="finished", accuracy=0.5, seconds=1.5):
    summary = {"status": status, "val_accuracy": accuracy, "test_accuracy": accuracy, "train_seconds": seconds}
    summary |= {"rule": "lazy", "seed": 0, "epoch": 2.0, "train_size": 50, "samples_seen": 100}
    summary["backward_samples"] = 10
    return Outcome(SimpleNamespace(status=status, summary=summary, folder=Path("some-run")))


def trials(*points):
    rows = [(n, "complete", status, accuracy, seconds) for n, (accuracy, seconds, status) in enumerate(points)]
    return pd.DataFrame(rows, columns=["trial", "state", "status", "val_accuracy", "train_seconds"])


def facts(rule):
    """The columns of trials.csv that say whose trials they are."""
    return {"rule": rule, "seed": 0, "samples_seen": 100, "backward_samples": 10, "selects_all": False}


def test_the_front_is_what_no_trial_beats():
    table = trials(
        (0.90, 2.0, "finished"),
        (0.95, 3.0, "finished"),
        (0.94, 4.0, "finished"),  # slower and less accurate than 1
        (0.95, 5.0, "finished"),  # as accurate as 1, slower
        (0.99, 1.0, "diverged"),
        (0.97, 9.0, "finished"),
    )
    assert front(table)["trial"].tolist() == [0, 1, 5]
    assert choose(table, (0.0, 0.02, 0.03))["trial"].tolist() == [5, 1]
    assert choose(table, (0.0, 0.07))["trial"].tolist() == [5, 0]
    assert not len(choose(table.iloc[4:5], (0.0,)))


def test_the_accuracy_of_a_diverged_trial_is_0():
    assert objectives({"status": "diverged", "train_seconds": 3.0, "val_accuracy": None}) == (0.0, 3.0)
    assert objectives({"status": "finished", "train_seconds": 3.0, "val_accuracy": 0.7}) == (0.7, 3.0)


def test_all_rules_share_the_common_ranges(space):
    common, confidence = Space(space, "lazy"), Space(space, "confidence")
    assert common.keys() == ["epochs", "optimizer", "optimizer.lr"]
    assert confidence.keys() == [*common.keys(), "rule.threshold"]
    assert confidence.points() == [{"epochs": 2, "optimizer": "adam", "optimizer.lr (optimizer=adam)": 0.0015}]
    drawn = optuna.trial.FixedTrial({"epochs": 3, "optimizer": "sgd", "optimizer.lr (optimizer=sgd)": 0.03})
    assert words(common.suggest(drawn)) == ["epochs=3", "optimizer=sgd", "optimizer.lr=0.03"]


def test_given_keys_are_not_searched(space):
    assert Space(space, "lazy", {"epochs": 2}).keys() == ["optimizer", "optimizer.lr"]
    assert Space(space, "lazy", {"optimizer.lr": 0.5}).keys() == ["epochs", "optimizer"]
    sgd = Space(space, "lazy", {"optimizer": "sgd"})
    assert sgd.keys() == ["epochs", "optimizer.lr"]
    assert sgd.points() == [{"epochs": 2}]  # without the learning rate of the other optimizer
    adam = Space(space, "lazy", {"optimizer": "adam"})
    assert adam.points() == [{"epochs": 2, "optimizer.lr (optimizer=adam)": 0.0015}]
    drawn = optuna.trial.FixedTrial({"epochs": 1, "optimizer.lr (optimizer=adam)": 0.0012})
    assert adam.suggest(drawn) == {"epochs": 1, "optimizer.lr": 0.0012}
    assert Space(space, "lazy", {"optimizer": None}).keys() == ["epochs"]  # a custom one
    with pytest.raises(UserError, match="nothing to search"):
        Space(space, "lazy", {"epochs": 1, "optimizer": "sgd", "optimizer.lr": 0.1})


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset, rule",
    [*((preset, rule) for preset in ("fair", "shifts") for rule in ("backprop", "confidence", "spaced", "infobatch"))]
    + [("methods", rule) for rule in RULES],
)
def test_the_presets_consist_of_keys_that_exist(preset, rule):
    register()
    found = Space(preset, rule)
    assert len(found.points()) == 3
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    overrides = words(found.suggest(optuna.create_study(directions=["maximize", "minimize"]).ask()))
    failed = attempt([f"rule={rule}", *overrides, "dataset.train_size=1", "runs_dir=/nowhere"])
    assert "batch_size" in failed.error  # composed and checked; refused for its single sample only


def test_failed_and_diverged_trials_are_recorded(folder, space):
    search = Search(folder, [], Space(space, "lazy"), 0)
    failure = Outcome(None, "batch_size=9: larger than the training set")
    endings = iter([outcome("diverged"), failure, outcome()])
    for _ in range(3):
        search.next_trial(lambda overrides: next(endings))
    table = pd.read_csv(folder / "trials.csv")
    assert table["state"].tolist() == ["complete", "fail", "complete"]
    assert table["status"].tolist() == ["diverged", "batch_size=9: larger than the training set", "finished"]
    assert table["val_accuracy"].fillna(-1).tolist() == [0.0, -1, 0.5]
    assert pd.read_csv(folder / "front.csv")["trial"].tolist() == [2]
    again = Search(folder, [], Space(space, "lazy"), 0)
    assert len(again.counted()) == 2 and len(again.failed()) == 1
    with pytest.raises(UserError, match="other overrides, ranges or seed"):
        Search(folder, ["epochs=3"], Space(space, "lazy"), 0)


def test_a_failed_trial_is_repeated_once_with_its_values(folder, space):
    search = Search(folder, [], Space(space, "lazy"), 0)
    failed = search.next_trial(lambda overrides: Outcome(None, "disk gone"))
    for _ in range(2):
        search = Search(folder, [], Space(space, "lazy"), 0)
        search.repeat_failed()
    row = search.next_trial(lambda overrides: outcome())
    assert row["overrides"] == failed["overrides"] and len(search.counted()) == 1
    assert search.next_trial(lambda overrides: outcome())["overrides"] != failed["overrides"]


def test_a_killed_trial_is_repeated_first_with_its_values(folder, space):
    search = Search(folder, [], Space(space, "lazy"), 0)

    def kill(overrides):
        raise KeyboardInterrupt

    for _ in range(2):  # killed twice, and still one trial
        with pytest.raises(KeyboardInterrupt):
            search.next_trial(kill)
        search = Search(folder, [], Space(space, "lazy"), 0)
        assert search.counted() == []
    row = search.next_trial(lambda overrides: outcome())
    assert row["overrides"] == "epochs=2 optimizer=adam optimizer.lr=0.0015"
    assert len(search.counted()) == 1


@pytest.mark.slow
def test_a_killed_search_continues_and_has_as_many_trials(tmp_path, space):
    command = [
        *COMMAND,
        "rule=backprop",
        *SMALL,
        "--space",
        space,
        "--trials",
        "8",
        "--folder",
        str(tmp_path / "t (1), ü"),
    ]
    table = tmp_path / "t (1), ü" / "trials.csv"
    for n in (2, 5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not (table.exists() and len(pd.read_csv(table)) >= n):
            assert time.monotonic() < end and process.poll() is None, "no trials"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = pd.read_csv(table)
    assert 5 <= len(before) < 8
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    after = pd.read_csv(table)
    pd.testing.assert_frame_equal(after.head(len(before)), before)
    assert len(after) == 8 and set(after["state"]) == {"complete"}
    assert all((table.parent / "runs" / run / "summary.csv").exists() for run in after["run_id"])
    assert done.stdout.count("validation accuracy") == 8 - len(before) and "test accuracy" not in done.stdout
    comparison = [*COMMAND, "--finals", str(table.parent), "--seeds", "2", "--folder", str(tmp_path / "f=1")]
    done = subprocess.run(comparison, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    chosen = pd.read_csv(tmp_path / "f=1" / "chosen.csv")
    assert len(list((tmp_path / "f=1" / "runs").glob("digits-*/summary.csv"))) == 2 * chosen["point"].nunique()
    assert "median seconds" in done.stdout and "lazyexp-report" in done.stdout


def tune(monkeypatch, capsys, *words):
    """Exit code, standard output and standard error of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["lazyexp-tune", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, *capsys.readouterr()


@pytest.fixture
def searches(tmp_path):
    """Two searches of three trials, each with a front of two points."""
    rules = {"one": "lazy", "two": "backprop"}
    for name, accuracies in (("one", (0.9, 0.95, 0.94)), ("two", (0.9, 0.95, 0.7))):
        table = pd.DataFrame({"trial": range(3), "val_accuracy": accuracies, "train_seconds": (1.0, 2.0, 3.0)})
        table = table.assign(state="complete", status="finished", run_id=[f"{name}{i}" for i in range(3)])
        table["overrides"] = [f"rule={rules[name]} epochs={i + 1} dataset.val_size=100" for i in range(3)]
        table = table.assign(**facts(rules[name]))
        (tmp_path / name).mkdir()
        table.to_csv(tmp_path / name / "trials.csv", index=False)
    return [tmp_path / "one", tmp_path / "two"]


@pytest.mark.slow
def test_chosen_points_of_other_searches_are_borrowed_once(tmp_path, monkeypatch, capsys):
    """Of two searches two points each, one of them in both; options of the other rule are not borrowed."""
    space = tmp_path / "space.yaml"
    space.write_text("all:\n  - {key: epochs, low: 1, high: 9}\n  - {key: batch_size, choices: [32, 64]}\n")
    searched = {"one": ((3, 2, 5), (32, 64, 32)), "two": ((3, 4, 7), (32, 64, 64)), "far": ((3, 12, 2), (32, 32, 16))}
    for name, (epochs, batch) in searched.items():  # what "far" has chosen is out of the ranges, or known
        accuracies = (0.9, 0.8995, 0.8975) if name == "far" else (0.9, 0.8995, 0.5)
        table = {"trial": range(3), "val_accuracy": accuracies, "train_seconds": (3.0, 2.0, 1.0)}
        table |= {"epochs": epochs, "batch_size": batch, "rule.ratio": 0.5}
        (tmp_path / name).mkdir()
        frame = pd.DataFrame(table).assign(state="complete", status="finished", run_id="x", overrides="a=1")
        frame = frame.assign(**facts("lazy"))
        frame.to_csv(tmp_path / name / "trials.csv", index=False)
    done = []

    def train(overrides, folder):
        done.append(" ".join(word for word in overrides if word.startswith(("epochs", "batch"))))
        return outcome()

    monkeypatch.setattr(cli, "train", train)
    words = ["rule=backprop", "dataset.val_size=100", "--space", space, "--folder", tmp_path / "mine"]
    words += ["--borrow", *(tmp_path / name for name in searched)]
    assert tune(monkeypatch, capsys, *words, "--trials", 2)[0] == 0
    assert tune(monkeypatch, capsys, *words, "--trials", 5)[0] == 0  # continues, and repeats nothing
    chosen = {"epochs=3 batch_size=32", "epochs=2 batch_size=64", "epochs=4 batch_size=64"}
    assert set(done[:3]) == chosen and len(done) == 5 and "epochs=12 batch_size=32" not in done
    assert len(pd.read_csv(tmp_path / "mine" / "trials.csv")) == 5
    code, _, error = tune(monkeypatch, capsys, *words, tmp_path / "missing", "--trials", 6)
    assert code == 2 and "has no readable trials.csv" in error


@pytest.mark.slow
def test_finals_take_turns_and_have_fresh_seeds(tmp_path, monkeypatch, capsys, searches):
    done = []
    monkeypatch.setattr(finals, "attempt", lambda words: (done.append(words), outcome())[1])
    words = ["--finals", *searches, "--seeds", 3, "--margins", 5, "--folder", tmp_path / "finals"]
    code, out, _ = tune(monkeypatch, capsys, *words)
    assert code == 0
    chosen = pd.read_csv(tmp_path / "finals" / "chosen.csv")
    assert chosen["margin"].tolist() == [0.1, 0.1, 5, 5]
    assert chosen["run_id"].tolist() == ["one1", "two1", "one0", "two0"]
    given = [dict(word.split("=", 1) for word in words) for words in done]  # the last of two equal keys counts
    assert [point["seed"] for point in given] == ["100"] * 4 + ["101"] * 4 + ["102"] * 4
    order = [" ".join(point["rule"] + point["epochs"] for point in given[at : at + 4]) for at in (0, 4)]
    assert order == ["lazy2 backprop2 lazy1 backprop1", "backprop2 lazy1 backprop1 lazy2"]
    assert all(point["dataset.val_size"] == "0" for point in given)
    table = out[out.index("  search") :] if "  search" in out else out
    assert "test accuracy" in table and "50.00%" in table and "median seconds" in table and "1.50" in table


@pytest.mark.slow
def test_a_failed_final_makes_the_exit_code_1(tmp_path, monkeypatch, capsys, searches):
    monkeypatch.setattr(
        finals,
        "attempt",
        lambda words: Outcome(None, "no memory") if {"rule=lazy", "epochs=2"} <= set(words) else outcome(),
    )
    code, out, error = tune(monkeypatch, capsys, "--finals", *searches, "--seeds", 1, "--folder", tmp_path / "finals")
    assert code == 1 and error.startswith("lazyexp-tune: [one, trial 1, seed 100]: failed: no memory\n")
    assert "median seconds" in out  # of the others


@pytest.mark.slow
def test_a_diverging_trial_is_a_result(tmp_path, folder, space):
    search = Search(folder, [*SMALL, "rule=backprop"], Space(space, "backprop"), 0)
    register()
    row = search.next_trial(lambda words: attempt([*words, "optimizer.lr=1e30", f"runs_dir={tmp_path}"]))
    assert row["state"] == "complete" and row["status"] == "diverged" and row["val_accuracy"] == 0


def test_overrides_of_a_trial_are_quoted_as_for_a_shell(folder, space):
    fixed = ["dataset.path='/data/t (1)/a, b=ü'", "targets=[0.9, 0.95]"]
    search = Search(folder, fixed, Space(space, "lazy"), 0)
    search.next_trial(lambda overrides: outcome())
    text = pd.read_csv(folder / "trials.csv")["overrides"][0]
    assert shlex.split(text)[:2] == fixed
