"""Parallel sweeps: on this machine, and on a real SLURM of one node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import timeless

from lazyexp.config import sweeps

SLURM = Path(__file__).resolve().parent / "slurm_local.sh"
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel")
SBIN = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
needs_slurm = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(tool, path=SBIN) for tool in TOOLS),
    reason="needs root and SLURM: apt-get install slurm-wlm munge",
)
# The launcher's settings, not those of the tests, decide on threads.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
SWEEP = ["-m", "rule=lazy,backprop", "seed=0,1", "epochs=2", "eval_every=700", "model.width=20", "device=cpu"]

pytestmark = pytest.mark.slow


def lazyexp(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lazyexp", *arguments, "runs_dir=runs"],
        cwd=folder, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip


def by_run(folder):
    """The rows of every run below `folder`, without times."""
    return {path.parent.name: timeless(path) for path in folder.glob("runs/*/metrics.csv")}


@pytest.fixture
def alone(tmp_path):
    """The sweep, one run at a time."""
    (tmp_path / "alone").mkdir()
    answer = lazyexp(tmp_path / "alone", *SWEEP, OMP_NUM_THREADS="1")
    assert answer.returncode == 0, answer.stderr
    return tmp_path / "alone"


def test_joblib_runs_in_parallel_with_one_thread_each(tmp_path, alone):
    answer = lazyexp(tmp_path, *SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert answer.returncode == 0, answer.stderr
    assert "4 of 4 runs done" in answer.stdout
    assert "not comparable" in answer.stderr and "deprecated" not in answer.stderr
    assert by_run(tmp_path) == by_run(alone) and len(by_run(alone)) == 4
    for run in (tmp_path / "runs").glob("*/run.json"):
        facts = json.loads(run.read_text())
        assert facts["concurrent"] is True and facts["threads"] == 1
    for run in (alone / "runs").glob("*/run.json"):
        assert json.loads(run.read_text())["concurrent"] is False
    assert "shared their machine with other runs" in (tmp_path / "runs" / "report" / "report.md").read_text()
    assert "shared their machine with other runs" not in (alone / "runs" / "report" / "report.md").read_text()


def test_a_failing_run_among_several(tmp_path):
    arguments = [
        "dataset.train_size=1000,50",
        "batch_size=100",
        "epochs=1",
        "model.width=10",
        "hydra/launcher=joblib",
    ]
    answer = lazyexp(tmp_path, "-m", *arguments)
    assert answer.returncode == 1 and "1 of 2 runs done" in answer.stdout
    assert "failed: dataset.train_size=50: batch_size=100: larger than the training set" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("launcher, extra", [("joblib", "parallel"), ("submitit_slurm", "slurm")])
def test_a_missing_launcher_is_named_with_its_extra(call, monkeypatch, launcher, extra):
    def not_there(module):
        raise ModuleNotFoundError(module)

    monkeypatch.setattr(sweeps, "find_spec", not_there)
    answer = call("-m", "seed=0,1", f"hydra/launcher={launcher}")
    assert answer.code == 2 and f'pip install "lazyexp[{extra}]"' in answer.err
    assert len(answer.err.strip().splitlines()) == 1


@pytest.fixture
def slurm():
    """A running SLURM; the name of its settings file."""
    folder = tempfile.mkdtemp(prefix="slurm", dir="/tmp")  # short: it holds a socket
    started = subprocess.run([SLURM, "start", folder], capture_output=True, text=True, timeout=60)
    assert started.returncode == 0, started.stderr
    yield f"{folder}/slurm.conf"
    subprocess.run([SLURM, "stop", folder], check=True)
    time.sleep(1)
    shutil.rmtree(folder, ignore_errors=True)


MINE = """
from dataclasses import dataclass

from torch import nn

from lazyexp import Rule

def net(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.Tanh(), nn.Linear(50, classes))

@dataclass
class All(Rule):
    pass
"""


@needs_slurm
def test_slurm_with_a_job_cancelled_midway(tmp_path, slurm):
    """With a custom model and rule, which jobs find in the current directory, too."""
    for name in ("first", "alone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(MINE)
    sweep = [
        "-m", "seed=0,1", "epochs=12", "eval_every=1000", "engine=autograd", "model._target_=mine.net",
        "rule._target_=mine.All",
        "checkpoint_every=0", "hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=1", "device=cpu",
        "hydra.launcher.cpus_per_task=1",
    ]  # fmt: skip
    environment = {"SLURM_CONF": slurm, "PATH": SBIN}
    command = [sys.executable, "-m", "lazyexp", *sweep, "runs_dir=runs"]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(
            command, cwd=tmp_path / "first", env={**ENVIRONMENT, **environment}, stdout=log, stderr=log
        )
    try:
        begun = wait_for(lambda: list((tmp_path / "first/runs").glob("*-s0-*/metrics.csv")))
        tool = {"env": {**os.environ, **environment}, "check": True, "text": True}
        jobs = subprocess.run(["squeue", "--noheader", "--format=%F"], capture_output=True, **tool).stdout.split()
        subprocess.run(["scancel", f"{jobs[0]}_0"], **tool)
        code = first.wait(timeout=400)
    finally:
        first.kill()
    log = (tmp_path / "log").read_text()
    assert code == 1 and "1 of 2 runs done" in log, log
    assert "interrupted: seed=0: by signal" in log
    assert 2 <= len(begun[0].read_text().splitlines()) < 18
    before = begun[0].read_text()

    answer = lazyexp(tmp_path / "first", *sweep, **environment)
    assert answer.returncode == 0 and "2 of 2 runs done" in answer.stdout, answer.stderr
    assert begun[0].read_text().startswith(before)  # continued, not started again
    assert {json.loads(path.read_text())["status"] for path in (tmp_path / "first/runs").glob("*/run.json")} == {
        "finished"
    }
    alone = [word for word in sweep if not word.startswith("hydra")]
    assert lazyexp(tmp_path / "alone", *alone, OMP_NUM_THREADS="1").returncode == 0
    assert by_run(tmp_path / "first") == by_run(tmp_path / "alone") and len(by_run(tmp_path / "alone")) == 2


@needs_slurm
def test_slurm_jobs_killed_or_cancelled_without_a_result_end_the_wait(tmp_path, slurm):
    """SLURM keeps no accounts here, so `sacct` does not answer."""
    sweep = [
        "-m", "seed=0,1,2", "epochs=100000", "eval_every=1000", "model.width=4", "device=cpu", "runs_dir=runs",
        "hydra/launcher=submitit_slurm", "hydra.launcher.mem_gb=1", "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.array_parallelism=2",
    ]  # fmt: skip
    environment = {**ENVIRONMENT, "SLURM_CONF": slurm, "PATH": SBIN}
    tool = {"env": environment, "check": True, "text": True}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lazyexp", *sweep], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
    try:
        wait_for(
            lambda: len(list((tmp_path / "runs").glob("*/metrics.csv"))) == 2,
            logs=[tmp_path / "log", Path(slurm).parent / "slurmctld.log"],
        )
        jobs = subprocess.run(["squeue", "--noheader", "--format=%F"], capture_output=True, **tool).stdout.split()
        subprocess.run(["scancel", f"{jobs[0]}_2"], **tool)  # still waiting
        assert len(killed := kill_jobs(slurm)) >= 2, killed
        code = process.wait(timeout=150)
    finally:
        process.kill()
    log = (tmp_path / "log").read_text()
    assert code == 1 and "0 of 3 runs done" in log and "Traceback" not in log, log
    for number in range(3):
        assert f"failed: SLURM job {jobs[0]}_{number}: was cancelled or killed and left no result" in log


def kill_jobs(slurm):
    """Kill the Python processes of all jobs; return their arguments. `scancel` would let them end by SIGTERM."""
    killed = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            arguments = (process / "cmdline").read_bytes()
        except OSError:  # it has ended, or is another user's
            continue
        mine = f"SLURM_CONF={slurm}".encode() in environment and b"python" in arguments
        if mine and any(line.startswith(b"SLURM_ARRAY_TASK_ID=") for line in environment):
            os.kill(int(process.name), signal.SIGKILL)
            killed.append(arguments)
    return killed


def wait_for(condition, seconds=200, logs=()):
    """Wait until `condition` returns something true, and return it; else fail with the ends of the log files."""
    for _ in range(seconds * 20):
        if answer := condition():
            return answer
        time.sleep(0.05)
    ends = [log.read_text()[-2000:] for log in logs]
    raise AssertionError("\n".join([f"nothing happened within {seconds} s", *ends]))
