"""Odd files, folders, locks, disks and signals: each ends in the right result or in one line that says why not."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import rows, timeless
from filelock import FileLock

from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.runs.checkpoints import CHECKPOINTS
from lazyexp.runs.folder import REPLACEMENT, RunFolder, RunIsBusy
from lazyexp.runs.reader import read_json
from lazyexp.runs.recorder import Recorder
from lazyexp.runs.tables import CHECKED, csv_line
from lazyexp.utils import files, signals, workers
from lazyexp.utils.signals import Interruption

MORE_SIGNALS = ("SIGHUP", "SIGUSR1", "SIGINT")
TINY = ("dataset.train_size=100", "epochs=2", "eval_every=50", "model.width=4", "device=cpu", "checkpoint_every=0")


def settings(folder: Path, **keys) -> Config:
    config = Config(epochs=2, eval_every=50, device="cpu", checkpoint_every=0, runs_dir=str(folder), **keys)
    config.model.width, config.dataset.train_size = 4, 100
    return check(config)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and the same run interrupted after two evaluations. Tests work on copies."""
    torch.set_num_threads(1)
    top = tmp_path_factory.mktemp("runs")
    finished = run(settings(top / "finished")).folder
    answers = iter([False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "stop", lambda self: next(answers))
        cut = run(settings(top / "cut")).folder
    return finished, cut


@pytest.fixture
def finished(runs, tmp_path):
    return Path(shutil.copytree(runs[0], tmp_path / "runs" / runs[0].name))


@pytest.fixture
def cut(runs, tmp_path):
    return Path(shutil.copytree(runs[1], tmp_path / "runs" / runs[1].name))


def assert_one_line(answer, *words: str) -> None:
    assert answer.code == 2, answer
    lines = [line for line in answer.err.splitlines() if ": continuing at epoch " not in line]
    (line,) = [line for line in lines if not line.startswith("lazyexp: note:")]
    assert line.startswith("lazyexp: error: ") and all(word in line for word in words), line


def as_file(path: Path) -> None:
    path.write_text("a file")


def as_loop(path: Path) -> None:
    path.symlink_to(path)


def as_dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere" / "at all")


# Folders


@pytest.mark.slow
@pytest.mark.parametrize("kind", [as_file, as_loop, as_dangling])
@pytest.mark.parametrize("below", [False, True])
def test_runs_dir_is_not_a_folder(call, tmp_path, kind, below):
    kind(tmp_path / "odd")
    assert_one_line(call(*TINY, f"runs_dir=odd{'/below' if below else ''}"), "cannot write to", "set runs_dir")


@pytest.mark.parametrize("runs_dir", ["/dev/null", "/proc", "a" * 300, "/".join(["b" * 200] * 30)])
def test_runs_dir_cannot_hold_a_run(call, runs_dir):
    assert_one_line(call(*TINY, f"runs_dir={runs_dir}"), "set runs_dir")


NAMES = ["it's [x]", os.fsdecode(b"\xff\xfe"), "with space", "größe", "a=b,c", "(1)", "💥"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[2:])])
def test_runs_dir_with_an_unusual_name(call, tmp_path, name):
    escaped = name.replace("'", "\\'")
    for status in ("finished", "finished before"):
        answer = call(*TINY, f"runs_dir='{escaped}'")
        assert answer.code == 0 and f": {status}" in answer.out, answer
    assert len(list((tmp_path / name).glob("*/summary.csv"))) == 1


@pytest.mark.slow
def test_runs_dir_and_the_run_itself_as_links(call, tmp_path, finished):
    real = tmp_path / "elsewhere"
    shutil.move(finished, real)
    (tmp_path / "linked").symlink_to(tmp_path / "runs")
    finished.symlink_to(real)
    assert "finished before" in call(*TINY, "runs_dir=linked").out


@pytest.mark.slow
@pytest.mark.parametrize("kind", [as_file, as_loop, as_dangling])
def test_the_folder_of_the_run_is_not_a_folder(call, finished, kind):
    shutil.rmtree(finished)
    kind(finished)
    assert_one_line(call(*TINY), finished.name, "set runs_dir")


def test_the_current_directory_is_deleted(tmp_path):
    command = 'mkdir gone; cd gone; rmdir ../gone; exec "$0" -m lazyexp'
    answer = subprocess.run(["bash", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 2
    assert answer.stderr.startswith("lazyexp: error: the current directory: ") and answer.stderr.count("\n") == 1


@pytest.mark.parametrize("run_id", ["../../x", "a/b", "..", ".", "", "/etc", "a\0b", "a\\b"])
def test_a_run_id_that_is_not_one_folder_is_refused(tmp_path, run_id):
    runs_dir = tmp_path / "runs"
    with pytest.raises(UserError, match="must be the name of one folder"):
        RunFolder(runs_dir / run_id, {"run_id": run_id})
    assert not list(tmp_path.iterdir())


def test_a_run_id_that_is_too_long(tmp_path):
    with pytest.raises(UserError, match="set runs_dir"), RunFolder(tmp_path / ("a" * 300), {"run_id": "a" * 300}):
        pass


# Locks


@pytest.mark.slow
def test_a_locked_run_is_skipped(call, cut):
    lock = FileLock(cut / ".lock")
    with lock:
        answer = call(*TINY)
    assert answer.code == 1 and "another process is working on" in answer.err
    assert call(*TINY).code == 0


def test_a_run_locked_by_another_process(tmp_path):
    code = "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True)"
    code += "; time.sleep(60)"
    (tmp_path / "run").mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "run" / ".lock"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline()
        with pytest.raises(RunIsBusy), RunFolder(tmp_path / "run", {}):
            pass
    finally:
        other.kill()
        other.communicate()
    with RunFolder(tmp_path / "run", {}):  # the lock ends with its process
        pass


@pytest.mark.slow
def test_the_lock_file_of_a_killed_process(call, cut):
    (cut / ".lock").write_text("12345")
    assert call(*TINY).code == 0


@pytest.mark.parametrize("kind", ["directory", "loop", "dangling"])
def test_the_lock_is_not_a_file(call, cut, kind):
    (cut / ".lock").unlink(missing_ok=True)
    {"directory": Path.mkdir, "loop": as_loop, "dangling": as_dangling}[kind](cut / ".lock")
    assert_one_line(call(*TINY), "cannot write to")


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.ENOSPC])
@pytest.mark.parametrize("complete", [True, False])
def test_a_lock_that_cannot_be_taken(call, request, monkeypatch, number, complete):
    """For example: the lock file is another user's. A finished run is found if the reason is a missing permission."""
    folder = request.getfixturevalue("finished" if complete else "cut")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def acquire(self, timeout=None):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", acquire)
    answer = call(*TINY)
    if complete and number not in (errno.ENOLCK, errno.ENOSPC):
        assert answer.code == 0 and "finished before" in answer.out
    else:
        assert_one_line(answer, "cannot write to", os.strerror(number))
    if complete:
        assert_one_line(call(*TINY, "overwrite=true"), "cannot write to", "set runs_dir")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_system_without_locks(call, monkeypatch):
    def acquire(self, timeout=None):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    assert_one_line(call(*TINY), "does not appear to support flock")


@pytest.fixture
def read_only(tmp_path):
    """`read_only()` makes the disk under tmp_path/runs read-only."""
    disk = tmp_path / "runs"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True).returncode
    ):
        pytest.skip("needs the permission to mount a file system")
    yield lambda: subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("complete", [True, False])
def test_a_read_only_disk(call, runs, tmp_path, read_only, complete):
    folder = Path(shutil.copytree(runs[0 if complete else 1], tmp_path / "runs" / runs[0].name))
    (folder / ".stray.tmp").write_text("of a killed process")
    read_only()
    if complete:
        assert "finished before" in call(*TINY).out
        assert_one_line(call(*TINY, "overwrite=true"), "cannot write to")
    else:
        assert_one_line(call(*TINY), "Read-only file system")
    assert_one_line(call(*TINY, "seed=1"), "Read-only file system")


def test_a_damaged_result_on_a_read_only_disk(call, runs, tmp_path, read_only):
    folder = Path(shutil.copytree(runs[0], tmp_path / "runs" / runs[0].name))
    (folder / "model.pt").unlink()
    read_only()
    assert_one_line(call(*TINY), "model.pt does not match its checksum")


# Disks


@pytest.fixture
def failing_fsync(monkeypatch):
    """`failing_fsync(number, folders)` makes os.fsync fail with an error number, for folders or for files."""
    fsync = os.fsync

    def arrange(number: int, folders: bool) -> None:
        def fail(descriptor):
            if os.path.isdir(f"/proc/self/fd/{descriptor}") == folders:
                raise OSError(number, os.strerror(number))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fail)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to find files by their descriptors")
    return arrange


NUMBERS = ("ENOTSUP", "EBADF", "EINVAL", "EOPNOTSUPP", "ENOSYS", "EACCES", "EPERM")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*NUMBERS[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in NUMBERS[2:])]
)
def test_folders_that_cannot_be_synced(call, failing_fsync, name):
    failing_fsync(getattr(errno, name), folders=True)
    assert call(*TINY).code == 0
    assert "finished before" in call(*TINY).out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ENOSYS", pytest.param("EINVAL", marks=pytest.mark.slow)])
def test_files_that_cannot_be_synced(call, failing_fsync, name):
    failing_fsync(getattr(errno, name), folders=False)
    assert call(*TINY).code == 0


@pytest.mark.parametrize("folders", [True, False])
def test_a_disk_that_fails_is_reported(call, failing_fsync, folders):
    failing_fsync(errno.EIO, folders)
    assert_one_line(call(*TINY), os.strerror(errno.EIO))


def test_a_folder_that_cannot_be_opened_for_reading(tmp_path, monkeypatch):
    def refuse(path, flags, *more):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "file").touch()
    monkeypatch.setattr(files.os, "open", refuse)
    files.fsync(tmp_path)
    with pytest.raises(PermissionError):
        files.fsync(tmp_path / "file")


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize(
    "at", [1, 9, *(pytest.param(at, marks=pytest.mark.slow) for at in (2, 3, 4, 5, 6, 7, 8, 11, 14))]
)
def test_a_full_disk_at_each_write(runs, tmp_path, monkeypatch, function, at):
    """Every call that finishes a file fails once for lack of space: the same command then ends like its twin."""
    original, count = getattr(os, function), 0

    def fail(*arguments):
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        try:
            run(settings(tmp_path))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        except UserError as error:
            assert "No space left" in str(error)
        else:
            assert count < at
    folder = run(settings(tmp_path)).folder
    for name in ("metrics.csv", "summary.csv"):
        assert timeless(folder / name) == timeless(runs[0] / name)
    assert not list(folder.glob(".*.tmp")) and not any((folder / name).exists() for name in CHECKPOINTS)


@pytest.mark.slow
def test_leftover_temporary_names(call, cut):
    (cut / ".model.pt.1.tmp").write_bytes(b"half")
    (cut / ".folder.tmp").mkdir()
    assert call(*TINY).code == 0
    assert not (cut / ".model.pt.1.tmp").exists() and (cut / ".folder.tmp").exists()


# Files of a run


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"\n", b"run_id,status\n", b"run_id,status\nhalf,finis"])
def test_a_summary_without_a_row_is_no_result(call, finished, content):
    (finished / "summary.csv").write_bytes(content)
    answer = call(*TINY)
    assert answer.code == 0 and ": finished\n" in answer.out
    assert rows(finished / "summary.csv")[0]["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"\0\0\0\n\0\n", b"run_id,status\na,finished,3\n", b"run_id,status\na,finished\n"]
)
def test_a_damaged_summary_is_refused(call, finished, content):
    (finished / "summary.csv").write_bytes(content)
    assert_one_line(call(*TINY), "summary.csv", "damaged")
    assert call(*TINY, "overwrite=true").code == 0


def test_a_summary_with_a_status_of_another_version_is_no_result(call, finished):
    path = finished / "summary.csv"
    path.write_text(path.read_text().replace(",finished,", ",archived,"))
    assert call(*TINY).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["summary.csv", "metrics.csv", "model.pt", "learned.npz", "run.json", *CHECKPOINTS])
def test_a_file_of_a_run_is_a_folder(call, cut, name):
    (cut / name).unlink(missing_ok=True)
    (cut / name).mkdir()
    answer = call(*TINY)
    if answer.code:  # it is not in the way of resuming, or named
        assert_one_line(answer, name.partition(".")[0])


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 1, 50, -2])
def test_a_truncated_run_json(call, cut, runs, length):
    path = cut / "run.json"
    path.write_text(path.read_text()[:length])
    assert call(*TINY).code == 0
    assert timeless(cut / "metrics.csv") == timeless(runs[0] / "metrics.csv")


@pytest.mark.slow
@pytest.mark.parametrize("rows_of", ["all", "none"])
def test_a_checkpoint_of_another_version(call, cut, rows_of):
    state = torch.load(cut / "checkpoint.pt", weights_only=True)
    kept = ("progress", "metrics_crc32") if rows_of == "all" else ("progress",)
    for name in CHECKPOINTS:
        torch.save({key: state[key] for key in kept}, cut / name)
    assert_one_line(call(*TINY), "checkpoint.pt", "delete it to start the run again")
    for name in CHECKPOINTS:
        (cut / name).unlink()
    assert call(*TINY).code == 0


@pytest.mark.slow
def test_checkpoints_of_another_network(call, cut):
    state = torch.load(cut / "checkpoint.pt", weights_only=True)
    state["model"] = {name: torch.zeros(7, 7) for name in state["model"]}
    for name in CHECKPOINTS:
        torch.save(state, cut / name)
    assert_one_line(call(*TINY), "checkpoint.pt is damaged or of another version")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["edited", "missing", "columns"])
def test_rows_that_do_not_belong_to_the_checkpoint(call, cut, change):
    path = cut / "metrics.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "missing":
        path.unlink()
    elif change == "edited":
        path.write_bytes(b"".join(lines).replace(b"digits", b"Digits"))
    else:
        path.write_bytes(csv_line(["other", "columns"]) + b"".join(lines[1:]))
    assert_one_line(call(*TINY), "metrics.csv", "to start the run again")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["short", "gone"])
def test_a_damaged_replacement_does_not_replace_the_former_result(call, finished, damage):
    before = {name: (finished / name).read_bytes() for name in (*CHECKED, "summary.csv")}
    inner = finished / REPLACEMENT
    shutil.copytree(finished, inner)
    (inner / "model.pt").write_bytes(b"half")
    if damage == "gone":
        (inner / "learned.npz").unlink()
    assert "finished before" in call(*TINY).out
    assert {name: (finished / name).read_bytes() for name in before} == before
    assert call(*TINY, "overwrite=true").code == 0
    assert not inner.exists() and "finished before" in call(*TINY).out


@pytest.mark.parametrize(
    "written, targets",
    [([None], []), ([0.9, None, "0.95", True], [0.9]), (None, []), ("0.9", []), ([float("inf"), 0.5], [0.5])],
)
def test_targets_of_another_version_in_run_json(finished, written, targets):
    path = finished / "run.json"
    facts = json.loads(path.read_text())
    facts["settings"]["targets"] = written
    path.write_text(json.dumps(facts))
    assert read_json(path)["settings"]["targets"] == targets


@pytest.mark.slow
def test_a_report_with_targets_of_another_version(finished, tmp_path):
    import lazyexp

    path = finished / "run.json"
    path.write_text(path.read_text().replace('"targets": [', '"targets": [null, '))
    assert read_json(path)["settings"]["targets"]
    lazyexp.report(tmp_path / "runs")


@pytest.mark.parametrize(
    "settings",
    [3, [], {}, {"rule": 3, "dataset": {}}, {"rule": {}, "dataset": {}}, {"rule": {"name": 3}, "dataset": {}}],
)
def test_settings_of_another_version_in_run_json(tmp_path, settings):
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings, "status": "finished"}))
    assert read_json(tmp_path / "run.json") == {"status": "finished"}


def test_run_json_that_is_nested_too_deeply(tmp_path):
    (tmp_path / "run.json").write_text("[" * 100_000)
    assert read_json(tmp_path / "run.json") == {}


# Clocks and signals


@pytest.mark.slow
def test_a_clock_that_is_set_back(call, tmp_path, monkeypatch):
    now = iter(np.linspace(2e9, 1e9, 100_000).tolist())
    monkeypatch.setattr(time, "time", lambda: next(now))
    assert call(*TINY).code == 0
    (table,) = (tmp_path / "runs").glob("*/metrics.csv")
    seconds = [float(row["train_seconds"]) for row in rows(table)]
    assert seconds == sorted(seconds) and 0 == seconds[0] < seconds[1] < 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_SIGNALS)])
def test_a_signal_while_the_summary_is_written(call, tmp_path, monkeypatch, name):
    write = RunFolder.write_summary

    def interrupted(self, *arguments):
        signal.raise_signal(getattr(signal, name))
        return write(self, *arguments)

    monkeypatch.setattr(RunFolder, "write_summary", interrupted)
    answer = call(*TINY)
    assert answer.code == 0 and ": finished" in answer.out
    assert "finished before" in call(*TINY).out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_SIGNALS)])
def test_a_signal_while_a_checkpoint_is_saved(call, tmp_path, runs, monkeypatch, name):
    save, pending = RunFolder.save_checkpoint, [getattr(signal, name)]

    def interrupted(self, state):
        if pending:
            signal.raise_signal(pending.pop())
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", interrupted)
        assert call(*TINY).code == 128 + getattr(signal, name)
    assert call(*TINY).code == 0
    (table,) = (tmp_path / "runs").glob("*/metrics.csv")
    assert timeless(table) == timeless(runs[0] / "metrics.csv")


def test_a_signal_when_the_terminal_is_gone(monkeypatch):
    def fail(message):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(signals, "log", fail)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGHUP)
    assert interruption.signal == signal.SIGHUP


def test_former_handlers_are_restored():
    calls = []
    former = signal.signal(signal.SIGUSR1, lambda *_: calls.append(1))
    try:
        with Interruption():
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert calls == [1]


def test_a_run_in_a_thread(tmp_path):
    """Only the main thread can handle signals."""
    results = []
    thread = threading.Thread(target=lambda: results.append(run(settings(tmp_path)).status))
    thread.start()
    thread.join()
    assert results == ["finished"]


def test_results_of_workers_that_were_cut_off():
    with workers.SweepFolder() as folder:
        (folder.path / "results.jsonl").write_bytes(b'{"title": "one"}\n{"tit')
        assert folder.results() == [{"title": "one"}]
        shutil.rmtree(folder.path)
        assert folder.results() == []
        signal.raise_signal(signal.SIGTERM)
        assert folder.signal == signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["1", "2"])
def test_closed_standard_streams(tmp_path, closed):
    command = f'exec "$0" -m lazyexp {" ".join(TINY)} {closed}>&-'
    answer = subprocess.run(["bash", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr and list(tmp_path.glob("runs/*/summary.csv"))
