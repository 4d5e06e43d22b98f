"""Power cuts, damaged and replaced results, suspended processes, signals."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import rows, timeless

from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.data.raw import Raw
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.runs import provenance
from lazyexp.runs.folder import REPLACEMENT, RunFolder
from lazyexp.runs.provenance import changes
from lazyexp.runs.recorder import Recorder
from lazyexp.runs.tables import CHECKED
from lazyexp.training.clock import Clock
from lazyexp.training.schedules import SCHEDULES
from lazyexp.utils import signals
from lazyexp.utils.signals import Interruption

ROOT = Path(__file__).resolve().parents[2]


def settings(folder: Path, **keys) -> Config:
    config = Config(epochs=3, eval_every=200, batch_size=8, device="cpu", checkpoint_every=0, runs_dir=str(folder))
    config.model.width, config.dataset.train_size = 10, 400
    for key, value in keys.items():
        setattr(config, key, value)
    return check(config)


def stop_after(chunks: int):
    """Return a `Recorder.stop` that stops a run after a number of chunks."""
    calls = 0

    def stop(self):
        nonlocal calls
        calls += 1
        return calls == chunks

    return stop


def assert_same(one: Path, other: Path) -> None:
    for name in ("metrics.csv", "summary.csv"):
        assert timeless(one / name) == timeless(other / name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of a finished run, and of the same run cut off with two checkpoints. Tests work on copies."""
    torch.set_num_threads(1)  # as in tests; the fixture for that comes later
    top = tmp_path_factory.mktemp("runs")
    finished = run(settings(top / "finished")).folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "stop", stop_after(5))
        cut = run(settings(top / "cut")).folder
    assert (cut / "checkpoint.pt").exists() and (cut / "checkpoint.previous.pt").exists()
    (cut / "summary.csv").unlink()  # written by the interruption; a power cut leaves none
    return finished, cut


@pytest.fixture
def finished(runs, tmp_path):
    """A copy of the finished run in tmp_path."""
    return Path(shutil.copytree(runs[0], tmp_path / runs[0].name))


@pytest.fixture
def cut(runs, tmp_path):
    """A copy of the run that was cut off, in tmp_path/cut, and the finished run."""
    return Path(shutil.copytree(runs[1], tmp_path / "cut" / runs[1].name)), runs[0]


@pytest.mark.parametrize("length", [0, 100])
def test_a_damaged_checkpoint_falls_back_to_the_previous_one(cut, tmp_path, length, capsys):
    folder, whole = cut
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:length])
    assert run(settings(tmp_path / "cut")).status == "finished"
    assert "continuing from checkpoint.previous.pt" in capsys.readouterr().err
    assert_same(folder, whole)


def test_rows_lost_before_the_newest_checkpoint_fall_back_to_the_previous_one(cut, tmp_path):
    folder, whole = cut
    lines = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    state = torch.load(folder / "checkpoint.previous.pt", weights_only=True)
    (folder / "metrics.csv").write_text("".join(lines[: 1 + state["progress"]["rows"]]))
    assert run(settings(tmp_path / "cut")).status == "finished"
    assert_same(folder, whole)


def test_a_kill_between_the_two_checkpoints_loses_nothing(cut, tmp_path):
    folder, whole = cut
    os.replace(folder / "checkpoint.pt", folder / "checkpoint.previous.pt")
    assert run(settings(tmp_path / "cut")).status == "finished"
    assert_same(folder, whole)


def test_rows_are_on_disk_before_the_checkpoint_and_the_summary(tmp_path, monkeypatch):
    """The order of fsync calls: a checkpoint or a summary is never on disk without its rows."""
    events = []
    fsync, replace = os.fsync, os.replace
    names = lambda number: Path(os.readlink(f"/proc/self/fd/{number}")).name  # noqa: E731
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to find files by their descriptors")
    monkeypatch.setattr(os, "fsync", lambda number: (events.append(("sync", names(number))), fsync(number))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("put", Path(b).name)), replace(a, b))[1])
    folder = run(settings(tmp_path)).folder
    for name in ("checkpoint.pt", "summary.csv"):
        for position in [i for i, event in enumerate(events) if event == ("put", name)]:
            written = max(i for i, event in enumerate(events[:position]) if event[1] == f".{name}.{os.getpid()}.tmp")
            assert ("sync", "metrics.csv") in events[max(written - 3, 0) : written]
            assert events[position + 1] == ("sync", folder.name)  # the new name itself


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("damage", ["short", "empty", "gone", "changed"])
def test_a_finished_run_is_checked(finished, tmp_path, name, damage):
    path = finished / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"short": content[:-1], "empty": b"", "changed": content[:-2] + b"7\n"}[damage])
    with pytest.raises(UserError, match=f"{name} does not match its checksum in summary.csv; overwrite=true"):
        run(settings(tmp_path))


def test_overwrite_repeats_a_damaged_result(finished, tmp_path):
    (finished / "model.pt").unlink()
    again = run(settings(tmp_path, overwrite=True))
    assert again.status == "finished" and not again.repeated
    assert run(settings(tmp_path)).repeated


@pytest.mark.slow
def test_a_replacement_that_was_complete_at_a_kill_is_used(finished, tmp_path, monkeypatch):
    def killed(self):
        if (self.path / REPLACEMENT / "summary.csv").exists():
            raise KeyboardInterrupt
        return False

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            run(settings(tmp_path, overwrite=True))
    made = (finished / REPLACEMENT / "summary.csv").read_bytes()
    again = run(settings(tmp_path, overwrite=True))
    assert again.repeated and (finished / "summary.csv").read_bytes() == made
    assert not run(settings(tmp_path, overwrite=True)).repeated  # asked for again


def test_overwrite_keeps_the_former_result_until_the_new_one_is_complete(finished, tmp_path, monkeypatch):
    former = {name: (finished / name).read_bytes() for name in (*CHECKED, "summary.csv")}
    monkeypatch.setattr(Recorder, "stop", stop_after(3))
    assert run(settings(tmp_path, overwrite=True)).status == "interrupted"
    assert all((finished / name).read_bytes() == content for name, content in former.items())
    assert run(settings(tmp_path)).repeated
    seen = []
    progress = Recorder.progress
    monkeypatch.setattr(Recorder, "progress", lambda self, *counts: (seen.append(counts[0]), progress(self, *counts)))
    assert run(settings(tmp_path, overwrite=True)).status == "finished"
    assert sum(seen) < 3 * 400  # resumed, not started again
    assert not (finished / REPLACEMENT).exists()
    assert (finished / "metrics.csv").read_bytes() != former["metrics.csv"]  # other seconds
    assert run(settings(tmp_path)).repeated


@pytest.mark.parametrize("moved", range(7))
def test_a_kill_while_the_new_result_replaces_the_former_one(finished, tmp_path, moved, monkeypatch):
    folder = finished
    replace, count = os.replace, 0

    def die(source, target):
        nonlocal count
        if ".replacement" in str(source) and Path(target).parent == folder:
            count += 1
            if count > moved:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        if moved < 6:
            with pytest.raises(KeyboardInterrupt):
                run(settings(tmp_path, overwrite=True))
        else:
            run(settings(tmp_path, overwrite=True))
    assert run(settings(tmp_path)).repeated and not (folder / ".replacement").exists()


def test_the_fingerprint_of_data_depends_on_the_shape():
    labels = torch.arange(60) % 4
    pixels = torch.arange(60 * 36).remainder(251).to(torch.uint8)

    def fingerprint(*shape: int) -> str:
        return Raw(pixels.view(60, 1, *shape), labels, pixels.view(60, 1, *shape), labels, 4, {}).sha256()

    assert fingerprint(4, 9) == fingerprint(4, 9)
    assert len({fingerprint(4, 9), fingerprint(6, 6), fingerprint(9, 4)}) == 3


def test_a_result_of_another_version_is_reported(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lazyexp.experiment.__version__", "9.9")
    assert run(settings(tmp_path)).repeated
    assert "was made by lazyexp" in capsys.readouterr().err


def test_changes_between_sessions():
    now = {"device": "this", "threads": 2, "git_commit": "b", "versions": {"lazyexp": "1", "torch": "2.7"}}
    before = {"device": "this", "threads": 1, "git_commit": None, "versions": {"lazyexp": "1", "torch": "2.6"}}
    assert changes(before, now) == ["threads was 1, is now 2", "torch was 2.6, is now 2.7"]
    assert changes(now, now) == []


def test_a_run_resumed_elsewhere_reports_it_and_records_both_sessions(cut, tmp_path, monkeypatch, capsys):
    folder, _ = cut
    session = provenance.session

    def elsewhere(device):
        here = session(device)
        return {**here, "threads": 7, "versions": {**here["versions"], "torch": "9.9"}}

    monkeypatch.setattr("lazyexp.runs.recorder.session", elsewhere)
    assert run(settings(tmp_path / "cut")).status == "finished"
    messages = capsys.readouterr().err
    assert "threads was 1, is now 7" in messages
    assert ", is now 9.9; the seconds of this run are the sum over both" in messages
    sessions = json.loads((folder / "run.json").read_text())["sessions"]
    assert [one["threads"] for one in sessions] == [1, 7]
    assert torch.__version__.startswith(sessions[0]["versions"]["torch"])
    assert all({"start", "end", "command", "device", "git_commit"} <= set(one) for one in sessions)


@pytest.mark.parametrize(
    "damaged", ["[]", "{}", "3", "{", "", '{"sessions": 3}', '{"sessions": [3]}', '{"sessions": [{}]}']
)
def test_a_damaged_run_json_does_not_prevent_resuming(cut, tmp_path, damaged):
    folder, whole = cut
    (folder / "run.json").write_text(damaged)
    assert run(settings(tmp_path / "cut")).status == "finished"
    assert_same(folder, whole)


@pytest.mark.parametrize("damaged", ["[]", "{", '{"versions": 3}', '{"versions": []}'])
def test_a_damaged_run_json_does_not_hide_a_finished_run(finished, tmp_path, damaged, capsys):
    (finished / "run.json").write_text(damaged)
    assert run(settings(tmp_path)).repeated
    assert "was made by lazyexp None" in capsys.readouterr().err


def test_the_names_of_new_folders_are_forced_to_disk(tmp_path, monkeypatch):
    """Otherwise a finished run could vanish in a power cut. Where names cannot be forced, the run continues."""
    forced, fsync = [], os.fsync

    def recording(number):
        path = Path(f"/proc/self/fd/{number}").resolve()
        forced.append(path)
        if path.is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(number)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to find files by their descriptors")
    monkeypatch.setattr(os, "fsync", recording)
    folder = run(settings(tmp_path / "a" / "b")).folder
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b", folder} <= set(forced)


@pytest.fixture
def pass_time(monkeypatch):
    """`pass_time(wall, busy)` lets so many seconds pass, in which the process works for `busy` of them."""
    now = {"perf_counter": 100.0, "thread_time": 10.0}
    for name in now:
        monkeypatch.setattr(time, name, lambda name=name: now[name])

    def advance(wall: float, busy: float) -> None:
        now["perf_counter"] += wall
        now["thread_time"] += busy

    return advance


def test_time_in_which_the_process_was_suspended_is_not_training_time(pass_time):
    """A suspended process uses no processor time: idle seconds before SIGCONT do not count."""
    clock = Clock(torch.device("cpu"))
    with clock:
        pass_time(2, 2)
        with clock.off():
            pass_time(3, 3)
        pass_time(1, 1)
        pass_time(60, 0)  # suspended
        clock.continued()
        pass_time(1, 1)
    assert clock.seconds == 4 and clock.suspended == 60
    with clock:
        pass_time(5, 0)  # without SIGCONT, waiting counts
    assert clock.seconds == 9 and clock.suspended == 60


def test_suspension_while_the_clock_is_off_is_not_subtracted(pass_time):
    """A suspension while the clock is off, or is not running, takes nothing from the seconds before and after."""
    clock = Clock(torch.device("cpu"))
    with clock:
        pass_time(1, 0)
        with clock.off():
            pass_time(60, 0)
            clock.continued()
        pass_time(1, 0)
    assert clock.seconds == 2 and clock.suspended == 0
    clock.continued()
    with clock:
        pass_time(1, 0)
    assert clock.seconds == 3 and clock.suspended == 0


def test_off_outside_of_the_clock_changes_nothing(pass_time):
    clock = Clock(torch.device("cpu"))
    with clock.off():
        pass_time(1, 1)
    assert clock.seconds == 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_a_run_suspended_and_continued(tmp_path):
    command = [sys.executable, "-m", "lazyexp", "epochs=60", "model.width=300", "eval_every=20000", "device=cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command += ["rule=backprop", "optimizer.lr=0.001", "checkpoint_every=0"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    # While a row or a checkpoint is saved, the clocks are off.
    while not list(tmp_path.glob("runs/*/checkpoint.pt")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    start = time.monotonic()
    assert process.wait(300) == 0
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/run.json"))
    session = json.loads((folder / "run.json").read_text())["sessions"][-1]
    assert session["suspended_seconds"] > 3, (session, time.monotonic() - start)


class Quit(Exception): ...


@pytest.mark.parametrize("name", Interruption.SIGNALS)
def test_the_first_signal_is_noted_and_the_second_quits(name, monkeypatch, capsys):
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    number = getattr(signal, name)

    def leave(code):
        raise Quit(code)

    monkeypatch.setattr(signals.os, "_exit", leave)
    with Interruption() as interruption:
        signal.raise_signal(number)
        assert interruption.signal == number
        with pytest.raises(Quit, match=str(128 + number)):
            signal.raise_signal(number)


@pytest.mark.slow
def test_a_signal_while_a_run_is_saved_ends_the_sweep(call, tmp_path, monkeypatch):
    finish = Recorder.finish

    def interrupted(self, trainer, status):
        signal.raise_signal(signal.SIGINT)
        return finish(self, trainer, status)

    monkeypatch.setattr(Recorder, "finish", interrupted)
    answer = call("-m", "dataset.train_size=100", "epochs=1", "model.width=4", "device=cpu", "seed=0,1")
    assert answer.code == 130
    (summary,) = tmp_path.glob("runs/*/summary.csv")
    assert rows(summary)[0]["status"] == "finished"


def test_onecycle_matches_torch():
    """Within the two steps by which torch's end points, in steps, can differ from ours, in shares of the run."""
    steps = 1000
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, cycle_momentum=False)
    for step in range(steps):
        near = [SCHEDULES["onecycle"](min(max((step + d) / steps, 0), 1)) for d in (-2, 0, 2)]
        rate = optimizer.param_groups[0]["lr"]
        assert min(near) - 1e-6 <= rate <= max(near) + 1e-4, step
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    assert math.isclose(SCHEDULES["onecycle"](0.0), 1 / 25) and SCHEDULES["onecycle"](0.3) == 1


@pytest.mark.slow
def test_the_learning_rate_rises_over_the_warm_up(tmp_path):
    config = settings(tmp_path, epochs=2, eval_every=8)
    config = replace(config, optimizer=replace(config.optimizer, lr=0.1, warmup=0.25))
    rates = [float(row["learning_rate"]) for row in rows(run(check(config)).folder / "metrics.csv")[1:]]
    assert rates[:2] == pytest.approx([0.1 / 25, 0.2 / 25])  # 100 updates, the first 25 of them warm up
    assert rates[24] == pytest.approx(0.1) == max(rates) and rates[25] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.1 / 75)  # then linear to zero


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"rule": {"name": "lazy", "max_interval": 4}}, {"block_size": 64}])
def test_a_matched_subset_is_that_of_plain_lazy(tmp_path, options):
    other = settings(tmp_path, rule=options.get("rule", {"name": "lazy"}))
    other = run(replace(other, packing=replace(other.packing, block_size=options.get("block_size", 0))))
    assert other.status == "finished"
    matched = settings(tmp_path, rule={"name": "backprop"})
    matched = replace(matched, dataset=replace(matched.dataset, subset="matched"))
    with pytest.raises(UserError, match="no finished run of rule=lazy"):
        run(matched)
    for damaged in ("[]", "{}", '{"settings": {}}', '{"settings": 3}', "{"):
        (other.folder / "run.json").write_text(damaged)
        with pytest.raises(UserError, match="no finished run of rule=lazy"):
            run(matched)
    run(settings(tmp_path, rule={"name": "lazy"}))
    assert run(matched).status == "finished"


def test_a_run_that_was_stopped_before_its_first_row_is_resumed(tmp_path, monkeypatch):
    made = settings(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("lazyexp.runs.recorder.Recorder.stop", lambda self: True)
        patch.setattr("lazyexp.training.schedules.CHUNK", 64)
        assert run(made).status == "interrupted"
    report = run(made)
    assert report.status == "finished" and not report.repeated
