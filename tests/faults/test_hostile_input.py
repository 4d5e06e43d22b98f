"""Input that could end in a traceback, an endless wait, or exhausted memory."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from lazyexp.config.schema import DatasetConfig, ModelConfig
from lazyexp.data import load_raw, torchvision_sets
from lazyexp.data.idx import read_idx
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.utils import memory

FULL = Path("/dev/full")


def header(*sizes: int) -> bytes:
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, 8, len(sizes), *sizes)


def peak(call) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_not_unpacked_beyond_its_header(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(header(10, 10) + bytes(50_000_000), 1))

    def read():
        with pytest.raises(UserError, match="too long"):
            read_idx(path)

    assert peak(read) < 5_000_000


def test_a_header_beyond_the_compression_of_gzip_is_refused(tmp_path):
    path = tmp_path / "claims.gz"
    path.write_bytes(gzip.compress(header(8_000_000_000 // 784 % 2**32, 28, 28) + bytes(1000)))

    def read():
        with pytest.raises(UserError, match="truncated"):
            read_idx(path)

    assert peak(read) < 5_000_000


def test_data_that_do_not_fit_into_memory_are_refused_by_their_header(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    (tmp_path / "large.gz").write_bytes(gzip.compress(header(1000, 28, 28) + bytes(784_000)))
    with pytest.raises(UserError, match="needs 0.0 GB of memory"):
        read_idx(tmp_path / "large.gz")
    zeros = np.zeros((1000, 28, 28), np.uint8)
    np.savez_compressed(tmp_path / "large.npz", x_train=zeros, y_train=zeros[:, 0, 0], x_test=zeros, y_test=zeros)
    with pytest.raises(UserError, match="of memory"):
        load_raw(DatasetConfig(name="folder", path=str(tmp_path / "large.npz")), "")


def test_an_archive_with_a_false_size_is_not_unpacked(tmp_path):
    path = tmp_path / "claims.npz"
    np.savez_compressed(path, x_train=np.zeros(10), y_train=[0], x_test=[0], y_test=[0])
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("x_train.npy")
    content = bytearray(path.read_bytes())
    start = content.index(struct.pack("<L", member.file_size), content.index(b"PK\x01\x02"))
    content[start : start + 4] = struct.pack("<L", 4_000_000_000)
    path.write_bytes(content)
    with pytest.raises(UserError, match="claims.npz"):
        load_raw(DatasetConfig(name="folder", path=str(path)), "")


@pytest.mark.parametrize("depth", [20, 64, 10**6])
def test_a_network_that_does_not_fit_into_memory_is_refused(depth):
    with pytest.raises(UserError, match=f"model.depth={depth}"):
        make_model(ModelConfig(name="cnn", depth=depth), (1, 8, 8), 10, 0)
    with pytest.raises(UserError, match="weights needs"):
        make_model(ModelConfig(width=10**7, depth=2), (1, 8, 8), 10, 0)


def test_the_memory_check_draws_no_random_numbers():
    torch.manual_seed(1)
    make_model(ModelConfig(width=3), (1, 8, 8), 10, 0)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    make_model(ModelConfig(width=3), (1, 8, 8), 10, 0)
    assert torch.equal(drawn, torch.rand(1))


@pytest.fixture
def silent_server():
    """A server that accepts connections and sends nothing."""
    server = socket.create_server(("127.0.0.1", 0))
    kept = []

    def accept():
        while True:
            try:
                kept.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    for connection in kept:
        connection.close()


def test_a_download_that_stalls_is_abandoned(tmp_path, monkeypatch, silent_server, capsys):
    from torchvision import datasets

    monkeypatch.setattr(torchvision_sets, "STALL", 0.3)
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [silent_server + "/"])
    with pytest.raises(UserError, match="kmnist could not be downloaded"):
        load_raw(DatasetConfig(name="kmnist", mirror=silent_server), str(tmp_path))
    assert "downloading kmnist into" in capsys.readouterr().err
    assert socket.getdefaulttimeout() is None


def test_waiting_for_another_download_is_reported(tmp_path, capsys):
    path = tmp_path / "lock"
    first = FileLock(path, thread_local=False)
    first.acquire()
    threading.Timer(1.5, first.release).start()
    with torchvision_sets._lock(path, "kmnist"):
        pass
    assert "waiting for another run that downloads kmnist" in capsys.readouterr().err


def lazyexp(folder: Path, *words: str | bytes, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lazyexp", "epochs=1", "model.width=4", "device=cpu", *words]
    return subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, timeout=120, **options)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="file names are text there")
def test_a_path_that_is_not_valid_text(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (40, 6, 6), np.uint8), np.arange(40) % 4
    folder = os.fsencode(tmp_path) + b"/data-\xff.npz"
    with open(folder, "wb") as stream:
        np.savez(stream, x_train=x, y_train=y, x_test=x, y_test=y)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for state in (b"finished", b"finished before"):
        answer = lazyexp(
            tmp_path, "dataset=folder", b"dataset.path='" + folder + b"'", stdout=subprocess.PIPE, env=environment
        )
        assert answer.returncode == 0, answer.stderr
        assert b": " + state in answer.stdout and b"Traceback" not in answer.stderr


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_standard_output_is_one_line_and_the_run_is_finished(tmp_path):
    with FULL.open("wb") as stdout:
        answer = lazyexp(tmp_path, stdout=stdout)
    assert answer.returncode == 2 and len(answer.stderr.splitlines()) == 1
    assert b"cannot read or write standard output" in answer.stderr
    assert b"finished before" in lazyexp(tmp_path, stdout=subprocess.PIPE).stdout


def test_without_a_terminal_progress_is_a_line_per_minute(monkeypatch, capsys):
    from lazyexp.utils import terminal

    now = iter([0.0, 1.0, 11.0, 11.0, 11.0, 12.0, 80.0, 80.0, 80.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    bar = terminal.Bar(10, 0, "lazy")
    for epoch in (1, 2, 3, 4):
        bar.advance(epoch, 100, 50, 10)
    assert [line for line in capsys.readouterr().err.splitlines() if "epoch" in line] == [
        "lazyexp: lazy, epoch 3/10: 20%, training accuracy (running) 50.0%, selected 10.00%, 0:44 left",
        "lazyexp: lazy, epoch 5/10: 40%, training accuracy (running) 50.0%, selected 10.00%, 2:00 left",
    ]
