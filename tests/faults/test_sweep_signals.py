"""Parallel sweeps: asked to stop, with a killed worker, with a killed parent; Ctrl-C while a command starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lazyexp.sweeps import multirun
from lazyexp.utils import workers

SEEDS = 4
SWEEP = f"""{sys.executable} -m lazyexp -m seed=range(0,{SEEDS}) hydra/launcher=joblib hydra.launcher.n_jobs=2
epochs=25 model.width=64 batch_size=8 eval_every=10000 checkpoint_every=0.2 rule=backprop engine=autograd
device=cpu energy=false""".split()


def start(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(SWEEP, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)


def wait_for(condition, seconds: float = 90.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"nothing happened within {seconds} s")


def begun(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("runs/*/run.json")}


def done(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("runs/*/summary.csv") if ",finished," in path.read_text()}


def living_processes(session: int) -> dict[int, str]:
    """Command lines of the living processes of a session, by process id."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == session and state != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError, IndexError):
            continue
    return found


@pytest.fixture
def sweep(tmp_path):
    process = start(tmp_path)
    try:
        wait_for(lambda: len(begun(tmp_path)) >= 2 and list(tmp_path.glob("runs/*/checkpoint.pt")))
        yield process
    finally:
        for number in living_processes(process.pid):
            os.kill(number, signal.SIGKILL)
        process.wait()


def finish(folder: Path) -> None:
    """Check that the same command completes the sweep."""
    answer = subprocess.run(SWEEP, cwd=folder, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0 and f"{SEEDS} of {SEEDS} runs done" in answer.stdout, answer.stderr
    assert len(done(folder)) == SEEDS


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("number, group", [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_sweep_that_is_asked_to_stop_starts_no_more_runs(sweep, tmp_path, number, group):
    before = begun(tmp_path)
    (os.killpg if group else os.kill)(sweep.pid, number)
    assert sweep.wait(timeout=60) == 128 + number, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert f"of {SEEDS} runs done" in log and "Traceback" not in log
    assert len(begun(tmp_path) - before) <= 2  # a run may have ended, and the next one started, in the meantime
    wait_for(lambda: not any("loky.backend.popen" in words for words in living_processes(sweep.pid).values()), 20)
    if not group and number == signal.SIGTERM:
        finish(tmp_path)


@pytest.mark.slow
@needs_proc
def test_workers_do_not_outlive_their_parent(sweep, tmp_path):
    before = begun(tmp_path)
    sweep.kill()
    wait_for(lambda: not any("popen_loky" in words for words in living_processes(sweep.pid).values()), 30)
    assert len(begun(tmp_path) - before) <= 2 and len(done(tmp_path)) < SEEDS
    assert list(tmp_path.glob("runs/*/checkpoint.pt"))  # runs in progress were saved


@pytest.mark.slow
@needs_proc
def test_workers_without_a_run_do_not_outlive_their_parent(tmp_path):
    process = start(tmp_path)
    try:
        wait_for(lambda: any("popen_loky" in words for words in living_processes(process.pid).values()))
        process.kill()
        process.wait()
        wait_for(lambda: not any("popen_loky" in words for words in living_processes(process.pid).values()), 60)
    finally:
        for number in living_processes(process.pid):
            os.kill(number, signal.SIGKILL)


@pytest.mark.slow
@needs_proc
def test_a_killed_worker_does_not_hide_finished_runs(sweep, tmp_path):
    finished = wait_for(lambda: len(done(tmp_path)) >= 2 and done(tmp_path))
    victims = [number for number, words in living_processes(sweep.pid).items() if "popen_loky" in words]
    os.kill(victims[0], signal.SIGKILL)
    assert sweep.wait(timeout=60) == 1
    log = (tmp_path / "log").read_text()
    reported = int(log.rpartition(f" of {SEEDS} runs done")[0].split()[-1])
    assert len(finished) <= reported <= len(done(tmp_path)) < SEEDS, log


def starting(traceback: str) -> bool:
    """Whether Python itself was starting, or importing the module that sets the handler of Ctrl-C."""
    frames = re.findall(r'/lazyexp/\S+", line \d+, in (.*)\n\s+(.*)', traceback)
    return all(
        where == "<module>" and re.fullmatch(r"import (os|signal|sys)|from importlib import import_module", line)
        for where, line in frames
    )


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("pause", [0.05, 0.1, 0.2, 0.3, 0.41, 0.47, 0.52, 0.6, 1.0])
def test_ctrl_c_while_starting_shows_no_traceback(tmp_path, pause):
    process = subprocess.Popen(
        [sys.executable, "-m", "lazyexp", "epochs=1"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: b"lazyexp" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
    time.sleep(0.05 + pause)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT, 0)
    assert "Traceback" not in err or starting(err), err


# Sends Ctrl-C to itself when a module is imported, when a function is called, or at the end.
INTERRUPTED = """
import atexit, os, signal, sys

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[0]:
            interrupt()

kind, sys.argv = sys.argv[1], sys.argv[2:]
sys.meta_path.insert(0, Finder())
if kind == "call":
    import importlib
    module, function = sys.argv[0].rsplit(".", 1)
    setattr(importlib.import_module(module), function, lambda *_, **__: interrupt())
if kind == "exit":
    atexit.register(interrupt)
from lazyexp.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, where",
    [
        ("import", "hydra"),
        ("import", "omegaconf"),
        ("import", "torch"),
        ("import", "torch.nn"),
        ("import", "numpy"),
        ("import", "lazyexp.experiment"),
        ("call", "lazyexp.cli.register"),
        ("call", "lazyexp.settings.checked"),
        ("call", "lazyexp.building.load_data"),
        ("call", "lazyexp.building.make_engine"),
        ("exit", "-"),
    ],
)
def test_ctrl_c_at_a_certain_step_shows_no_traceback(tmp_path, kind, where):
    command = [sys.executable, "-c", INTERRUPTED, kind, where, "epochs=1", "model.width=4", "device=cpu"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert answer.returncode == 130 and not answer.stderr, answer.stderr
    assert (kind == "exit") == ("test accuracy" in answer.stdout)


def test_the_request_to_stop_and_the_results(tmp_path):
    with workers.SweepFolder() as folder:
        assert not workers.asked_to_stop() and not workers.parent_is_gone()
        workers.note({"title": "one", "error": "", "code": 0})
        workers.note({"title": "two", "error": "no", "code": 2})
        assert [result["title"] for result in folder.results()] == ["one", "two"]
        os.kill(os.getpid(), signal.SIGTERM)
        assert folder.signal == signal.SIGTERM and workers.asked_to_stop()
        assert not multirun.task({}).started
    assert not workers.asked_to_stop() and not folder.path.exists()
    workers.note({"title": "alone", "error": "", "code": 0})


def test_a_parent_that_has_ended(monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setenv(workers.FOLDER, "/nowhere")
    monkeypatch.setenv(workers.PARENT, str(gone.pid))
    assert workers.parent_is_gone() and workers.asked_to_stop()
    monkeypatch.setenv(workers.PARENT, str(os.getppid()))
    assert not workers.asked_to_stop()
