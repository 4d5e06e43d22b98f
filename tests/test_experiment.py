"""Whole runs: files, counters, matching, repetition, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REAL, needs_data, only_run, rows, timeless

from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.runs.columns import COLUMNS, REQUIRED
from lazyexp.runs.reader import read_rows

SETTINGS = ("epochs=2", "model.width=30", "eval_every=500")
ROOT = Path(__file__).resolve().parent.parent


def config(tmp_path, **changes) -> Config:
    settings = Config(epochs=2, eval_every=500, device="cpu", runs_dir=str(tmp_path / "runs"))
    settings.model.width = 30
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        setattr(getattr(settings, part) if part else settings, name, value)
    return check(settings)


def test_metrics_have_the_promised_columns(tmp_path):
    report = run(config(tmp_path))
    found = rows(report.folder / "metrics.csv")
    assert tuple(found[0]) == COLUMNS
    promised = (  # docs/csv.md has them all; these were there from the first version on, in this order
        "run_id,dataset,train_size,rule,width,depth,batch_size,lr,seed,device,epoch,samples_seen,forward_samples,"
        "backward_samples,updates,updates_possible,train_seconds,eval_seconds,train_loss,train_accuracy,"
        "val_accuracy,test_accuracy,energy_l0,energy_l1,energy_l0_min,energy_l1_min,distinct_learned,learning_rate"
    )
    assert ",".join(COLUMNS).startswith(promised) and set(promised.split(",")) | {"status"} == REQUIRED
    assert int(found[-1]["forgetting_events"]) == np.load(report.folder / "learned.npz")["forgotten"].sum()
    assert [int(row["samples_seen"]) for row in found] == [0, 500, 1000, 1500, 2000, 2500, 2874]
    assert found[-1]["epoch"] == "2.0" and found[0]["run_id"] == report.folder.name


@pytest.mark.slow
def test_a_summary_has_the_same_types_on_a_repeat(tmp_path):
    settings = config(tmp_path, targets=[0.5, 0.99], stop_at=0.9)
    first, again = run(settings).summary, run(settings).summary
    assert again == first and {name: type(value) for name, value in again.items()} == {
        name: type(value) for name, value in first.items()
    }
    assert type(again["test_accuracy"]) is float and type(again["updates"]) is int and again["energy"] is True


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fast", "autograd"])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_counters_of_backprop_by_hand(tmp_path, engine, batch_size):
    report = run(config(tmp_path, engine=engine, batch_size=batch_size, rule={"name": "backprop"}))
    updates = 2 * -(-1437 // batch_size)
    last = rows(report.folder / "metrics.csv")[-1]
    assert int(last["forward_samples"]) == int(last["backward_samples"]) == 2874
    assert int(last["updates"]) == int(last["updates_possible"]) == updates
    assert int(last["distinct_learned"]) == 1437


@pytest.mark.slow
def test_counters_of_lazy_agree_with_learned_npz(tmp_path):
    report = run(config(tmp_path, engine="autograd"))
    last = rows(report.folder / "metrics.csv")[-1]
    counts = np.load(report.folder / "learned.npz")
    assert (counts["presented"] == 2).all()
    assert np.array_equal(counts["misclassified"], counts["learned"])
    assert int(last["backward_samples"]) == int(last["updates"]) == counts["learned"].sum() > 0
    assert int(last["forward_samples"]) == 2874
    assert int(last["distinct_learned"]) == (counts["learned"] > 0).sum()
    wrong = sum(
        (1 - float(row["train_accuracy"])) * (int(row["samples_seen"]) - before)
        for row, before in zip(rows(report.folder / "metrics.csv")[1:], [0, 500, 1000, 1500, 2000, 2500], strict=True)
    )
    assert wrong == pytest.approx(counts["misclassified"].sum())


@pytest.mark.slow
def test_fast_and_autograd_engines_write_the_same(tmp_path):
    for batch_size in (1, 16):
        fast, general = (
            timeless(run(config(tmp_path, engine=engine, batch_size=batch_size)).folder / "metrics.csv")
            for engine in ("fast", "autograd")
        )
        for a, b in zip(fast, general, strict=True):
            for key in ("samples_seen", "backward_samples", "updates", "test_accuracy", "distinct_learned"):
                assert a[key] == b[key], key
            for key in ("train_loss", "energy_l1", "energy_l0") if a["epoch"] != "0.0" else ("test_loss",):
                assert float(a[key]) == pytest.approx(float(b[key]), rel=1e-3), key


def test_the_same_command_gives_the_same_rows(tmp_path):
    for rule in ("lazy", "random"):
        first = run(config(tmp_path / "a", rule={"name": rule}))
        second = run(config(tmp_path / "b", rule={"name": rule}))
        assert first.folder.name == second.folder.name
        for name in ("metrics.csv", "summary.csv"):
            assert timeless(first.folder / name) == timeless(second.folder / name)
        weights = [torch.load(report.folder / "model.pt") for report in (first, second)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
def test_rules_are_matched_in_weights_and_order(tmp_path, monkeypatch):
    """Whatever the rule, the run starts from the same weights and sees the same samples in the same order."""
    from lazyexp.training.trainer import Trainer

    seen: list[torch.Tensor] = []
    starts: list[list[torch.Tensor]] = []
    original_start, original_run = Trainer._start_epoch, Trainer.run

    def start(self):
        order = original_start(self)
        seen.append(order)
        return order

    def begin(self):
        starts.append([p.detach().clone() for p in self.model.parameters()])
        return original_run(self)

    monkeypatch.setattr(Trainer, "_start_epoch", start)
    monkeypatch.setattr(Trainer, "run", begin)
    for name in ("lazy", "backprop", "confidence", "random"):
        run(config(tmp_path, rule={"name": name}))
    assert len(seen) == 8 and len(starts) == 4
    for epochs in zip(seen[0::2], seen[1::2], strict=True):
        assert torch.equal(epochs[0], seen[0]) and torch.equal(epochs[1], seen[1])
        assert not torch.equal(epochs[0], epochs[1])
    for weights in starts:
        assert all(torch.equal(p, q) for p, q in zip(weights, starts[0], strict=True))


@pytest.mark.slow
def test_results_differ_by_seed(tmp_path):
    reports = [run(config(tmp_path, seed=seed)) for seed in (0, 1)]
    assert reports[0].folder != reports[1].folder
    assert reports[0].summary["train_loss"] != reports[1].summary["train_loss"]


@pytest.mark.slow
def test_everything_that_changes_a_result_changes_the_folder(tmp_path, toy_npz):
    names = {run(config(tmp_path, epochs=1)).folder.name}
    changes = [
        {"epochs": 2}, {"batch_size": 2}, {"eval_every": 400}, {"targets": [0.5]}, {"stop_at": 0.99},
        {"engine": "autograd"}, {"energy": False}, {"dataset__scale": "unit"}, {"dataset__train_size": 900},
        {"dataset__val_size": 10}, {"dataset__augment": "shift"}, {"model__width": 31}, {"model__depth": 2},
        {"model__activation": "tanh"}, {"model__init": "kaiming"}, {"optimizer__lr": 0.02},
        {"optimizer__momentum": 0.5}, {"optimizer__schedule": "cosine"}, {"optimizer__warmup": 0.1},
        {"optimizer__reduction": "selected"},
        {"rule": {"name": "confidence", "threshold": 0.7}}, {"rule": {"name": "confidence", "threshold": 0.8}},
        {"dataset__name": "folder", "dataset__path": str(toy_npz)},
    ]  # fmt: skip
    for change in changes:
        names.add(run(config(tmp_path, **{"epochs": 1, **change})).folder.name)
    assert len(names) == 1 + len(changes)
    same = {"checkpoint_every": 0.0, "overwrite": True}
    assert run(config(tmp_path, epochs=1, **same)).folder.name in names


@pytest.mark.slow
def test_a_finished_run_is_not_repeated(tmp_path):
    first = run(config(tmp_path))
    written = (first.folder / "metrics.csv").stat().st_mtime_ns
    again = run(config(tmp_path))
    assert again.repeated and again.status == "finished" and not first.repeated
    assert (first.folder / "metrics.csv").stat().st_mtime_ns == written
    fresh = run(config(tmp_path, overwrite=True))
    assert not fresh.repeated and (first.folder / "metrics.csv").stat().st_mtime_ns > written


@pytest.mark.slow
def test_a_checkpoint_left_beside_a_summary_goes(tmp_path):
    folder = run(config(tmp_path)).folder
    (folder / "checkpoint.pt").write_bytes(b"of a run that was killed after its summary")
    assert run(config(tmp_path)).repeated and not (folder / "checkpoint.pt").exists()


@pytest.mark.slow
def test_summary_notes_when_targets_were_reached(tmp_path):
    report = run(config(tmp_path, targets=[0.5, 0.9999], epochs=3))
    summary, metrics = rows(report.folder / "summary.csv")[0], rows(report.folder / "metrics.csv")
    crossing = next(row for row in metrics if float(row["test_accuracy"]) >= 0.5)
    names = ("seconds", "samples", "backward", "updates", "energy_l1")
    columns = ("train_seconds", "samples_seen", "backward_samples", "updates", "energy_l1")
    for name, column in zip(names, columns, strict=True):
        assert summary[f"{name}_to_0.5"] == crossing[column]
        assert summary[f"{name}_to_0.9999"] == ""
    assert float(summary["best_test_accuracy"]) == max(float(row["test_accuracy"]) for row in metrics)
    assert summary["status"] == "finished"


def test_stop_at_ends_the_run(tmp_path):
    report = run(config(tmp_path, epochs=20, stop_at=0.85))
    assert report.status == "stopped"
    assert float(report.summary["test_accuracy"]) >= 0.85 and int(report.summary["samples_seen"]) < 20 * 1437


def test_divergence_is_a_result(tmp_path):
    report = run(config(tmp_path, rule={"name": "backprop"}, optimizer__lr=1e30))
    assert report.status == "diverged"
    assert int(report.summary["samples_seen"]) <= 500
    assert run(config(tmp_path, rule={"name": "backprop"}, optimizer__lr=1e30)).repeated


def test_energy_off_leaves_its_columns_empty(tmp_path):
    summary = run(config(tmp_path, energy=False)).summary
    assert not any(summary[f"energy_{name}"] for name in ("l0", "l1", "l0_min", "l1_min"))


def test_validation_samples_are_scored(tmp_path):
    report = run(config(tmp_path, dataset__val_size=200))
    assert 0.5 < float(report.summary["val_accuracy"]) <= 1
    assert int(report.summary["train_size"]) == 1237


@pytest.mark.slow
def test_run_json_says_what_produced_the_numbers(tmp_path):
    facts = json.loads((run(config(tmp_path)).folder / "run.json").read_text())
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0] or facts["versions"]["torch"]
    assert facts["threads"] == torch.get_num_threads() and facts["device"]
    assert facts["data"]["counts"] == {"train": 1437, "test": 360, "used": 1437, "val": 0}
    assert len(facts["data"]["sha256"]) == 64 and facts["start"] <= facts["end"]
    assert facts["settings"]["model"]["width"] == 30


@pytest.mark.slow
def test_a_coreset_run_trains_on_what_another_learned_from(tmp_path):
    first = run(config(tmp_path))
    subset = run(config(tmp_path, dataset__subset=str(first.folder / "learned.npz")))
    assert int(subset.summary["train_size"]) == int(first.summary["distinct_learned"])
    matched = run(config(tmp_path, dataset__subset="matched", rule={"name": "backprop"}))
    chosen = run(config(tmp_path, dataset__subset="random", rule={"name": "backprop"}))
    assert matched.summary["train_size"] == chosen.summary["train_size"] == subset.summary["train_size"]
    used = [set(np.load(report.folder / "learned.npz")["index"].tolist()) for report in (subset, matched, chosen)]
    assert used[0] == used[1] != used[2]
    with pytest.raises(UserError, match="no finished run of rule=lazy"):
        run(config(tmp_path, seed=5, dataset__subset="matched"))
    with pytest.raises(UserError, match="rule=backprop"):
        run(config(tmp_path, dataset__subset="matched", dataset__subset_score="el2n"))
    scoring = run(config(tmp_path, rule={"name": "backprop"}))
    for score in ("el2n", "forgetting"):
        report = run(config(tmp_path, dataset__subset="matched", dataset__subset_score=score))
        assert report.summary["train_size"] == subset.summary["train_size"]
        chosen_by = json.loads((report.folder / "run.json").read_text())["subset_chosen_by"]
        assert chosen_by["run_id"] == f"{scoring.folder.name}+{first.folder.name}"
        for name in ("train_seconds", "forward_samples", "backward_samples"):
            both = scoring.summary[name] + first.summary[name]  # the run that scored, and the one that set the size
            assert chosen_by[name] == report.summary[f"scoring_{name}"] == pytest.approx(both)
    sized = run(config(tmp_path, dataset__subset="matched", dataset__subset_score="el2n", dataset__subset_size=9))
    assert sized.summary["scoring_backward_samples"] == scoring.summary["backward_samples"]
    assert matched.summary["scoring_forward_samples"] == first.summary["forward_samples"]
    assert first.summary["scoring_forward_samples"] is None


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules(tmp_path, schedule):
    rates = [
        float(row["learning_rate"])
        for row in rows(run(config(tmp_path, optimizer__schedule=schedule)).folder / "metrics.csv")[1:]
    ]
    if schedule == "constant":
        assert set(rates) == {0.01}
    else:
        assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-5
        assert rates[2] == pytest.approx(0.005, rel=0.1)


def test_torn_last_lines_are_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("a,b\n1,2\n3,")
    assert read_rows(path) == [{"a": 1, "b": 2}]


def lazyexp(*arguments: str, cwd: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lazyexp", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


LONG = (
    "epochs=5",
    "model.width=50",
    "eval_every=300",
    "engine=autograd",
    "checkpoint_every=0",
    "device=cpu",
)


def wait_for_rows(folder: Path, n: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if any(len(read_rows(path)) >= n for path in folder.rglob("metrics.csv")):
            return
        time.sleep(0.05)
    raise AssertionError("no rows came")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of `LONG` that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    lazyexp(*LONG, cwd=folder).communicate(timeout=120)
    return only_run(folder / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("kill, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_an_interrupted_run_continues_to_the_same_end(tmp_path, whole, kill, code):
    process = lazyexp(*LONG, "runs_dir=broken", cwd=tmp_path)
    wait_for_rows(tmp_path / "broken", 3)
    process.send_signal(kill)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    if kill != signal.SIGKILL:
        assert "the same command continues it" in out
        (summary,) = rows(only_run(tmp_path / "broken") / "summary.csv")
        assert summary["status"] == "interrupted"
    before = sum(len(read_rows(path)) for path in (tmp_path / "broken").rglob("metrics.csv"))
    assert before >= 3
    process = lazyexp(*LONG, "runs_dir=broken", cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    one, other = only_run(tmp_path / "broken"), whole
    for name in ("metrics.csv", "summary.csv"):
        assert timeless(one / name) == timeless(other / name)
    weights, expected = torch.load(one / "model.pt"), torch.load(other / "model.pt")
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert len(json.loads((one / "run.json").read_text())["sessions"]) == 2


@pytest.mark.slow
def test_a_run_without_end_shows_a_sign_of_life_and_can_be_stopped(tmp_path):
    process = lazyexp("epochs=1000000000", "dataset.train_size=50", "model.width=4", cwd=tmp_path)
    assert "training accuracy (running)" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command continues it" in out, err


@pytest.mark.slow
def test_two_processes_on_one_run(tmp_path):
    longer = (*LONG, "epochs=16")
    first = lazyexp(*longer, cwd=tmp_path)
    wait_for_rows(tmp_path / "runs", 1)
    second = lazyexp(*longer, cwd=tmp_path)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1 and "another process is working on" in err
    first.communicate(timeout=120)
    assert first.returncode == 0


PUBLISHED = {  # the settings of the group's public code
    "dataset__name": "mnist", "dataset__scale": "unit", "model__width": 100, "model__init": "lecun_normal",
    "optimizer__lr": 0.01, "eval_every": 5000, "epochs": 1,
}  # fmt: skip


@pytest.mark.slow
@needs_data
def test_settings_of_the_published_code_on_mnist(tmp_path):
    report = run(config(tmp_path, data_dir=str(REAL), dataset__train_size=20000, **PUBLISHED))
    assert [int(row["samples_seen"]) for row in rows(report.folder / "metrics.csv")] == [
        0,
        5000,
        10000,
        15000,
        20000,
    ]
    assert float(report.summary["test_accuracy"]) > 0.9
