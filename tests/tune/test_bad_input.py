"""What users type and what happens to their folders: one line and an exit code, never a traceback."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("optuna")

from filelock import FileLock
from test_tune import SMALL, outcome, searches, space, tune  # noqa: F401

from lazyexp.tune import cli, finals, study
from lazyexp.tune.trial import Outcome, attempt

HEAD = "trial,state,status,val_accuracy,train_seconds,rule,selects_all,samples_seen,backward_samples,seed"
HEAD += ",run_id,overrides"
GIVEN = ["rule=lazy", "dataset.val_size=100"]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The command in tmp_path, with trials that train nothing. Returns code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "train", lambda overrides, folder: outcome())
    monkeypatch.setattr(finals, "attempt", lambda overrides: outcome())
    return lambda *words: tune(monkeypatch, capsys, *words)


def refused(answer, message, code=2):
    assert answer[0] == code, answer
    assert message in answer[2] and answer[2].count("\n") == 1 and answer[2].startswith("lazyexp-tune: error: ")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--seed", "-5"], "--seed -5: must be from 0 to 4294967295"),
        (["--seed", str(2**32)], "must be from 0"),
        (["--seed", "x"], "invalid int value"),
        (["--trials", "0"], "--trials 0: must be at least 1"),
        (["--trials", "-3"], "--trials -3: must be at least 1"),
        (["--trials", "1.5"], "invalid int value"),
        (["--trials"], "expected one argument"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--fin"], "unrecognized arguments: --fin"),  # no abbreviations
        (["--folder"], "expected one argument"),
        (["--space", "nowhere"], "no such file; presets: fair, methods, shifts"),
        (["--space", "."], "--space"),
        (["--space", ""], "no such file"),
        (["--borrow"], "expected at least one argument"),
        (["--borrow", "missing"], "missing: has no readable trials.csv"),
        (["seed=0,1"], "seed=0,1: several values"),
        (["epochs=range(1,4)"], "several values"),
        (["optimizer=sgd,adam"], "several values"),
        (["runs_dir=x"], "runs_dir: is FOLDER/runs in a search; set --folder"),
        (["overwrite=true"], "overwrite: a trial is trained once"),
        (["dataset.path=t (1)"], "dataset.path"),
        (["dataset.path=a=b"], "dataset.path"),
        (["epochs=0"], "epochs=0: must be at least 1"),
        (["nonsense=1"], "nonsense"),
        (["rule=nonsense"], "rule=nonsense"),
        (["lazy"], "lazy"),
        (["optimizer.lr=-1"], "optimizer.lr=-1"),
        (["dataset.val_size=0"], "set dataset.val_size"),
        (["epochs=1", "batch_size=32", "optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=0.1",
          "optimizer.schedule=linear", "optimizer.reduction=batch"], "nothing to search"),
    ],
    ids=str,
)  # fmt: skip
def test_command_lines_of_a_search(run, words, message):
    refused(run(*GIVEN, *words), message)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "name the folders of at least one search"),
        (["nowhere"], "nowhere: has no readable trials.csv"),
        (["one", "--margins", "-1"], "--margins -1.0: must be from 0 to 100"),
        (["one", "--margins", "nan"], "--margins nan: must be from 0 to 100"),
        (["one", "--margins", "101"], "--margins 101.0: must be from 0 to 100"),
        (["one", "--margins"], "expected at least one argument"),
        (["one"], "needs a search of rule=backprop, from whose best accuracy lines are measured"),
        (["two", "./two"], "the same folder is named twice"),
        (["one", "--seeds", "0"], "--seeds 0: must be at least 1"),
        (["one", "--borrow", "two"], "--borrow: belongs to a search"),
        (["one", "rule=lazy"], "rule=lazy: has no readable trials.csv"),
        (["one/trials.csv"], "has no readable trials.csv"),
        (["two", "--folder", "one/trials.csv"], "--folder one/trials.csv: cannot write into it"),
    ],
    ids=str,
)
def test_command_lines_of_the_finals(run, searches, words, message):  # noqa: F811
    refused(run("--finals", *words), message)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text, message",
    [
        ("all: [{key: epochs}]", "needs either choices or low and high"),
        ("all: [{low: 1, high: 2}]", "needs a key"),
        ("nothing: 1", "must have the keys all"),
        ("{", "--space"),
        ("", "must have the keys all"),
        ("all: 3", "must be lists"),
        ("all: [epochs]", "needs a key"),
        ("all: [{key: epochs, low: 5, high: 2}]", "low=5: must be at most high=2"),
        ("all: [{key: optimizer.lr, low: 0, high: 1, log: true}]", "low=0: must be above 0 for a logarithmic range"),
        ("all: [{key: optimizer.lr, low: -1.0, high: 1, log: true}]", "above 0"),
        ("all: [{key: epochs, choices: []}]", "must be a list with at least one value"),
        ("all: [{key: epochs, choices: 3}]", "must be a list with at least one value"),
        ("all: [{key: epochs, choices: [[1], [2]]}]", "must be words, numbers"),
        ("all: [{key: epochs, choices: [1], low: 2}]", "either choices or low and high"),
        ("all: [{key: epochs, low: 1, high: 3, step: 1}]", "may have choices"),
        ("all: [{key: epochs, low: one, high: 3}]", "low=one: must be a finite number"),
        ("all: [{key: epochs, low: true, high: 3}]", "low=True: must be a finite number"),
        ("all: [{key: optimizer.lr, low: 0.1, high: .inf}]", "high=inf: must be a finite number"),
        ("all: [{key: optimizer.lr, low: .nan, high: 1}]", "low=nan: must be a finite number"),
        ("all: [{key: optimizer.lr, low: 0.1, high: 1, log: maybe}]", "log=maybe: must be true or false"),
        ("all: [{key: 3, low: 1, high: 2}]", "the key must be a name"),
        ("all: [{key: epoch, low: 1, high: 2}]", "epoch: unknown key"),
        ("all: [{key: epochs, low: 0, high: 2}]", "epochs=0: must be at least 1"),
        ("all: [{key: optimizer, choices: [sgd, sdg]}]", "optimizer=sdg: must be one of sgd"),
        ("all: [{key: optimizer.lr, choices: [fast]}]", "optimizer.lr=fast: must be a number"),
        ("all: [{key: optimizer.schedule, choices: [steep]}]", "optimizer.schedule=steep: must be one of"),
        ("all: [{key: rule.threshold, low: 0, high: 1}]", "rule.threshold: unknown option of rule lazy"),
        ("all: [{key: runs_dir, choices: [a]}]", "runs_dir: is FOLDER/runs"),
        ("all: [{key: epochs, low: 1, high: 2, when: {optimizer: sgd}}]", "optimizer must be the key of an earlier"),
        ("all: [{key: epochs, low: 1, high: 2, when: sgd}]", "must be a mapping"),
        ("all: [{key: epochs, low: 1, high: 2}]\nstart: 3", "must be lists"),
        ("all: [{key: epochs, low: 1, high: 2}]\nstart: [3]", "start: 3: must be a mapping"),
        ("all: [{key: epochs, low: 1, high: 2}]\nstart: [{epochs: 9}]", "start: epochs=9: outside its range"),
        ("all: [{key: epochs, low: 1, high: 2}]\nstart: [{epochs: few}]", "start: epochs=few: outside its range"),
        ("all: [{key: epochs, low: 1, high: 2}]\nstart: [{batch_size: 9}]", "batch_size is not a key of this space"),
        ("all: [{key: epochs, low: 1, high: 2}]\nrules: [lazy]", "must be lists"),
        ("all: [{key: epochs, low: 1, high: 2}]\nrules: {lazy: 3}", "must be lists"),
        ("all: [{key: epochs, low: 1, high: '${oc.env:NOT_SET_ANYWHERE}'}]", "--space"),
    ],
)
def test_spaces(run, tmp_path, text, message):
    (tmp_path / "space.yaml").write_text(text)
    refused(run(*GIVEN, "--space", "space.yaml"), message)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("study.journal", b"not json\nnor this\n", "is damaged (JSONDecodeError"),
        ("study.journal", b"[1]\n[2]\n", "is damaged"),
        ("study.journal", b'{"op_code": 99}\n{"op_code": 98}\n', "is damaged"),
        ("study.journal", bytes(range(256)) + b"\n\n", "is damaged"),
        ("trials.csv", b"a,b\n1,2\n", "has a trials.csv without its study.journal"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_folders_with_other_files(run, tmp_path, file, content, message):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / file).write_bytes(content)
    refused(run(*GIVEN, "--folder", "search"), message)
    assert (tmp_path / "search" / file).read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize("end", [b'{"op_code": 4, "wor', b"\x00\x00\x00"])
def test_a_journal_whose_last_line_is_incomplete_continues(run, tmp_path, end):
    assert run(*GIVEN, "--folder", "search", "--trials", 2)[0] == 0
    with (tmp_path / "search" / "study.journal").open("ab") as stream:
        stream.write(end)
    for _ in range(2):
        assert run(*GIVEN, "--folder", "search", "--trials", 3)[0] == 0
    assert len(pd.read_csv(tmp_path / "search" / "trials.csv")) == 3


@pytest.mark.slow
def test_a_lock_of_optuna_that_a_killed_process_left_is_removed(run, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "study.journal.lock").symlink_to("study.journal")
    assert run(*GIVEN, "--folder", "search", "--trials", 1)[0] == 0


@pytest.mark.slow
def test_a_journal_of_another_study_is_refused(run, tmp_path):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    (tmp_path / "search").mkdir()
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "search" / "study.journal")))
    optuna.create_study(study_name="search", storage=storage)
    refused(run(*GIVEN, "--folder", "search"), "of another kind of search")


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "No columns to parse"),
        ("a,b\n1,2\n", "not written by this version of lazyexp-tune"),
        (
            HEAD + "\n0,complete,finished,high,1,backprop,False,9,9,0,x,a=1\n",
            "string",
        ),
        (
            HEAD + "\n0,fail,no,,,backprop,False,9,9,0,x,a=1\n",
            "no trial was complet",
        ),
        (
            HEAD + "\n0,complete,diverged,0,1,backprop,False,9,9,0,x,a=1\n",
            "no trial",
        ),
        (
            HEAD + "\n0,complete,finished,1,1,backprop,False,9,9,0,x,a='1\n",
            "overrides",
        ),
        (HEAD + "\n0,complete,finished,1,1,backprop,False,9,9,0,x,a=1\n", "a"),
        (HEAD + "\n0,complete,finished,1,1,backprop,False,9,9,0,x,\n", "nan"),
    ],
)
def test_tables_of_something_else(run, tmp_path, content, message):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "trials.csv").write_text(content)
    refused(run("--finals", "one"), message)


@pytest.mark.slow
def test_a_folder_that_is_a_file(run, tmp_path):
    (tmp_path / "search").write_text("")
    refused(run(*GIVEN, "--folder", "search"), "--folder search: cannot write into it")
    refused(run(*GIVEN, "--folder", "search/below"), "cannot write into it")


@pytest.mark.slow
def test_two_tuners_in_one_folder(run, tmp_path, searches):  # noqa: F811
    for words in ([*GIVEN, "--folder", "folder"], ["--finals", "two", "--folder", "folder"]):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with FileLock(tmp_path / "folder" / ".lock"):
            refused(run(*words), "folder: another lazyexp-tune is working in this folder", code=1)
        assert run(*words, "--trials", 1)[0] == 0


@pytest.mark.slow
def test_a_full_disk_ends_the_search_in_one_line(run, tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(study, "write_text", full)
        refused(run(*GIVEN, "--folder", "search"), "about.json: No space left on device; the same command continues")
    with monkeypatch.context() as patch:
        patch.setattr("lazyexp.experiment.run", lambda config: full("metrics.csv", ""))
        patch.setattr(cli, "train", lambda overrides, folder: attempt(overrides))
        refused(run(*GIVEN, "--folder", "search"), "metrics.csv: No space left on device")
    assert run(*GIVEN, "--folder", "search", "--trials", 2)[0] == 0
    assert len(pd.read_csv(tmp_path / "search" / "trials.csv")) == 2


@pytest.mark.slow
def test_a_search_whose_trials_all_fail_shows_the_reason_and_gives_up(run, monkeypatch):
    monkeypatch.setattr(cli, "train", lambda overrides, folder: Outcome(None, "dataset.path=x: no such folder"))
    code, out, error = run(*GIVEN, "--folder", "search")
    assert code == 2 and error.count("\n") == 1 and "the last 5 trials failed: dataset.path=x: no such" in error
    assert out.count("failed: dataset.path=x") == 5
    monkeypatch.setattr(cli, "train", lambda overrides, folder: outcome())
    assert run(*GIVEN, "--folder", "search", "--trials", 6)[0] == 0  # the reason is gone
    table = pd.read_csv("search/trials.csv")
    assert (table["state"] == "complete").sum() == 6
    failed, completed = table[table["state"] == "fail"], table[table["state"] == "complete"]
    assert failed["overrides"].tolist() == completed["overrides"].tolist()[:5]  # repeated


@pytest.mark.slow
def test_some_failed_trials_do_not_end_a_search(run, monkeypatch):
    endings = iter([Outcome(None, "out of memory")] * 4 + [outcome()] + [Outcome(None, "out of memory")] * 5)
    monkeypatch.setattr(cli, "train", lambda overrides, folder: next(endings))
    refused(run(*GIVEN, "--folder", "search", "--trials", 9), "the last 5 trials failed: out of memory", code=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["t (1)", "t,1", "t=1", "tü", "it's", "a b", "[x]", "{y}", "t#1", "$HOME", "-t", "日本"]
)
def test_folders_with_special_names(run, monkeypatch, tmp_path, name, space):  # noqa: F811
    """Real trials and finals, in folders whose names mean something to Hydra or a shell."""
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    short = ["rule=backprop", *SMALL, "epochs=1", "targets=[0.9, 0.95]", "--space", space, f"--folder={name}"]
    assert run(*short, "--trials", 1)[0] == 0
    answer = run("--finals", f"./{name}", "--seeds", 1, f"--folder={name} finals")
    assert answer[0] == 0, answer
    (done,) = (tmp_path / f"{name} finals" / "runs").glob("*/summary.csv")
    settings = json.loads((done.parent / "run.json").read_text())["settings"]
    assert settings["targets"] == [0.9, 0.95] and settings["epochs"] == 1


@pytest.mark.slow
def test_overrides_after_between_and_before_options(run, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "train", lambda overrides, folder: (seen.append(overrides), outcome())[1])
    options = ["--trials", "1", "--seed", "3"]
    lines = ([*options, *GIVEN], [GIVEN[0], *options, GIVEN[1]], [*GIVEN, *options])
    for number, words in enumerate(lines):
        assert run(*words, "--folder", f"search{number}")[0] == 0
    assert seen[0] == seen[1] == seen[2] and seen[0][:2] == GIVEN


@pytest.mark.slow
def test_overrides_after_options_of_several_words(run, searches, monkeypatch):  # noqa: F811
    seen = []
    monkeypatch.setattr(cli, "train", lambda overrides, folder: (seen.append(overrides), outcome())[1])
    assert run("--folder", "search", "--trials", 1, "--borrow", "one", "two", *GIVEN)[0] == 0
    assert seen[0][:2] == GIVEN
    code, out, _ = run("--finals", "--margins", 0, 0.5, "two", "one", "--seeds", 1, "--folder", "f")
    assert code == 0 and out.count("seed 100") == 2


@pytest.mark.slow
def test_given_values_hold_in_every_trial(run, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "train", lambda overrides, folder: (seen.append(overrides), outcome())[1])
    given = [*GIVEN, "epochs=2", "optimizer.name=adam", "++batch_size=48"]
    assert run(*given, "--trials", 6)[0] == 0
    for words in seen:
        keys = [word.partition("=")[0].lstrip("+") for word in words]
        assert len(keys) == len(set(keys)) and words[: len(given)] == given
        assert "optimizer.lr" in keys and "optimizer.momentum" not in keys


@pytest.mark.slow
def test_a_preset_holds_in_every_trial(run, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "train", lambda overrides, folder: (seen.append(overrides), outcome())[1])
    assert run("rule=fast_lazy", "dataset.val_size=100", "epochs=3", "--trials", 3)[0] == 0
    fixed = {"rule.threshold", "rule.max_interval", "packing.block_size", "batch_size", "optimizer.lr"}
    for words in seen:
        assert not fixed & {word.partition("=")[0] for word in words} and "epochs=3" in words


@pytest.mark.slow
def test_lines_show_the_validation_accuracy(run, monkeypatch):
    endings = iter([outcome(accuracy=0.875, seconds=2.5), outcome("diverged"), Outcome(None, "no memory")])
    monkeypatch.setattr(cli, "train", lambda overrides, folder: next(endings, outcome()))
    code, out, _ = run(*GIVEN, "--trials", 3)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith(
        "[1/3] finished, validation accuracy 87.50%, 2.50 s (epochs=4 batch_size"
    )
    assert (
        lines[1].startswith("[2/3] diverged, validation accuracy 0.00%") and "[3/3] failed: no memory (" in lines[2]
    )


def test_without_a_front_nothing_breaks(run, monkeypatch):
    monkeypatch.setattr(cli, "train", lambda overrides, folder: outcome("diverged"))
    code, out, _ = run(*GIVEN, "--trials", 1)
    assert code == 0 and "no trial was completed without diverging" in out


@pytest.mark.slow
def test_without_optuna(run, monkeypatch, searches):  # noqa: F811
    monkeypatch.setitem(sys.modules, "optuna", None)
    refused(run(*GIVEN), 'Optuna is not installed; pip install "lazyexp[tune]"')
    assert run("--finals", "two", "--seeds", 1)[0] == 0  # need no Optuna


def test_the_journal_is_a_folder(run, tmp_path):
    (tmp_path / "search" / "study.journal").mkdir(parents=True)
    refused(run(*GIVEN, "--folder", "search"), "Is a directory")


@pytest.mark.slow
def test_home_is_expanded(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(*GIVEN, "--folder", "~/search", "--trials", 1)[0] == 0
    assert (tmp_path / "search" / "trials.csv").is_file() and not Path("~").exists()
