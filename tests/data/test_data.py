"""Every published format at its smallest; downloads, damage; local data; subsets, scaling, augmentation."""

from __future__ import annotations

import bz2
import hashlib
import multiprocessing
import pickle
import shutil
import tarfile
import urllib.error
import zipfile

import numpy as np
import pytest
import torch
from conftest import REAL, needs_data, toy, write_idx

from lazyexp.config.schema import DatasetConfig
from lazyexp.data import Samples, load_data, load_raw
from lazyexp.data.idx import read_idx
from lazyexp.data.local import load_folder
from lazyexp.data.npz import PARTS
from lazyexp.data.torchvision_sets import SOURCES
from lazyexp.errors import UserError

CPU = torch.device("cpu")


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def load(name, root, **options):
    return load_data(DatasetConfig(name=name, **options), str(root), CPU)


def write_mnist_like(folder, train="train", test="t10k", n=(60, 20), first_label=0, classes=10):
    for part, count in ((train, n[0]), (test, n[1])):
        images, labels = toy(count, classes)
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels + first_label)


# --- each published format -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_mnist_format(tmp_path, name):
    write_mnist_like(tmp_path / SOURCES[name].kind / "raw")
    raw = load_raw(DatasetConfig(name=name), str(tmp_path))
    images, labels = toy(60)
    assert raw.train_images.shape == (60, 1, 28, 28) and raw.test_images.shape == (20, 1, 28, 28)
    assert np.array_equal(raw.train_images[:, 0].numpy(), images)
    assert raw.train_targets.tolist() == labels.tolist()
    assert "not the official data set: 60 training and 20 test images" in raw.notes[0]
    assert "60,000 and 10,000" in raw.notes[0]


@pytest.mark.parametrize("split", ["digits", "balanced", "letters", "byclass", "bymerge", "mnist"])
def test_emnist_format(tmp_path, split):
    name = "emnist" if split == "digits" else f"emnist_{split}"
    stem, first = f"emnist-{split}", 1 if split == "letters" else 0
    folder = tmp_path / "EMNIST" / "raw"
    write_mnist_like(folder, f"{stem}-train", f"{stem}-test", first_label=first)
    raw = load_raw(DatasetConfig(name=name), str(tmp_path))
    images, labels = toy(60)
    assert np.array_equal(raw.train_images[:, 0].numpy(), images.transpose(0, 2, 1))  # upright
    assert raw.train_targets.tolist() == labels.tolist()  # letters: from 0
    assert (
        raw.classes == {"digits": 10, "balanced": 47, "letters": 26, "byclass": 62, "bymerge": 47, "mnist": 10}[split]
    )


def test_qmnist_format(tmp_path):
    folder = tmp_path / "QMNIST" / "raw"
    for part in ("train", "test"):
        images, labels = toy(30)
        columns = np.zeros((30, 8), np.int32)
        columns[:, 0], columns[:, 1:] = labels, 77
        write_idx(folder / f"qmnist-{part}-images-idx3-ubyte", images)
        write_idx(folder / f"qmnist-{part}-labels-idx2-int", columns)
    raw = load_raw(DatasetConfig(name="qmnist"), str(tmp_path))
    assert raw.train_targets.tolist() == toy(30)[1].tolist()
    assert raw.test_images.shape == (30, 1, 28, 28)


def test_usps_format(tmp_path, monkeypatch):
    from torchvision.datasets import USPS

    images, labels = toy(20, shape=(16, 16))
    for part in ("train", "test"):
        lines = [
            f"{label + 1} " + " ".join(f"{i + 1}:{v / 255 * 2 - 1:.4f}" for i, v in enumerate(image.flatten()))
            for image, label in zip(images, labels, strict=True)
        ]
        name = USPS.split_list[part][1]
        (tmp_path / name).write_bytes(bz2.compress(("\n".join(lines) + "\n").encode()))
    raw = load_raw(DatasetConfig(name="usps"), str(tmp_path))
    assert raw.train_images.shape == (20, 1, 16, 16)
    assert np.abs(raw.train_images[:, 0].numpy().astype(int) - images).max() <= 1
    assert raw.train_targets.tolist() == labels.tolist()


def test_svhn_format(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images, labels = toy(20, shape=(32, 32, 3))
    ten_for_zero = np.where(labels == 0, 10, labels)[:, None]
    listing = dict(SVHN.split_list)
    for part in ("train", "test"):
        url, name, _ = SVHN.split_list[part]
        savemat(tmp_path / name, {"X": images.transpose(1, 2, 3, 0), "y": ten_for_zero})
        listing[part] = [url, name, md5(tmp_path / name)]
    monkeypatch.setattr(SVHN, "split_list", listing)
    raw = load_raw(DatasetConfig(name="svhn"), str(tmp_path))
    assert raw.train_images.shape == (20, 3, 32, 32)
    assert np.array_equal(raw.train_images.numpy(), images.transpose(0, 3, 1, 2))
    assert raw.train_targets.tolist() == labels.tolist()


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Writes a CIFAR archive with its unpacked files and makes torchvision expect their checksums."""
    from torchvision import datasets

    def write(name):
        kind = getattr(datasets, SOURCES[name].kind)
        folder = tmp_path / kind.base_folder
        folder.mkdir()
        images, labels = toy(20, shape=(32, 32, 3))
        content = {
            "data": images.transpose(0, 3, 1, 2).reshape(20, -1),
            "labels" if name == "cifar10" else "fine_labels": labels.tolist(),
        }
        for attribute in ("train_list", "test_list"):
            listing = []
            for file, _ in getattr(kind, attribute):
                (folder / file).write_bytes(pickle.dumps(content))
                listing.append([file, md5(folder / file)])
            monkeypatch.setattr(kind, attribute, listing)
        meta = {kind.meta["key"]: [str(i) for i in range(100)]}
        (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})
        with tarfile.open(tmp_path / kind.filename, "w:gz") as archive:
            archive.add(folder, arcname=kind.base_folder)
        monkeypatch.setattr(kind, "tgz_md5", md5(tmp_path / kind.filename))
        return images, labels

    return write


@pytest.mark.parametrize("name, batches", [("cifar10", 5), ("cifar100", 1)])
def test_cifar_format(tmp_path, cifar, name, batches):
    images, labels = cifar(name)
    raw = load_raw(DatasetConfig(name=name), str(tmp_path))
    assert raw.train_images.shape == (20 * batches, 3, 32, 32)
    assert np.array_equal(raw.test_images.numpy(), images.transpose(0, 3, 1, 2))
    assert raw.test_targets.tolist() == labels.tolist()


def test_digits_are_bundled(tmp_path):
    data = load("digits", tmp_path)
    assert (len(data.train), len(data.test), data.classes, data.shape) == (1437, 360, 10, (1, 8, 8))
    counts = torch.bincount(data.test.targets)
    assert counts.max() - counts.min() <= 3


@pytest.mark.slow
def test_digits_are_those_of_scikit_learn_in_its_split():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from lazyexp.data.local import load_digits as bundled

    raw, original = bundled(), load_digits()
    parts = train_test_split(
        original.images, original.target, test_size=360, stratify=original.target, random_state=0
    )
    for mine, part in zip((raw.train_images[:, 0], raw.test_images[:, 0], raw.train_targets, raw.test_targets),
                          parts, strict=True):  # fmt: skip
        assert torch.equal(mine.double(), torch.from_numpy(part).double())
    assert raw.sha256() == "6e60a5124e7b743165dbed5ae3d5f7d5d6fc20a39273a501f5ba87880f112e65"


# --- downloading -----------------------------------------------------------------------------------------


def emnist_archive(path):
    """A gzip.zip as EMNIST is published: one archive with all splits."""
    inner = path.parent / "inner"
    with zipfile.ZipFile(path, "w") as archive:
        for split in ("byclass", "bymerge", "balanced", "letters", "digits", "mnist"):
            for part in ("train", "test"):
                images, labels = toy(20)
                for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
                    name = f"emnist-{split}-{part}-{kind}-ubyte.gz"
                    write_idx(inner / name, array, zipped=True)
                    archive.write(inner / name, f"gzip/{name}")


def test_a_mirror_is_tried_first_and_checksums_hold(tmp_path, monkeypatch, capsys):
    from torchvision.datasets import EMNIST

    mirror = tmp_path / "mirror"
    mirror.mkdir()
    emnist_archive(mirror / "gzip.zip")
    monkeypatch.setattr(EMNIST, "md5", md5(mirror / "gzip.zip"))
    monkeypatch.setattr(EMNIST, "url", "file:///nonexistent/gzip.zip")
    data = load("emnist", tmp_path / "data", mirror=f"file://{mirror}")
    assert len(data.train) == 20
    assert "trying the official address" not in capsys.readouterr().err

    monkeypatch.setattr(EMNIST, "md5", "0" * 32)
    with pytest.raises(UserError, match="could not be downloaded"):
        load("emnist", tmp_path / "other", mirror=f"file://{mirror}")
    assert "checksum is not the published one; trying the official address" in capsys.readouterr().err


def test_processes_that_start_together_do_not_spoil_each_others_download(tmp_path, monkeypatch):
    from torchvision.datasets import EMNIST

    (tmp_path / "mirror").mkdir()
    emnist_archive(tmp_path / "mirror" / "gzip.zip")
    monkeypatch.setattr(EMNIST, "md5", md5(tmp_path / "mirror" / "gzip.zip"))
    monkeypatch.setattr(EMNIST, "url", "file:///nonexistent/gzip.zip")

    def fetch():
        data = load("emnist", tmp_path / "data", mirror=f"file://{tmp_path}/mirror")
        assert len(data.train) == 20

    # Forked, so that the children know the made-up checksum.
    processes = [multiprocessing.get_context("fork").Process(target=fetch) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4


@pytest.mark.parametrize("name", ["mnist", "emnist", "qmnist", "usps", "svhn", "cifar10"])
def test_without_a_network_the_error_names_what_to_download(tmp_path, monkeypatch, name):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError) as error:
        load(name, tmp_path)
    assert str(tmp_path) in str(error.value) and "could not be downloaded" in str(error.value)
    archive = {"mnist": "train-images-idx3-ubyte.gz", "emnist": "gzip.zip", "svhn": "train_32x32.mat"}
    assert archive.get(name, "") in str(error.value)
    assert "http" in str(error.value)


# --- damage ----------------------------------------------------------------------------------------------


def damaged_mnist(tmp_path, damage):
    folder = tmp_path / "MNIST" / "raw"
    write_mnist_like(folder)
    damage(folder)
    with pytest.raises(UserError) as error:
        load("mnist", tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize("keep", [0, 3, 10, 16, 1000])
def test_truncated_files_are_named(tmp_path, keep):
    def cut(folder):
        (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:keep])

    message = damaged_mnist(tmp_path, cut)
    assert IMAGES in message and "delete it" in message


def test_a_large_truncated_file_is_noticed(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    images, labels = toy(3000)
    write_mnist_like(folder)
    write_idx(folder / IMAGES, images)
    write_idx(folder / LABELS, labels)
    assert len(load("mnist", tmp_path).train) == 3000
    (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated.*header asks for 2352016"):
        load("mnist", tmp_path)


def test_wrong_magic_number(tmp_path):
    message = damaged_mnist(tmp_path, lambda f: (f / IMAGES).write_bytes(b"<html>not found</html>" * 9))
    assert IMAGES in message and "not an IDX file" in message


def test_mislabelled(tmp_path):
    labels = toy(60)[1]
    message = damaged_mnist(tmp_path, lambda f: write_idx(f / LABELS, labels + 7))
    assert LABELS in message and "labels run from 7 to 16" in message


def test_fewer_labels_than_images(tmp_path):
    message = damaged_mnist(tmp_path, lambda f: write_idx(f / LABELS, toy(50)[1]))
    assert "60 samples" in message and "50 labels" in message


@pytest.mark.parametrize("cut_off", [False, True])
def test_an_archive_that_was_put_there_by_hand_is_unpacked(tmp_path, cifar, cut_off, capsys):
    """Also if unpacking was cut off before: a file is missing, another one is damaged."""
    images, _ = cifar("cifar10")
    unpacked = tmp_path / "cifar-10-batches-py"
    if cut_off:
        (unpacked / "data_batch_3").write_bytes(b"nonsense")
        (unpacked / "test_batch").unlink()
    else:
        shutil.rmtree(unpacked)
    data = load("cifar10", tmp_path)
    assert np.array_equal(data.test.pixels.view(-1, 3, 32, 32).numpy(), images.transpose(0, 3, 1, 2))
    assert "unpacking cifar10" in capsys.readouterr().err


def test_corrupt_archives_are_named(tmp_path, cifar):
    cifar("cifar10")
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"nonsense")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"get cifar-10-python.tar.gz from http.* and put it into"):
        load("cifar10", tmp_path)


# --- local data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_local_idx_files(tmp_path, zipped):
    suffix = ".gz" if zipped else ""
    for part, n in (("train", 60), ("t10k", 20)):
        images, labels = toy(n, 3, (5, 9))
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images, zipped)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", labels, zipped)
    data = load("folder", tmp_path, path=str(tmp_path))
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((1, 5, 9), 3, 60, 20)


@pytest.mark.parametrize("shape, expected", [((7, 5), (1, 7, 5)), ((7, 5, 3), (3, 7, 5)), ((3, 7, 5), (3, 7, 5))])
def test_npz(tmp_path, shape, expected):
    x, y = toy(40, 4, shape)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])
    data = load("folder", tmp_path, path=str(tmp_path / "d.npz"))
    assert (data.shape, data.classes) == (expected, 4)
    channels_last = shape[-1] == 3
    image = x[0].transpose(2, 0, 1) if channels_last else x[0].reshape(expected)
    shown = (data.train.batch(torch.tensor([0]))[0][0] - data.train.offset) / data.train.scale
    assert np.allclose(shown.numpy(), image, atol=1e-3)


def test_float_images(tmp_path):
    x, y = np.random.default_rng(0).random((40, 6, 6)), np.arange(40) % 4
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = load("folder", tmp_path, path=str(tmp_path / "d.npz"), scale="unit")
    assert np.allclose(data.test.part(0, 40)[0][:, 0].numpy(), x, atol=1e-6)


def npz_problem(tmp_path, **changes):
    x, y = toy(40, 4, (6, 6))
    parts = {"x_train": x, "y_train": y, "x_test": x, "y_test": y, **changes}
    path = tmp_path / "d.npz"
    np.savez(path, **{k: v for k, v in parts.items() if v is not None})
    with pytest.raises(UserError) as error:
        load("folder", tmp_path, path=str(path))
    return str(error.value)


def test_local_data_are_checked(tmp_path):
    x, y = toy(40, 4, (6, 6))
    with_nan = x.astype(float)
    with_nan[3, 2, 1] = np.nan
    assert "has no y_test" in npz_problem(tmp_path, y_test=None)
    assert "NaN" in npz_problem(tmp_path, x_train=with_nan, x_test=x.astype(float))
    assert "from 0 to 255" in npz_problem(tmp_path, x_train=x.astype(int) + 200)
    assert "whole numbers" in npz_problem(tmp_path, y_train=y + 0.5)
    assert "labels run from -1" in npz_problem(tmp_path, y_train=y.astype(int) - 1)
    assert "labels run from 6 to 9" in npz_problem(tmp_path, y_test=y + 6)
    assert "differ in size" in npz_problem(tmp_path, x_test=x[:, :5])
    assert "40 samples but" in npz_problem(tmp_path, y_train=y[:30])
    assert "holds no" in npz_problem(tmp_path, x_train=x[:0], y_train=y[:0])
    assert "not a readable .npz" in npz_problem(tmp_path, x_train=np.array([{}] * 40, dtype=object))
    with pytest.raises(UserError, match="no such file"):
        load("folder", tmp_path, path="/nowhere")
    (tmp_path / "not.npz").write_text("hello")
    with pytest.raises(UserError, match="not a readable"):
        load("folder", tmp_path, path=str(tmp_path / "not.npz"))


# --- subsets, scaling, augmentation ----------------------------------------------------------------------


def test_train_size_is_balanced_nested_and_seed_independent(tmp_path):
    small, large = load("digits", tmp_path, train_size=200), load("digits", tmp_path, train_size=800)
    assert len(small.train) == 200 and len(large.train) == 800
    assert torch.bincount(small.train.targets).tolist() == [20] * 10
    assert set(small.index.tolist()) < set(large.index.tolist())
    assert torch.equal(small.index, load("digits", tmp_path, train_size=200).index)


def test_val_size_holds_samples_out(tmp_path):
    data = load("digits", tmp_path, val_size=300)
    assert (len(data.train), len(data.val)) == (1137, 300)
    assert torch.bincount(data.val.targets).tolist() == [30] * 10
    assert not data.val.augmented
    everything = load_raw(DatasetConfig(), "")
    again = torch.cat([data.train.pixels, data.val.pixels]).sum()
    assert again == everything.train_images.sum()


def test_sizes_beyond_the_data_are_refused(tmp_path):
    for options, message in (
        ({"train_size": 1438}, "larger than the data, 1437"),
        ({"val_size": 1437}, "too large"),
        ({"val_size": 437, "train_size": 1001}, "larger than the data, 1000"),
    ):
        with pytest.raises(UserError, match=message):
            load("digits", tmp_path, **options)


def test_scales(tmp_path):
    data = load("digits", tmp_path)
    x, _ = data.train.part(0, len(data.train))
    assert float(x.mean()) == pytest.approx(0, abs=1e-5) and float(x.std()) == pytest.approx(1, abs=1e-3)
    x, _ = load("digits", tmp_path, scale="unit").train.part(0, 1437)
    assert float(x.min()) == 0 and float(x.max()) == 1


def test_shift_moves_every_sample_and_lets_black_in():
    pixels = torch.randint(1, 256, (50, 3, 6, 7), dtype=torch.uint8)
    images = Samples(pixels, torch.arange(50), max_shift=2)
    images.start_epoch(0, 0)
    x, y = images.batch(torch.arange(50))
    assert x.shape == (50, 3, 6, 7) and torch.equal(y, torch.arange(50))
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2)).float()
    corners = set()
    for i in range(50):
        matches = [
            (r, c) for r in range(5) for c in range(5) if torch.equal(padded[i, :, r : r + 6, c : c + 7], x[i])
        ]
        assert len(matches) == 1
        corners.add(matches[0])
    assert len(corners) > 15  # of 25
    alone = images.batch(torch.tensor([17]))[0]
    assert torch.equal(alone[0], x[17])  # however the batch is composed
    images.start_epoch(0, 1)
    assert not torch.equal(images.batch(torch.arange(50))[0], x)
    images.start_epoch(0, 0)
    assert torch.equal(images.batch(torch.arange(50))[0], x)


def test_a_subset_has_the_samples_that_a_run_selected(tmp_path):
    data = load("digits", tmp_path)
    learned = torch.zeros(1437, dtype=torch.int32)
    learned[[5, 77, 1000]] = torch.tensor([1, 2, 3], dtype=torch.int32)
    path = tmp_path / "learned.npz"
    np.savez(path, index=data.index.numpy(), learned=learned.numpy(), data_sha256=np.array(data.sha256))
    subset = load("digits", tmp_path, subset=str(path))
    assert subset.index.tolist() == [5, 77, 1000]
    assert subset.train.scale == data.train.scale  # the same pixels for the network
    np.savez(path, index=data.index.numpy(), learned=learned.numpy(), data_sha256=np.array("other"))
    with pytest.raises(UserError, match="another data set"):
        load("digits", tmp_path, subset=str(path))
    with pytest.raises(UserError, match="not a readable learned.npz"):
        load("digits", tmp_path, subset="/nowhere.npz")


@pytest.mark.parametrize(
    "score, size, expected",
    [
        ("learned", None, [2, 5, 9]),
        ("learned", 1, [9]),
        ("forgetting", None, [2, 3, 8]),  # 8 was never right, 2 and 3 were forgotten most
        ("forgetting", 1, [8]),
        ("el2n", 2, [0, 4]),
    ],
)
def test_subsets_by_score(tmp_path, score, size, expected):
    data = load("digits", tmp_path)
    zeros = np.zeros(10, dtype=np.int32)
    arrays = {name: zeros.copy() for name in ("learned", "forgotten", "misclassified")}
    arrays["presented"], arrays["el2n"] = zeros + 4, np.zeros(10, dtype=np.float32)
    arrays["learned"][[2, 5, 9]] = 1, 2, 3
    arrays["forgotten"][[2, 3, 1]] = 2, 2, 1
    arrays["misclassified"][[8, 1]] = 4, 3
    arrays["el2n"][[0, 4, 7]] = 1.2, 0.9, 0.1
    np.savez(tmp_path / "learned.npz", index=np.arange(10), data_sha256=np.array(data.sha256), **arrays)
    subset = load("digits", tmp_path, subset=str(tmp_path / "learned.npz"), subset_score=score, subset_size=size)
    assert subset.index.tolist() == expected
    with pytest.raises(UserError, match="11 of the training samples are wanted"):
        load("digits", tmp_path, subset=str(tmp_path / "learned.npz"), subset_score=score, subset_size=11)


def test_scores_of_several_runs_are_averaged(tmp_path):
    """EL2N as its authors define it is the mean of ten networks; here of two that disagree."""
    data = load("digits", tmp_path)
    for run, el2n in enumerate(([1.0, 0.2, 0.6, 0.0], [0.0, 0.6, 0.6, 0.9])):
        (tmp_path / f"run{run}").mkdir()
        np.savez(
            tmp_path / f"run{run}" / "learned.npz", index=np.arange(4), learned=np.ones(4, dtype=np.int32),
            el2n=np.array(el2n, dtype=np.float32), data_sha256=np.array(data.sha256),
        )  # fmt: skip
    pattern = str(tmp_path / "run*" / "learned.npz")
    assert load("digits", tmp_path, subset=pattern, subset_score="el2n", subset_size=1).index.tolist() == [2]  # 0.6
    both = load("digits", tmp_path, subset=pattern, subset_score="el2n", subset_size=2)
    assert both.index.tolist() == [0, 2]  # 0.5 and 0.6; 0.4 and 0.45 stay out
    with pytest.raises(UserError, match="several runs score; set dataset.subset_size"):
        load("digits", tmp_path, subset=pattern, subset_score="el2n")
    with pytest.raises(UserError, match="no such files"):
        load("digits", tmp_path, subset=str(tmp_path / "nothing*" / "learned.npz"))


def test_read_idx_reads_all_types(tmp_path):
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4) - 5
    write_idx(tmp_path / "a", array)
    assert np.array_equal(read_idx(tmp_path / "a"), array)


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name, n, mean, std", [("mnist", 60000, 0.1307, 0.3081), ("emnist", 109000, 0.1732, 0.3316)])
def test_real_data(name, n, mean, std):
    data = load(name, REAL)
    assert len(data.train) == n
    assert 1 / (255 * data.train.scale) == pytest.approx(std, abs=1e-4)
    assert -data.train.offset / (255 * data.train.scale) == pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\0", id="255 dimensions"),
        pytest.param(b"\0\0\x08\x03" + b"\xff\xff\xff\xff" * 2 + b"\0\0\0\0", id="huge counts and a zero"),
        pytest.param(b"\0\0\x08\x00", id="no dimension"),
    ],
)
def test_wrong_idx_headers(tmp_path, header):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(header)
    with pytest.raises(UserError, match="train-images"):
        read_idx(path)


def test_an_npz_with_a_member_that_is_not_an_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        for part in PARTS:
            archive.writestr(part, b"text")
    with pytest.raises(UserError, match="x_train is not an array"):
        load_folder(tmp_path / "odd.npz")


@pytest.mark.parametrize(
    "arrays",
    [
        {"index": [0.0, 1.0], "learned": [1, 1]},
        {"index": ["a", "b"], "learned": [1, 1]},
        {"index": [0, 1], "learned": [1]},
        {"index": [0, 10**9], "learned": [1, 1]},
        {"index": [0, -1], "learned": [1, 1]},
        {"index": [0, 0], "learned": [1, 1]},
        {"index": [0, 1], "learned": [1, -1]},
        {"index": [0, 1]},
        {"index": [0, 1], "learned": [0, 0]},
        b"PK\3\4 and then nothing",
        b"",
    ],
    ids=str,
)
def test_a_subset_file_that_no_run_wrote(tmp_path, arrays):
    path = tmp_path / "learned.npz"
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    else:
        sha256 = load_raw(DatasetConfig(), "data").sha256()
        np.savez(path, **{name: np.array(values) for name, values in arrays.items()}, data_sha256=np.array(sha256))
    with pytest.raises(UserError, match="dataset.subset="):
        load_data(DatasetConfig(subset=str(path)), "data", torch.device("cpu"))
