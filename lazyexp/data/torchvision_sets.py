"""The published data sets through torchvision, which knows their files, checksums and layouts."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from lazyexp.config.registry import DATASETS
from lazyexp.data.idx import read_idx
from lazyexp.data.raw import Raw
from lazyexp.errors import UserError
from lazyexp.utils.terminal import NO_BAR, log, tqdm


@dataclass(frozen=True)
class Source:
    """torchvision's class of a data set, the EMNIST split, the numbers of classes and of official samples."""

    kind: str
    classes: int
    official: tuple[int, int]
    split: str | None = None


STALL = 30.0  # seconds without a byte after which a download fails
SOURCES = {name: Source(**entry.options) for name, entry in DATASETS.items() if "kind" in entry.options}


def load_torchvision(name: str, data_dir: str, mirror: str | None = None, **source_options: Any) -> Raw:
    """The named data set from `data_dir`, downloaded into it if it is missing. Raises UserError.

    The other arguments are the fields of `Source`.
    """
    source, root = Source(**source_options), Path(data_dir).expanduser()
    files = {part: _idx_files(source, root, part) for part in ("train", "test")}
    if not _present(source, root, files):
        _download(name, source, root, mirror)
    parts: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for part in ("train", "test"):
        where = [str(file) for file in files[part]] or [str(_folder(source, root))] * 2
        sources.update({f"{part}_images": where[0], f"{part}_targets": where[1]})
        if files[part]:
            # Not by torchvision: importing it takes two seconds, and it does not notice truncated files.
            images, targets = (torch.from_numpy(read_idx(file)) for file in files[part])
        else:
            with _readable_errors(name, source, root):
                images, targets = _arrays(source, _construct(source, root, part, download=False))
        parts.update({f"{part}_images": _images(source, images), f"{part}_targets": _targets(source, targets)})
    return Raw(**parts, classes=source.classes, sources=sources, official=source.official)


def is_there(name: str, root: Path) -> bool:
    """Whether the named data set can be read from `root` without a download."""
    source = SOURCES[name]
    return _present(source, root, {part: _idx_files(source, root, part) for part in ("train", "test")})


def _class(source: Source) -> Any:
    from torchvision import datasets

    return getattr(datasets, source.kind)


def _construct(source: Source, root: Path, part: str, download: bool) -> Any:
    if source.kind == "SVHN":
        return _class(source)(root, split=part, download=download)
    if source.split:
        return _class(source)(root, split=source.split, train=part == "train", download=download)
    return _class(source)(root, train=part == "train", download=download)


def _arrays(source: Source, dataset: Any) -> tuple[Tensor, Tensor]:
    """Samples and labels of a torchvision data set; some of its classes hold arrays, some lists."""
    labels = dataset.labels if source.kind == "SVHN" else dataset.targets
    return torch.as_tensor(np.asarray(dataset.data)), torch.as_tensor(np.asarray(labels))


def _images(source: Source, images: Tensor) -> Tensor:
    """(n, channels, height, width), whatever the layout."""
    if source.kind == "EMNIST" and images.dim() == 3:
        images = images.transpose(1, 2)  # stored transposed
    if images.dim() == 3:
        images = images.unsqueeze(1)
    elif source.kind.startswith("CIFAR"):
        images = images.permute(0, 3, 1, 2)
    return images.contiguous()


def _targets(source: Source, targets: Tensor) -> Tensor:
    """(n,) int64 from 0."""
    if source.kind == "QMNIST" and targets.dim() == 2:
        targets = targets[:, 0]  # the other columns describe the writer
    return targets.long() - int(source.split == "letters")  # EMNIST's letters start at 1


def _folder(source: Source, root: Path) -> Path:
    """The folder in which torchvision looks for the files."""
    in_raw = source.kind.endswith("MNIST")
    return root / source.kind / "raw" if in_raw else root


def _idx_files(source: Source, root: Path, part: str) -> list[Path]:
    """The unpacked images and labels files of a part, for the data sets that are in IDX format."""
    folder = _folder(source, root)
    if folder == root:
        return []
    if source.kind == "EMNIST":
        start = folder / f"emnist-{source.split}-{part}"
        return [Path(f"{start}-images-idx3-ubyte"), Path(f"{start}-labels-idx1-ubyte")]
    if source.kind == "QMNIST":
        return [folder / f"qmnist-{part}-images-idx3-ubyte", folder / f"qmnist-{part}-labels-idx2-int"]
    stem = "train" if part == "train" else "t10k"
    return [folder / f"{stem}-images-idx3-ubyte", folder / f"{stem}-labels-idx1-ubyte"]


def _present(source: Source, root: Path, files: dict[str, list[Path]]) -> bool:
    if any(files.values()):
        return all(file.exists() for part in files.values() for file in part)
    if source.kind.startswith("CIFAR"):
        return _cifar_is_unpacked(source, root)
    return all((root / name).exists() for _, name, _ in _resources(source))


def _cifar_is_unpacked(source: Source, root: Path) -> bool:
    """Whether all files of the archive are there; their checksums tell an unpacking that was cut off."""
    from torchvision.datasets.utils import check_integrity

    kind = _class(source)
    files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    return all(check_integrity(str(root / kind.base_folder / name), md5) for name, md5 in files)


def _resources(source: Source) -> list[tuple[str, str, str]]:
    """(URL, file name, md5) of the files to download."""
    kind = _class(source)
    if source.kind == "EMNIST":
        return [(kind.url, Path(kind.url).name, kind.md5)]
    if source.kind == "QMNIST":
        both = [*kind.resources["train"], *kind.resources["test"]]
        return [(url, Path(url).name, md5) for url, md5 in both]
    if source.kind in ("USPS", "SVHN"):
        return [tuple(kind.split_list[part]) for part in ("train", "test")]
    if source.kind.startswith("CIFAR"):
        return [(kind.url, kind.filename, kind.tgz_md5)]
    return [(kind.mirrors[0] + name, name, md5) for name, md5 in kind.resources]


def _download(name: str, source: Source, root: Path, mirror: str | None) -> None:
    """Download and unpack, one process at a time. Raises UserError."""
    from torchvision.datasets.utils import check_integrity

    resources, folder = _resources(source), _folder(source, root)
    files = ", ".join(file for _, file, _ in resources)
    by_hand = f"get {files} from {os.path.dirname(resources[0][0])} and put it into {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(root / f".{source.kind}.lock", name), _no_longer_than(STALL):
            there = all(check_integrity(str(folder / file), md5) for _, file, md5 in resources)
            log(f"{'unpacking' if there else 'downloading'} {name} into {folder}")
            if mirror:
                for _, file, md5 in resources:
                    _from_mirror(f"{mirror.rstrip('/')}/{file}", folder / file, md5)
            for part in ("train", "test"):
                _construct(source, root, part, download=True)
    except (urllib.error.URLError, TimeoutError, ConnectionError, RuntimeError) as error:
        raise UserError(f"dataset {name} could not be downloaded ({_line(error)}); {by_hand}") from None
    except (OSError, Timeout) as error:
        raise UserError(f"cannot write the data set into {folder}: {_line(error)}; set data_dir") from None


@contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log(f"waiting for another run that downloads {name} (lock: {path})")
        lock.acquire(timeout=24 * 3600)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Make every wait for a byte end in a TimeoutError; torchvision has no timeout."""
    former = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(former)


def _from_mirror(url: str, path: Path, md5: str) -> None:
    """Download from the mirror to the path where torchvision looks first, if the checksum is right."""
    from torchvision.datasets.utils import check_integrity

    if check_integrity(str(path), md5):
        return
    partial = path.with_name(f".{path.name}.part")
    try:
        with urllib.request.urlopen(url, timeout=STALL) as answer, partial.open("wb") as stream:
            size = int(answer.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=NO_BAR) as bar:
                while part := answer.read(2**20):
                    stream.write(part)
                    bar.update(len(part))
        if not check_integrity(str(partial), md5):
            raise ValueError("its checksum is not the published one")
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        log(f"{url}: {_line(error)}; trying the official address")
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _readable_errors(name: str, source: Source, root: Path) -> Iterator[None]:
    """Turn the many exceptions of torchvision on damaged files into a UserError that names the files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        files = ", ".join(file for _, file, _ in _resources(source))
        raise UserError(
            f"dataset {name} cannot be read ({_line(error)}); delete {files} and the files unpacked from it "
            f"in {_folder(source, root)}, then run the command again"
        ) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
