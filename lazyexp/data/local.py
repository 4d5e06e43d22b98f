"""Data on the user's disk (`dataset=folder`) and the bundled digits: everything that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lazyexp.data import image_folder
from lazyexp.data.arrays import PARTS, Array, make_raw
from lazyexp.data.idx import read_idx
from lazyexp.data.npz import find_npy, read_npy, read_npz
from lazyexp.data.raw import Raw
from lazyexp.errors import UserError

IDX_NAMES = ("train-images", "train-labels", "t10k-images", "t10k-labels")
DIGITS = Path(__file__).with_name("digits.npz")
DIGITS_PARTS = ("x_train", "y_train", "x_test", "y_test")
WANTED = (
    "an .npz, a table (.csv, .tsv, .parquet), or a folder with train/<class>/*.png and test/<class>/*.png, with "
    "train.csv and test.csv, with x_train.npy, y_train.npy, x_test.npy and y_test.npy, or with MNIST's IDX files"
)


def load_digits() -> Raw:
    """scikit-learn's 1,797 real 8x8 digits in a fixed split: 1,437 training and 360 test samples.

    From a file of this package, because importing scikit-learn takes a second. They are the test set of the UCI
    Machine Learning Repository's "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, CC BY 4.0),
    split by train_test_split(test_size=360, stratify=labels, random_state=0).
    """
    with np.load(DIGITS, allow_pickle=False) as archive:
        x_train, y_train, x_test, y_test = (torch.from_numpy(archive[name]) for name in DIGITS_PARTS)
    return Raw(x_train, y_train.long(), x_test, y_test.long(), 10, dict.fromkeys(PARTS, "digits"), white=16.0)


def load_folder(
    path: str | Path, label: Any = None, drop: Any = None, keep: Any = None, size: Any = None, cache: Any = None
) -> Raw:
    """The data set at `path`: IDX files or four .npy files in a folder, one .npz, a folder of images, or tables.

    `label` is the column of a table with the classes (default: label), `drop` are columns to leave out, `keep`
    columns to use although they seem to count the rows; see `tables`. `size` resizes images to (size, size) or to
    (height, width), `cache` is a folder for their pixels; see `image_folder`. Raises UserError.
    """
    from lazyexp.data import tables  # imports pandas, which takes a second

    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"dataset.path={path}: no such file or folder")
    folders: dict[str, Path] = {}
    files: dict[str, list[Path]] = {}
    notes: list[str] = []
    try:
        if path.is_dir():
            folders, notes = image_folder.find(path)
        if not folders:
            files, notes = tables.find(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    columns = {"label": label, "drop": drop, "keep": keep}
    given = [key for key, value in columns.items() if value is not None]
    if given and not files:
        raise UserError(f"dataset.options.{given[0]}={columns[given[0]]}: must be left out, {path} is not a table")
    if folders:
        raw = image_folder.load(folders, _size(size), cache)
    elif files:
        options = tables.Options.checked("label" if label is None else label, drop, keep)
        raw = tables.load(files, options, _size(size))
    else:
        if cache is not None:
            raise UserError(f"dataset.options.cache={cache}: must be left out, {path} is not a folder of image files")
        if size is not None:
            raise UserError(f"dataset.options.size={size}: must be left out, {path} is not a folder of image files")
        mapped = find_npy(path) if path.is_dir() else {}
        if mapped:
            arrays, names = read_npy(mapped)
        else:
            arrays, names = _read_idx(path, notes) if path.is_dir() else _read_file(path, notes)
        raw = make_raw(arrays, names)
    raw.notes = notes + raw.notes
    return raw


def _size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = list(size) if isinstance(size, (list, tuple)) else [size, size]
    whole = len(pair) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in pair)
    if not whole or not all(1 <= side <= 10_000 for side in pair):
        raise UserError(f"dataset.options.size={size}: must be N or [height,width], from 1 to 10,000 pixels")
    return pair[0], pair[1]


def _read_file(path: Path, notes: list[str]) -> tuple[list[Array], list[str]]:
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise UserError(f"{path} is a spreadsheet; save it as .csv")
    if path.suffix.lower() not in (".npz", ".npy", ""):
        raise UserError(f"{path}: files of the kind {path.suffix} are not read; dataset.path must be {WANTED}")
    return read_npz(path, notes)


def _read_idx(folder: Path, notes: list[str]) -> tuple[list[Array], list[str]]:
    """The four IDX files of a folder. Raises UserError."""
    files: list[Path] = []
    for name in IDX_NAMES:
        found = sorted(file for file in folder.glob(f"{name}*") if file.is_file())
        if not found and not files:
            raise UserError(f"{folder}: {_hint(folder)}dataset.path must be {WANTED} (no file {name}-idx*-ubyte)")
        if not found:
            raise UserError(f"{folder} has no file {name}-idx*-ubyte (or .gz)")
        files.append(found[0])
        others = [file for file in found[1:] if file.name != f"{found[0].name}.gz"]
        if others:
            notes.append(f"{found[0]} is read, {others[0].name} is not")
    return [read_idx(file) for file in files], [str(file) for file in files]


def _hint(folder: Path) -> str:
    """What is in a folder without data, or where the data seem to be."""
    entries = sorted(entry for entry in folder.iterdir() if not image_folder.is_hidden(entry.name))
    if len(entries) == 1:
        return f"try dataset.path={entries[0]}; "
    names = [entry.name for entry in entries]
    return f"found {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}; " if names else "the folder is empty; "
