"""Arrays that stay on disk: the same samples as in memory, little memory, reading ahead, and decoding once."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from conftest import only_run, timeless, toy
from PIL import Image

from lazyexp.config.schema import DatasetConfig
from lazyexp.data import Samples, load_data
from lazyexp.data.augmentation import Augmentation
from lazyexp.data.pieces import pieces, standardisation
from lazyexp.data.read_ahead import ReadAhead
from lazyexp.errors import UserError
from lazyexp.utils import memory

CPU = torch.device("cpu")


def write(folder, shape=(3, 6, 6), n=60, dtype=np.uint8):
    """Four .npy files in `folder`/npy and the same arrays in `folder`/d.npz."""
    (x, y), (u, v) = toy(n, 4, shape), toy(20, 4, shape, seed=1)
    arrays = {"x_train": x.astype(dtype), "y_train": y, "x_test": u.astype(dtype), "y_test": v}
    (folder / "npy").mkdir()
    for name, array in arrays.items():
        np.save(folder / "npy" / f"{name}.npy", array)
    np.savez(folder / "d.npz", **arrays)


def load(path, **options):
    return load_data(DatasetConfig("folder", path=str(path), **options), "", CPU)


@pytest.mark.parametrize("shape", [(3, 6, 6), (6, 6, 3), (6, 6)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_samples_on_disk_are_those_in_memory(tmp_path, shape, dtype):
    write(tmp_path, shape, dtype=dtype)
    options = {"augment": ["crop", "flip"], "padding": 2, "padding_mode": "reflect", "val_size": 8, "test_size": 8}
    options |= {"train_size": 40, "scale": "channel"}
    mapped, plain = load(tmp_path / "npy", **options), load(tmp_path / "d.npz", **options)
    assert mapped.train.rows is not None and plain.train.rows is None
    assert mapped.sha256 == plain.sha256 and torch.equal(mapped.index, plain.index)
    for part in ("test", "val"):
        one, other = getattr(mapped, part), getattr(plain, part)
        assert torch.equal(one.part(2, 7)[0], other.part(2, 7)[0]) and torch.equal(one.targets, other.targets)
    for data in (mapped, plain):
        data.train.start_epoch(0, 3)
    index = torch.tensor([31, 4, 17, 4])
    for one, other in zip(mapped.train.batch(index), plain.train.batch(index), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["lazy", "infobatch"])
def test_a_run_on_disk_gives_the_same_rows(call, tmp_path, rule):
    write(tmp_path)
    found = []
    for path in ("npy", "d.npz"):
        answer = call("dataset=folder", f"dataset.path={path}", "epochs=3", "batch_size=8", f"runs_dir={path}_runs",
                      f"rule={rule}", "model=cnn", "dataset.augment=[shift]")  # fmt: skip
        assert answer.code == 0, answer.err
        found.append(timeless(only_run(tmp_path / f"{path}_runs") / "metrics.csv"))
    assert found[0] == found[1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read ahead")]


PEAK = """
import re, sys, threading, time
import torch
from lazyexp.config.schema import DatasetConfig
import lazyexp.data.local, lazyexp.data.table_labels
from lazyexp.data import load_data

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

peak, over = 0.0, threading.Event()
def watch():
    global peak
    while not over.wait(0.002):
        peak = max(peak, anonymous())
torch.bincount(torch.zeros(9, dtype=torch.uint8)), torch.rand(9, 9) @ torch.rand(9, 9)
before = anonymous()
thread = threading.Thread(target=watch); thread.start()
config = DatasetConfig("folder", path=sys.argv[1], scale="channel", augment=["flip"])
data = load_data(config, "", torch.device("cpu"))
data.train.start_epoch(0, 0)
order = torch.randperm(len(data.train))
data.train.read_ahead(order)
for index in order.split(16):
    data.train.batch(index)
data.train.stop_reading()
over.set(); thread.join()
print(peak - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_array_on_disk_needs_little_memory(tmp_path):
    """120 MB of images: statistics, fingerprint, checks and an epoch within a fraction of that."""
    n, shape = 800, (3, 224, 224)
    array = np.lib.format.open_memmap(tmp_path / "x_train.npy", "w+", np.uint8, (n, *shape))
    array[:] = np.arange(224, dtype=np.uint8)
    array.flush()
    np.save(tmp_path / "x_test.npy", array[:4])
    np.save(tmp_path / "y_train.npy", np.arange(n) % 4)
    np.save(tmp_path / "y_test.npy", np.arange(4))
    command = [sys.executable, "-c", PEAK, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 60  # MB


def test_reading_ahead_stays_within_its_window():
    seen = []

    class Noted:
        shape = (100, 2**22)

        def index_select(self, dim, rows):
            seen.extend(rows.tolist())

    reader = ReadAhead(Noted())
    reader.start(torch.arange(99, -1, -1))
    wait_for(lambda: len(seen) == 16)  # 2^26 numbers
    reader.advance(10)
    wait_for(lambda: len(seen) == 26)
    assert seen == list(range(99, 73, -1))
    reader.start(torch.arange(100))
    wait_for(lambda: seen[26:] == list(range(16)))
    reader.stop()
    assert seen[26:] == list(range(16))


def wait_for(condition, seconds=10.0):
    over = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        over.wait(0.01)
    raise AssertionError("not in time")


def test_pieces_cover_an_array():
    array = torch.arange(3 * 2**19, dtype=torch.uint8).view(3, -1)
    assert [len(part) for part in pieces(array)] == [2, 1]
    assert torch.equal(torch.cat(list(pieces(array, torch.tensor([2, 0, 2])))), array[[2, 0, 2]])
    values = torch.rand(50, 7, generator=torch.Generator().manual_seed(0)) * 3 + 5
    scale, offset = standardisation(values, torch.arange(40))
    assert (values[:40].double() * scale + offset).mean() == pytest.approx(0, abs=1e-9)
    assert (values[:40].double() * scale + offset).std(unbiased=False) == pytest.approx(1, abs=1e-9)


def test_missing_and_damaged_files(tmp_path):
    write(tmp_path)
    (tmp_path / "npy" / "y_test.npy").unlink()
    with pytest.raises(UserError, match="npy has no y_test"):
        load(tmp_path / "npy")
    (tmp_path / "npy" / "y_test.npy").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"y_test.npy is not a readable .npy file"):
        load(tmp_path / "npy")


def test_images_are_decoded_once(tmp_path, capsys):
    x, y = toy(24, 3, (5, 7, 3))
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        folder = tmp_path / "images" / ("train" if i < 18 else "test") / f"c{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}.png")
    plain = load(tmp_path / "images")
    cached = {"options": {"cache": str(tmp_path / "cache")}}
    first = load(tmp_path / "images", **cached)
    assert "decoded 24 images" in capsys.readouterr().err
    again = load(tmp_path / "images", **cached)
    assert "decoded" not in capsys.readouterr().err
    assert first.train.rows is not None and plain.sha256 == first.sha256 == again.sha256
    index = torch.arange(18)
    assert torch.equal(plain.train.batch(index)[0], again.train.batch(index)[0])
    Image.fromarray(x[0, :4]).save(tmp_path / "images" / "train" / "c0" / "00.png")
    with pytest.raises(UserError, match="cache needs images of one kind; dataset.options.size=N resizes"):
        load(tmp_path / "images", **cached)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # nothing is left of the failed attempt


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_count_as_memory(tmp_path, version):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert memory.available(tmp_path) == 8000 * 1024
    group = "9:memory:/slurm/job_7" if version == 1 else "0::/slurm/job_7"
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpu,cpuacct:/\n{group}\n")
    root = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    limit, use, cache = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if version == 1
        else ("memory.max", "memory.current", "inactive_file")
    )
    for folder, numbers in (("slurm/job_7", ("max", "5", "0")), ("slurm", ("3000000", "1000000", "500000"))):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / limit).write_text(numbers[0])
        (root / folder / use).write_text(numbers[1])
        (root / folder / "memory.stat").write_text(f"anon 1\n{cache} {numbers[2]}\n")
    assert memory.available(tmp_path) == 2_500_000


def test_augmentation_on_disk_equals_that_in_memory():
    images = torch.randint(256, (20, 3, 9, 7), dtype=torch.uint8)
    kind = Augmentation(3, True, True, 2)
    mapped = Samples(images, torch.arange(10), augmentation=kind, rows=torch.arange(10))
    plain = Samples(images[:10], torch.arange(10), augmentation=kind)
    for samples in (plain, mapped):
        samples.start_epoch(1, 2)
    index = torch.tensor([9, 0, 3])
    assert torch.equal(plain.batch(index)[0], mapped.batch(index)[0])
