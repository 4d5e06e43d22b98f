"""Shared helpers: calling the program, small synthetic data sets, real data where available."""

from __future__ import annotations

import csv
import gzip
import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lazyexp import cli
from lazyexp.sweeps import multirun

# Tests run in parallel: one thread each, also in the processes they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
REAL = Path(os.environ.get("LAZYEXP_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(
    not (REAL / "EMNIST").is_dir(), reason="real data: set LAZYEXP_DATA to a folder with MNIST and EMNIST"
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_terminal_summary(terminalreporter):
    """Print what tests recorded with record_property("figure", ...), in any process."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    recorded = [pair for report in reports for pair in getattr(report, "user_properties", [])]
    for name, value in dict.fromkeys(recorded):  # each phase of a test reports them
        if name == "figure":
            terminalreporter.write_line(value)


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """`call("epochs=1", ...)` runs the command in this process, with results under tmp_path/runs.

    A sweep writes its report only with `report=True`: it takes longer than small runs.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAZYEXP_DATA", raising=False)
    show_report = multirun.show_report

    def run(*arguments: str, report: bool = False) -> Answer:
        monkeypatch.setattr(multirun, "show_report", show_report if report else lambda *_: None)
        monkeypatch.setattr(sys, "argv", ["lazyexp", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Answer(end.value.code, out, err)

    return run


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """No test downloads anything: names of other machines do not resolve."""
    resolve = socket.getaddrinfo

    def local_only(host, *rest, **more):
        if host not in (None, "localhost", "127.0.0.1", "::1"):
            raise socket.gaierror(socket.EAI_NONAME, "tests are offline")
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", local_only)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def timeless(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv or summary.csv without times, and without the checksum of a file with times."""
    clocked = ("seconds", "metrics_sha256")
    return [{k: v for k, v in row.items() if not any(word in k for word in clocked)} for row in rows(path)]


def only_run(folder: Path) -> Path:
    """The folder of the only run under `folder`."""
    (found,) = [path.parent for path in folder.rglob("summary.csv")]
    return found


def write_idx(path: Path, array: np.ndarray, zipped: bool = False) -> None:
    """A uint8 or int32 array in the IDX format."""
    code = {"u": 8, "i": 12}[array.dtype.kind]
    head = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if zipped else content)


def toy(n: int, classes: int = 10, shape: tuple[int, ...] = (28, 28), seed: int = 0):
    """Noisy samples whose brightest pixel gives their class: (n, *shape) uint8 and (n,) uint8."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = rng.integers(0, 60, (n, *shape))
    flat = images.reshape(n, -1)
    flat[np.arange(n), labels] = 255
    return images.astype(np.uint8), labels.astype(np.uint8)


@pytest.fixture
def toy_npz(tmp_path):
    """An .npz of 400 training and 100 test images of 6x6 pixels in 4 classes."""
    x_train, y_train = toy(400, 4, (6, 6))
    x_test, y_test = toy(100, 4, (6, 6), seed=1)
    path = tmp_path / "toy.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path
