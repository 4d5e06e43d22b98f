"""A folder of images in torchvision's ImageFolder layout: train/<class>/*.png and test/<class>/*.png."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image

from lazyexp.data.arrays import Array, make_raw
from lazyexp.data.custom import stack_samples
from lazyexp.data.decoding import decoded, in_parallel
from lazyexp.data.labels import Targets
from lazyexp.data.raw import Raw
from lazyexp.data.splits import find_parts
from lazyexp.errors import UserError
from lazyexp.utils.memory import require


def find(path: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders train and test in `path`, and notes; empty if there are none. Raises UserError."""
    return find_parts(((entry.name, entry) for entry in sorted(path.iterdir()) if entry.is_dir()), path)


def load(folders: dict[str, Path], size: tuple[int, int] | None = None, cache: str | Path | None = None) -> Raw:
    """Samples of one size, in colour unless all are grey; classes are the sorted folder names.

    `size` (height, width) resizes. With `cache` the pixels are decoded once, into files in that folder, and stay on
    disk. Hidden files and folders are skipped, other files that are not images by name with a note. Raises UserError.
    """
    names = [str(folder) for folder in folders.values()]
    notes: list[str] = []
    files = {part: _files(folder, notes) for part, folder in folders.items()}
    classes, others = (sorted(found) for found in files.values())
    if classes != others:
        odd = min(set(classes) ^ set(others))
        raise UserError(f"{' and '.join(names)} must have the same classes, {odd} is in one of them alone")
    advice = "; dataset.options.size=N resizes them to N x N"
    if cache is not None:
        arrays = decoded(files, names, size, Path(cache).expanduser(), advice)
    else:
        samples = [_read(found, name, size) for found, name in zip(files.values(), names, strict=True)]
        arrays = stack_samples(samples, names, advice)
    labels = [
        torch.tensor([number for number, name in enumerate(classes) for _ in found[name]], dtype=torch.int64)
        for found in files.values()
    ]
    targets = Targets(labels[0], labels[1], max(len(classes), 2), classes, notes)
    if arrays[0].shape[-1] == 4 and arrays[0].ndim == 4:
        notes.append(f"{names[0]}: some images are transparent; all have 4 channels, the last one is the opacity")
    return make_raw(
        [arrays[0], labels[0].numpy(), arrays[1], labels[1].numpy()],
        [names[0], names[0], names[1], names[1]],
        targets,
    )


def is_hidden(name: str) -> bool:
    """Files and folders that operating systems and notebooks leave: .ipynb_checkpoints, ._1.png, __MACOSX."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _files(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """The image files of every class, in sorted order; those of nested folders, too. Raises UserError."""
    extensions = {name for name, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: dict[str, list[Path]] = {}
    skipped: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if is_hidden(entry.name):
            continue
        if not entry.is_dir():
            skipped.append(entry)
            continue
        files: list[Path] = []
        for root, folders, names in os.walk(entry, followlinks=True):
            folders[:] = sorted(name for name in folders if not is_hidden(name))
            seen = [Path(root) / name for name in sorted(names) if not is_hidden(name)]
            files += [file for file in seen if file.suffix.lower() in extensions]
            skipped += [file for file in seen if file.suffix.lower() not in extensions]
        if not files:
            raise UserError(f"{entry} holds no image files; delete it, or set dataset.path to another folder")
        found[entry.name] = files
    if not found:
        raise UserError(f"{folder} has no folders of classes in it")
    if skipped:
        notes.append(f"{folder}: {len(skipped)} files are not images in a folder of a class and are skipped: "
                     f"{skipped[0].relative_to(folder)}{', ...' if len(skipped) > 1 else ''}")  # fmt: skip
    return found


def _read(files: dict[str, list[Path]], name: str, size: tuple[int, int] | None) -> list[Array]:
    paths = [path for found in files.values() for path in found]
    samples: list[Array] = []
    for sample in in_parallel(paths, name, size):
        samples.append(sample)
        if len(samples) == 1:
            require(2 * len(paths) * sample.nbytes, name, "take fewer samples, or set dataset.options.cache=FOLDER")
    return samples
