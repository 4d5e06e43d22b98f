"""Hundreds of random and hostile inputs: each ends with exit code 0, or with 2 and one line with the reason."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import shutil
import signal
import struct
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import toy, write_idx

from lazyexp.config.schema import Config
from lazyexp.rules import RULES
from lazyexp.runs.columns import COLUMNS

SEED = int(os.environ.get("LAZYEXP_FUZZ_SEED", 0))
INPUTS = int(os.environ.get("LAZYEXP_FUZZ_INPUTS", 80))
SMALL = ["dataset.train_size=100", "epochs=1", "model.width=8", "batch_size=16", "eval_every=50"]
# Valid settings that make a run endless are not tested.
ONLY_SMALL = {"epochs", "model.depth"}
HOSTILE = [
    "", "null", "-1", "0", "1", "2", "1.5", "-0.0", "1e-30", "1e30", "nan", "inf", "-inf", "true", "false", "[]",
    "[1,2]", "[nan]", "{a:1}", "{}", "''", '"', "'", "\\", "💥", "ünïcödé", "a b", "${seed}", "${nope}",
    "${oc.env:NOPE}", "${", "../..", "/", "/dev/null", "/proc/self", "~", "a=b", "=", "==", "?", "???", "*", "0x10",
    "1_000", "1,2", "a" * 300, "None", "auto", "cpu", "cuda:7", "cuda:-1", "meta", "mps", "lazy", "choice(1,2)",
    "range(1,3)", "\t", "%s%n", "$(ls)",
]  # fmt: skip
PLAUSIBLE = ["0", "0.5", "1", "2", "3", "16", "0.9", "0.01", "true", "unit"]
LARGE = ["99999999999999999999", "9223372036854775807", "1000000000000", "-9223372036854775808"]


def keys(schema: type = Config, prefix: str = "") -> dict[str, list[str]]:
    """Every key with its documented choices."""
    found = {}
    for entry in fields(schema):
        inner = entry.default_factory
        choices = [str(choice) for choice in entry.metadata.get("choices", ())]
        found.update(keys(inner, f"{entry.name}.") if is_dataclass(inner) else {prefix + entry.name: choices})
    return found


CHOICES = keys()
KEYS = [key for key in CHOICES if key != "rule"] + [
    *(f"rule.{entry.name}" for rule in RULES.values() for entry in fields(rule)),
    "rule", "dataset", "model", "optimizer", "sweep", "nope", "model.nope", "hydra.nope",
    "hydra/launcher", "hydra/sweeper",
]  # fmt: skip


def overrides(draw: random.Random) -> list[str]:
    """One to four words of a command line, most of them of the form key=value."""
    words = []
    for _ in range(draw.choice([1, 1, 1, 2, 3, 4])):
        key = draw.choice(KEYS)
        known = CHOICES.get(key, []) + (list(RULES) if key == "rule" else [])
        values = HOSTILE + 40 * known + 4 * PLAUSIBLE + ([] if key in ONLY_SMALL else 3 * LARGE)
        form = draw.choice(["{}={}"] * 12 + ["+{}={}", "++{}={}", "~{}={}", "~{}", "{}", "{}:{}", "={}{}", "@{}={}"])
        words.append(form.format(key, draw.choice(values)) if form.count("{}") == 2 else form.format(key))
    return words


@contextmanager
def no_longer_than(seconds: int):
    def ring(number, frame):
        raise AssertionError(f"still running after {seconds} s")

    former = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def assert_ends_well(call, words: list[str], runs: Path, refused_tables: bool = True) -> int:
    """Call the program, check how it ended and the tables it wrote. Returns the exit code."""
    with no_longer_than(60):
        answer = call(*words)
    details = f"{words}: {answer.code}\n{answer.err}"
    assert answer.code in (0, 2), details
    assert "Traceback" not in answer.err + answer.out, details
    if answer.code == 2:
        notes = ("lazyexp: note:", "lazyexp: downloading ")
        lines = [line for line in answer.err.splitlines() if ": continuing at epoch " not in line]
        errors = [line for line in lines if not line.startswith(notes)]
        assert len(errors) == 1 and errors[0].startswith("lazyexp: error: "), details
        assert len(errors[0]) > 25, details
    for table in runs.rglob("metrics.csv") if answer.code == 0 or refused_tables else ():
        read = pd.read_csv(table)
        assert list(read.columns) == list(COLUMNS) and len(read), details
    shutil.rmtree(runs, ignore_errors=True)
    return answer.code


@pytest.mark.slow
def test_hostile_settings(call, tmp_path, record_property):
    draw = random.Random(SEED)
    codes = [assert_ends_well(call, SMALL + overrides(draw), tmp_path / "runs") for _ in range(INPUTS)]
    record_property(
        "figure", f"fuzz: {len(codes)} command lines, {codes.count(2)} refused, {codes.count(0)} done (seed {SEED})"
    )
    assert codes.count(0) > INPUTS / 100 and codes.count(2) > INPUTS / 2


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_npz(path: Path, **changes) -> None:
    x_train, y_train = toy(60, 4, (5, 5))
    x_test, y_test = toy(20, 4, (5, 5), seed=1)
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    np.savez(path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})


def odd_arrays(bomb: Path) -> list[dict]:
    """Changes that make the arrays of an .npz invalid."""
    x, y = toy(60, 4, (5, 5))
    whole = x.astype(np.float64)
    with_nan, with_inf = whole.copy(), whole.copy()
    with_nan[3, 2, 2], with_inf[0, 0, 0] = np.nan, np.inf
    return [
        {"x_train": with_nan}, {"x_train": with_inf}, {"x_test": with_nan[:20]}, {"y_train": y[:50]},
        {"y_train": None}, {"x_test": None}, {"x_train": x[:0], "y_train": y[:0]}, {"x_test": x[:0], "y_test": y[:0]},
        {"x_train": x[:, 0]}, {"x_train": x.reshape(60, 1, 1, 1, 25)}, {"x_train": x[:, :3]},
        {"y_train": y.astype(float) + 0.5},
        {"y_train": y.astype(np.int64) - 1}, {"y_train": y.astype(np.int64) + 2**40}, {"y_train": y.astype(str)},
        {"y_train": np.full(60, np.nan)}, {"y_test": y[:20] + 100}, {"x_train": x.astype(complex)},
        {"x_train": x > 9},
        {"y_train": np.array([Bomb(bomb)] * 60, dtype=object)},
        {"x_train": np.array([Bomb(bomb)] * 60, dtype=object)},
        {"y_train": np.zeros(60, int), "y_test": np.zeros(20, int)}, {"y_train": y[:, None]},
        {"x_train": np.float64(3)},
    ]  # fmt: skip


def write_folder(folder: Path, zipped: bool = False) -> list[Path]:
    """Write small files in MNIST's format. Returns their paths."""
    paths = []
    for part, n in (("train", 60), ("t10k", 20)):
        x, y = toy(n, 4, (5, 5), seed=n)
        for name, array in ((f"{part}-images-idx3-ubyte", x), (f"{part}-labels-idx1-ubyte", y)):
            paths.append(folder / (name + ".gz" * zipped))
            write_idx(paths[-1], array, zipped)
    return paths


def write_false_headers(folder: Path, draw: random.Random) -> Path:
    """Write data with a well-formed but false header or archive. Returns the value of dataset.path."""
    sizes = [0, 1, 5, 20, 60, 255, 65_536, 2**31 - 1, 2**32 - 1]
    if draw.random() < 0.5:
        path = draw.choice(write_folder(folder))
        dimensions = draw.choice([0, 1, 2, 3, 4, 8, 255])
        kind = draw.choice([0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E, 0x00, 0xFF])
        header = bytes([0, draw.choice([0, 0, 0, 1]), kind, dimensions])
        content = b"".join(struct.pack(">I", draw.choice(sizes)) for _ in range(dimensions)) + path.read_bytes()[16:]
        path.write_bytes(header + content)
        return folder
    path = folder / "made.npz"
    write_npz(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(sorted(members))
    shape = tuple(draw.choice(sizes) for _ in range(draw.randint(0, 5)))
    letter = draw.choice(["|u1", "<i8", "<f4", ">f8", "|O", "<U9", "|V7", "<M8[s]", "|b1", "x"])
    text = repr({"descr": letter, "fortran_order": draw.random() < 0.5, "shape": shape}).encode() + b"\n"
    members[name] = draw.choice(
        [
            b"",
            b"no array",
            draw.randbytes(200),
            b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(99),
        ]
    )
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member if draw.random() < 0.95 else member.removesuffix(".npy"), content)
    return path


def damage(path: Path, draw: random.Random) -> str:
    """Damage a file. Returns the kind of damage."""
    kind = draw.choice(
        [
            "cut",
            "cut",
            "flip",
            "flip",
            "head",
            "empty",
            "gone",
            "directory",
            "dangling",
            "loop",
            "noise",
            "longer",
            "no right",
        ]
    )
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: draw.randrange(len(content))])
    elif kind in ("flip", "head"):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 8)):
            changed[draw.randrange(min(16, len(changed)) if kind == "head" else len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
    elif kind == "noise":
        path.write_bytes(draw.randbytes(len(content)))
    elif kind == "longer":
        path.write_bytes(content + draw.randbytes(draw.randint(1, 100)))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no right":
        path.chmod(0)
    else:
        path.unlink()
        if kind == "directory":
            path.mkdir()
        elif kind != "gone":
            path.symlink_to(path.parent / "nowhere" if kind == "dangling" else path)
    return kind


def custom(path: Path) -> list[str]:
    quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return ["dataset=folder", f"dataset.path='{quoted}'", "epochs=1", "model.width=8", "batch_size=16"]


@pytest.mark.slow
def test_damaged_data(call, tmp_path, record_property):
    draw, codes, bomb = random.Random(SEED), [], tmp_path / "exploded"
    runs = tmp_path / "runs"
    for changes in odd_arrays(bomb):
        write_npz(tmp_path / "odd.npz", **changes)
        codes.append(assert_ends_well(call, custom(tmp_path / "odd.npz"), runs))
    for turn in range(INPUTS // 4):
        folder = tmp_path / f"made{turn}"
        folder.mkdir()
        codes.append(assert_ends_well(call, custom(write_false_headers(folder, draw)), runs))
    for turn in range(INPUTS // 2):
        folder = tmp_path / draw.choice(["plain", "with space", "ünïcödé 💥", "it's", "a=b,c", "[x]{y}"]) / str(turn)
        folder.mkdir(parents=True)
        if draw.random() < 0.4:
            path = folder / "data.npz"
            write_npz(path)
            damaged = path
        else:
            damaged = draw.choice(write_folder(folder, zipped=draw.random() < 0.4))
            path = folder
        if turn % 10:
            damage(damaged, draw)
        codes.append(assert_ends_well(call, custom(path), runs))
        if turn % 10 == 0:
            assert codes[-1] == 0, path  # undamaged: the name must not matter
    record_property(
        "figure", f"fuzz: {len(codes)} data files, {codes.count(2)} refused, {codes.count(0)} done (seed {SEED})"
    )
    assert not bomb.exists()
    assert codes.count(2) > len(codes) / 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.csv", "run.json", "summary.csv", "learned.npz"])
def test_damaged_results(call, tmp_path, monkeypatch, name):
    """A file of an interrupted run is damaged; then a report is made and the run is started again."""
    from lazyexp.runs.recorder import Recorder

    draw, codes = random.Random(f"{SEED}{name}"), []
    for turn in range(max(INPUTS // 25, 3)):
        runs = tmp_path / f"runs{turn}"
        words = [*SMALL, "checkpoint_every=0", f"runs_dir={runs}", "epochs=3"]
        with monkeypatch.context() as patch:
            calls = iter([False, True])
            patch.setattr(Recorder, "stop", lambda self, calls=calls: next(calls, True))
            assert call(*words).code == 130
        (path,) = runs.glob(f"*/{name}")
        damage(path, draw)
        report(call, runs)
        codes.append(assert_ends_well(call, words, runs, refused_tables=False))
    assert codes.count(0) + codes.count(2) == len(codes)


def report(call, runs: Path) -> None:
    from lazyexp.errors import UserError
    from lazyexp.report.build import write_report

    with suppress(UserError):
        write_report([runs], max_groups=0)


@pytest.mark.slow
def test_malicious_pickles_in_checkpoints_and_subsets(call, tmp_path, monkeypatch):
    bomb = tmp_path / "exploded"
    runs = tmp_path / "runs"
    assert call(*SMALL).code == 0
    (run,) = (path.parent for path in runs.glob("*/summary.csv"))
    (run / "summary.csv").unlink()
    for write in (
        lambda path: torch.save({"progress": Bomb(bomb)}, path),
        lambda path: path.write_bytes(pickle.dumps(Bomb(bomb))),
    ):
        write(run / "checkpoint.pt")
        answer = call(*SMALL)
        assert answer.code == 2 and "checkpoint.pt" in answer.err and not bomb.exists()
    learned = tmp_path / "learned.npz"
    np.savez(learned, index=np.array([Bomb(bomb)] * 5, dtype=object), learned=np.ones(5))
    answer = call(*SMALL, f"dataset.subset={learned}")
    assert answer.code == 2 and not bomb.exists()
    learned.write_bytes(gzip.compress(b"not an npz"))
    assert call(*SMALL, f"dataset.subset={learned}").code == 2
