"""Sweeps: titles and tallies of their runs, notes, and what a command would do."""

from __future__ import annotations

import pytest

from lazyexp.config.sweeps import varied_keys
from lazyexp.sweeps.multirun import RunEnd, tally
from lazyexp.utils import workers

SMALL = ("model.width=8", "epochs=1", "dataset.train_size=100", "device=cpu")


def test_a_run_is_named_by_the_keys_that_vary():
    jobs = [["rule=lazy", "epochs=2", "seed=0"], ["rule=lazy", "epochs=2", "seed=1"], ["rule=random", "epochs=2"]]
    assert varied_keys(jobs) == ["rule", "seed"] and varied_keys(jobs[:1]) == []


def test_the_tally_counts_every_run_once():
    ends = [
        RunEnd("a", status="finished"),
        RunEnd("b", status="diverged"),
        RunEnd("c", "no memory", 2),
        RunEnd("d", "by signal 2", 130),
    ]
    text = "2 of 6 runs done (1 diverged), 1 failed, 1 interrupted, 2 not started or lost; the same command continues"
    assert tally(ends, 6) == text
    assert tally(ends[:1], 1) == "1 of 1 runs done"


def test_a_note_is_shown_once_per_sweep():
    workers.forget_notes()
    assert workers.first_in_sweep("a") and not workers.first_in_sweep("a") and workers.first_in_sweep("b")
    with workers.SweepFolder():  # another process of the sweep
        workers.forget_notes()
        assert workers.first_in_sweep("a")
        workers.forget_notes()
        assert not workers.first_in_sweep("a")
    workers.forget_notes()


def test_a_named_sweep_needs_the_flag(call):
    answer = call("sweep=headline")
    assert answer.code == 2
    assert answer.err == (
        "lazyexp: error: sweep=headline: is a sweep of several runs; use lazyexp -m (in Python: lazyexp.sweep)\n"
    )


def test_the_version_is_that_of_the_program(call):
    from lazyexp import __version__

    assert call("--version").out == f"lazyexp {__version__}\n"


@pytest.mark.slow
def test_a_dry_run_lists_what_is_finished_and_how_long_the_rest_takes(call, tmp_path, monkeypatch):
    from lazyexp.training import pace

    monkeypatch.setattr(pace, "LIMIT", 0.05)
    answer = call(*SMALL, "--dry-run")
    assert answer.code == 0 and "[1/1] digits lazy seed 0: to do, up to 0:0" in answer.out
    assert not (tmp_path / "runs").exists()
    assert call(*SMALL).code == 0
    lines = call("-m", *SMALL, "seed=0,1", "rule=lazy,backprop", "--dry-run").out.splitlines()
    assert lines[0].startswith("[1/4] seed=0, rule=lazy: finished, test accuracy")
    assert lines[1].startswith("[2/4] seed=0, rule=backprop: to do, up to 0:0")
    assert lines[2].startswith("[3/4] seed=1, rule=lazy: to do, about 0:0")  # as long as the finished one
    assert lines[4].startswith("4 runs: 1 finished, 3 to do, up to 0:0")


@pytest.mark.slow
def test_a_dry_run_downloads_nothing(call):
    answer = call("-m", "dataset=mnist", "seed=0,1", "--dry-run")
    assert answer.code == 0 and answer.out.count("mnist has not been downloaded") == 2


def test_a_dry_run_names_errors_of_single_runs(call):
    assert "error: batch_size=500: larger than the training set" in call(*SMALL, "batch_size=500", "--dry-run").out


@pytest.mark.parametrize("words", [["sweep=headline", "--dry-run"], ["--dry-run", "epochs=0"]])
def test_errors_of_a_dry_run_are_one_line(call, words):
    answer = call(*words)
    assert answer.code == 2 and answer.err.startswith("lazyexp: error: ") and answer.err.count("\n") == 1


def test_a_network_with_batch_normalisation_at_batch_size_1_is_warned_about():
    from torch import nn

    from lazyexp.models.checks import single_sample_warning

    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert "batch_size=128" in str(single_sample_warning(network, 1, "model=torchvision"))
    assert single_sample_warning(network, 2, "x") is None and single_sample_warning(network[0], 1, "x") is None


@pytest.mark.slow
def test_the_traceback_of_custom_code_is_shown_on_demand(call, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("def net(shape, classes):\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ("model._target_=broken.net", "epochs=1")
    answer = call(*words)
    assert (
        answer.code == 2 and answer.err.count("\n") == 1 and "LAZYEXP_TRACEBACK=1 shows the traceback" in answer.err
    )
    monkeypatch.setenv("LAZYEXP_TRACEBACK", "1")
    assert "Traceback (most recent call last)" in call(*words).err


@pytest.mark.slow
def test_a_sweep_warns_once_before_training_and_reports_on_its_runs_alone(call, monkeypatch):
    """Into a folder of the report's own; an error of the report does not fail the sweep."""
    from lazyexp import experiment
    from lazyexp.report import build

    asked = []
    monkeypatch.setattr(build, "make_report", lambda folders, out: asked.append((folders, out)) or 1 / 0)
    monkeypatch.setattr(experiment, "single_sample_warning", lambda *_: "warning: has batch normalisation")
    assert call(*SMALL, "seed=9").code == 0
    answer = call("-m", *SMALL, "seed=0,1", report=True)
    assert answer.code == 0 and "no report" in answer.err and answer.err.count("has batch normalisation") == 1
    ((folders, out),) = asked
    assert len(folders) == 2 and all(folder.is_dir() and "seed9" not in folder.name for folder in folders)
    assert out.as_posix() == "runs/report"


def test_an_error_of_the_file_system_names_the_file(call, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "runs/metrics.csv")

    monkeypatch.setattr("lazyexp.experiment.run", fail)
    answer = call(*SMALL)
    assert (answer.code, answer.err) == (2, "lazyexp: error: runs/metrics.csv: No space left on device\n")


@pytest.mark.slow
def test_what_is_replaced_in_hydra_is_restored(call):
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    before = BasicSweeper.validate_batch_is_legal
    assert call("-m", *SMALL, "seed=0,1", "--dry-run").code == 0
    assert BasicSweeper.validate_batch_is_legal is before
