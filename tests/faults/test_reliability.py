"""Kills, full disks, vanished folders, memory, divergence: promises of docs/design/reliability.md."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from conftest import rows, timeless

from lazyexp.runs.columns import COLUMNS
from lazyexp.runs.folder import RunFolder

FAULTS = Path(__file__).resolve().parent
FAULTS_WANTED = os.environ.get("LAZYEXP_STRESS_FAULTS", "12")
ROOT = FAULTS.parents[1]
QUICK = ["dataset.train_size=300", "epochs=4", "model.width=8", "batch_size=8", "eval_every=50", "device=cpu"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_faults_lose_nothing(record_property):
    """The short form of stress.py: all kinds of faults, over all rules, engines and optimizers."""
    answer = subprocess.run(
        [sys.executable, FAULTS / "stress.py", "--faults", FAULTS_WANTED],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    record_property("figure", f"stress: {answer.stdout.splitlines()[0] if answer.stdout else answer.stderr}")
    assert ": 0 lost, 0 falsely complete, " in answer.stdout, answer.stdout + answer.stderr
    # Workers that are interrupted while they start may print a traceback of Python's; no result suffers.
    known = re.compile("  problem: joblib .*a traceback")
    problems = [line for line in answer.stdout.splitlines() if line.startswith("  problem:")]
    assert all(known.match(line) for line in problems), answer.stdout
    cases = (FAULTS / "twins.py").read_text().partition("CASES = [")[2].partition("\n]")[0].count("\n    (")
    wanted = int(FAULTS_WANTED)
    assert f"{max(wanted // 5, min(cases, wanted // 3))} power cut" in answer.stdout and " at a file" in answer.stdout
    assert "joblib worker killed" in answer.stdout or "sweeps are skipped" in answer.stdout


def lazyexp(folder: Path, *arguments: str, file_size: int | None = None) -> subprocess.CompletedProcess:
    """A run in another process, whose files cannot grow beyond `file_size` bytes."""

    def limit():
        if file_size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(
        [sys.executable, "-m", "lazyexp", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, preexec_fn=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def assert_one_line(answer, *words: str) -> None:
    assert answer.returncode == 2, answer.stderr
    (line,) = answer.stderr.strip().splitlines()
    assert line.startswith("lazyexp: error: ") and all(word in line for word in words), line


@pytest.mark.slow
def test_no_space_for_another_row(tmp_path):
    assert lazyexp(tmp_path, *QUICK, "runs_dir=whole").returncode == 0
    # The limit falls into the middle of a row.
    broken = lazyexp(tmp_path, *QUICK, "runs_dir=broken", "checkpoint_every=1000", file_size=5000)
    assert_one_line(broken, "metrics.csv", "space" if "space" in broken.stderr else "large")
    (kept,), (whole,) = (list(tmp_path.glob(f"{name}/*/metrics.csv")) for name in ("broken", "whole"))
    assert kept.read_text().endswith("\n")
    assert 5 <= len(rows(kept)) < len(rows(whole))
    assert timeless(kept) == timeless(whole)[: len(rows(kept))]
    again = lazyexp(tmp_path, *QUICK, "runs_dir=broken", "checkpoint_every=1000")
    assert again.returncode == 0 and timeless(kept) == timeless(whole)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the permission to mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk(tmp_path, small_disk):
    settings = [*QUICK, "model.width=100", "checkpoint_every=0"]
    assert lazyexp(tmp_path, *settings, "runs_dir=whole").returncode == 0
    (whole,) = tmp_path.glob("whole/*/metrics.csv")
    (small_disk / "ballast").write_bytes(bytes(380_000))  # leaves no room for a checkpoint
    assert_one_line(lazyexp(tmp_path, *settings, f"runs_dir={small_disk}"), "No space left on device")
    (kept,) = small_disk.glob("*/metrics.csv")
    assert rows(kept) and timeless(kept) == timeless(whole)[: len(rows(kept))]
    (small_disk / "ballast").unlink()
    assert lazyexp(tmp_path, *settings, f"runs_dir={small_disk}").returncode == 0
    assert timeless(kept) == timeless(whole) and not list(kept.parent.glob(".*.tmp"))


def vanishing(monkeypatch, runs: Path, after: int, interrupt: bool = False) -> None:
    """Delete the folder of all runs after a number of rows."""
    write, count = RunFolder.append, 0

    def row(self, values):
        nonlocal count
        write(self, values)
        count += 1
        if count == after:
            shutil.rmtree(runs)
            if interrupt:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "append", row)


@pytest.mark.slow
def test_a_vanished_folder(call, tmp_path, monkeypatch):
    vanishing(monkeypatch, tmp_path / "runs", after=2)
    answer = call(*QUICK)
    assert answer.code == 2 and "No such file or directory" in answer.err
    assert len(answer.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_vanished_folder_is_one_failed_run_of_a_sweep(call, tmp_path, monkeypatch):
    vanishing(monkeypatch, tmp_path / "runs", after=2)
    answer = call("-m", *QUICK, "seed=0,1")
    assert answer.code == 1 and "1 of 2 runs done" in answer.out and "Traceback" not in answer.err
    assert len(list((tmp_path / "runs").glob("*/summary.csv"))) == 1


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_while_its_folder_vanishes_stops(call, tmp_path, monkeypatch):
    vanishing(monkeypatch, tmp_path / "runs", after=2, interrupt=True)
    assert call("-m", *QUICK, "seed=0,1").code in (130, 143)
    assert not list((tmp_path / "runs").glob("*/summary.csv"))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_evaluations(call, tmp_path, monkeypatch):
    write, sizes = RunFolder.append, []

    def row(self, values):
        write(self, values)
        sizes.append(tracemalloc.get_traced_memory()[0])

    monkeypatch.setattr(RunFolder, "append", row)
    tracemalloc.start()
    try:
        settings = ["dataset.train_size=100", "epochs=15", "model.width=4", "eval_every=1", "checkpoint_every=1000"]
        assert call(*settings).code == 0
    finally:
        tracemalloc.stop()
    assert len(sizes) == 1501
    # A list of the rows would take 2 MB; caches vary by less.
    assert sizes[-1] - sizes[200] < 100_000


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["backprop", "lazy", "spaced"])
@pytest.mark.parametrize("engine", ["autograd", "fast"])
def test_divergence_is_noticed_within_an_evaluation_interval(call, tmp_path, rule, engine):
    answer = call(*QUICK, f"rule={rule}", f"engine={engine}", "optimizer.lr=1e25")
    assert answer.code == 0 and "diverged" in answer.out
    (table,) = (tmp_path / "runs").glob("*/metrics.csv")
    seen = [0] + [int(row["samples_seen"]) for row in rows(table)]
    assert seen[-1] - seen[-2] <= 56 and seen[-1] <= 150  # eval_every=50, in batches of 8
    assert list(rows(table)[0]) == list(COLUMNS)
    (summary,) = rows(table.parent / "summary.csv")
    assert summary["status"] == "diverged"
