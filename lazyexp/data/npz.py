"""One .npz file with four arrays, under the names of this program, of Keras or of MedMNIST."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from lazyexp.data.arrays import Array
from lazyexp.data.idx import INFLATES
from lazyexp.errors import UserError
from lazyexp.utils.memory import require

PARTS = ("x_train", "y_train", "x_test", "y_test")
# Other names of the four arrays, in lower case.
ALIASES = {
    "x_train": ("x_train", "train_x", "xtrain", "train_images", "train_data", "images_train"),
    "y_train": ("y_train", "train_y", "ytrain", "train_labels", "train_targets", "labels_train"),
    "x_test": ("x_test", "test_x", "xtest", "test_images", "test_data", "images_test"),
    "y_test": ("y_test", "test_y", "ytest", "test_labels", "test_targets", "labels_test"),
}


def read_npz(path: Path, notes: list[str]) -> tuple[list[Array], list[str]]:
    """The four arrays of a file in the order of `PARTS`, and their names for errors. Raises UserError."""
    arrays = []
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise UserError(f"{path} is a single array, not an .npz with {', '.join(PARTS)}")
            keys = _keys(archive.files, path)
            _require_memory(path, keys)
            for key in keys:
                array = archive[key]
                if not isinstance(array, np.ndarray):  # NumPy returns other members of the archive as bytes
                    raise UserError(f"{path}: {key} is not an array")
                arrays.append(array)
            unread = [key for key in archive.files if key not in keys]
            if unread:
                notes.append(f"{path}: {', '.join(unread[:5])} {'is' if len(unread) == 1 else 'are'} not read")
    except UserError:
        raise
    except Exception as error:  # NumPy and zipfile meet damaged files with many types of exceptions
        reason = " ".join(str(error).split()).split(" This file", 1)[0][:150] or type(error).__name__
        raise UserError(f"{path} is not a readable .npz file: {reason}") from None
    return arrays, [f"{path}:{key}" for key in keys]


def find_npy(folder: Path) -> dict[str, Path]:
    """The files of a folder that hold the four arrays, by part; empty without training samples. Raises UserError."""
    files = {file.stem: file for file in sorted(folder.glob("*.npy")) if file.is_file()}
    if not any(stem.lower().replace("-", "_") in ALIASES["x_train"] for stem in files):
        return {}
    return dict(zip(PARTS, (files[key] for key in _keys(list(files), folder)), strict=True))


def read_npy(files: dict[str, Path]) -> tuple[list[Array], list[str]]:
    """The four arrays in the order of `PARTS`, samples memory-mapped, and their names. Raises UserError."""
    arrays = []
    for part, file in files.items():
        try:  # mode c: a change of the array would not reach the file
            arrays.append(np.load(file, mmap_mode="c" if part.startswith("x") else None, allow_pickle=False))
        except Exception as error:  # NumPy meets damaged files with many types of exceptions
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise UserError(f"{file} is not a readable .npy file: {reason}") from None
    return arrays, [str(file) for file in files.values()]


def _keys(files: list[str], path: Path) -> list[str]:
    """The names in the archive of the four arrays. Raises UserError."""
    keys = []
    missing = []
    for part, names in ALIASES.items():
        found = [key for key in files if key.lower().replace("-", "_") in names]
        if len(found) > 1:
            raise UserError(f"{path} has both {found[0]} and {found[1]}; keep one of them")
        keys += found
        missing += [] if found else [part]
    if missing:
        raise UserError(
            f"{path} has no {', '.join(missing)} (an .npz needs {', '.join(PARTS)}; this one has "
            f"{', '.join(files[:10]) or 'nothing'})"
        )
    return keys


def _require_memory(path: Path, keys: list[str]) -> None:
    """Refuse an archive that unpacks to more than the free memory, by its table of contents. Raises UserError."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.removesuffix(".npy") in keys]
    for member in members:
        if member.file_size > (member.compress_size + 1) * INFLATES:
            raise UserError(f"{path}: {member.filename} cannot be as large as the archive states")
    require(2 * sum(member.file_size for member in members), f"{path}", "take fewer samples")
