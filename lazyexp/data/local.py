"""People's own data (`dataset=folder`) and the bundled digits: everything that needs no download."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from lazyexp.data import image_folder, tables
from lazyexp.data.idx import INFLATES, read_idx
from lazyexp.data.raw import Raw
from lazyexp.errors import UserError
from lazyexp.utils.memory import require

PARTS = ("x_train", "y_train", "x_test", "y_test")
IDX_NAMES = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def load_digits() -> Raw:
    """scikit-learn's 1,797 real 8x8 digits, split once and for all into 1,437 to train and 360 to test."""
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    digits = bundled()
    images = digits.images.astype(np.uint8)[:, None]
    parts = train_test_split(images, digits.target, test_size=360, stratify=digits.target, random_state=0)
    x_train, x_test, y_train, y_test = (torch.as_tensor(part.copy()) for part in parts)
    sources = dict.fromkeys(("train_images", "train_targets", "test_images", "test_targets"), "digits")
    return Raw(x_train, y_train.long(), x_test, y_test.long(), 10, sources, white=16.0)


def load_folder(path: str | Path, label: str = "label") -> Raw:
    """IDX files with MNIST's names (plain or .gz) in a folder, or one .npz with the four `PARTS`.

    Also a folder of images in torchvision's ImageFolder layout, and tables whose column `label` holds the classes:
    see `image_folder` and `tables`.

    Samples are (n, height, width), (n, height, width, 3) or (n, 3, height, width); integers from 0 to 255 or
    floats. Labels are whole numbers from 0; the training labels tell how many classes there are.
    Raises UserError.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"dataset.path={path}: no such file or folder")
    if (path / "train").is_dir() and (path / "test").is_dir():
        return image_folder.load(path)
    found = tables.find(path)
    if found:
        return tables.load(found, label)
    if label != "label":
        raise UserError(f"dataset.options.label={label}: is for tables (.csv, .parquet), which {path} is not")
    arrays, names = _read_folder(path) if path.is_dir() else _read_npz(path)
    sources = dict(zip(("train_images", "train_targets", "test_images", "test_targets"), names, strict=True))
    x_train, y_train, x_test, y_test = (
        reader(array, name)
        for reader, array, name in zip((_images, _labels, _images, _labels), arrays, names, strict=True)
    )
    if len(y_train) == 0:
        raise UserError(f"{names[1]} holds no labels")
    if x_train.dtype != x_test.dtype:
        raise UserError(f"{names[0]} and {names[2]} must both hold integers or both hold floats")
    white = 1.0 if x_train.is_floating_point() else 255.0
    return Raw(x_train, y_train, x_test, y_test, max(int(y_train.max()) + 1, 2), sources, white=white)


def _read_folder(folder: Path) -> tuple[list[np.ndarray], list[str]]:
    files = []
    for name in IDX_NAMES:
        found = sorted(file for file in folder.glob(f"{name}*") if file.is_file())
        if not found:
            raise UserError(f"{folder} has no file {name}-idx*-ubyte (or .gz)")
        files.append(found[0])
    return [read_idx(file) for file in files], [str(file) for file in files]


def _read_npz(path: Path) -> tuple[list[np.ndarray], list[str]]:
    try:
        _require_memory(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise UserError(f"{path} is a single array, not an .npz with {', '.join(PARTS)}")
            missing = [part for part in PARTS if part not in archive]
            if missing:
                raise UserError(f"{path} has no {', '.join(missing)} (an .npz needs {', '.join(PARTS)})")
            arrays = [archive[part] for part in PARTS]
            for part, array in zip(PARTS, arrays, strict=True):
                if not isinstance(array, np.ndarray):  # numpy hands out other members of the archive as bytes
                    raise UserError(f"{path}: {part} is not an array")
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = " ".join(str(error).split()).split(" This file", 1)[0][:150]
        raise UserError(f"{path} is not a readable .npz file: {reason}") from None
    return arrays, [f"{path}:{part}" for part in PARTS]


def _require_memory(path: Path) -> None:
    """Refuses an archive that unpacks to more than there is memory for, by its table of contents."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if member.filename.removesuffix(".npy") in PARTS]
    for member in members:
        if member.file_size > (member.compress_size + 1) * INFLATES:
            raise UserError(f"{path}: {member.filename} cannot be as large as the archive says")
    require(2 * sum(member.file_size for member in members), f"{path}", "take fewer samples")


def _images(array: np.ndarray, name: str) -> torch.Tensor:
    if array.dtype.kind in "iub":
        if array.size and (array.min() < 0 or array.max() > 255):
            raise UserError(f"{name}: integer pixels must be from 0 to 255")
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f":
        array = array.astype(np.float32)
    else:
        raise UserError(f"{name}: pixels must be numbers, not {array.dtype}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3):
        raise UserError(f"{name}: shape {array.shape} is not (n, height, width) with 1 or 3 colours")
    if 0 in array.shape[1:]:
        raise UserError(f"{name}: images of shape {array.shape[1:]} have no pixels")
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(array: np.ndarray, name: str) -> torch.Tensor:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UserError(f"{name}: labels must be one number per image, not of shape {array.shape}")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == array.round()).all()):
        raise UserError(f"{name} is mislabelled: labels must be whole numbers")
    if array.dtype.kind not in "iubf":
        raise UserError(f"{name}: labels must be whole numbers, not {array.dtype}")
    if array.size and (array.min() < 0 or array.max() > 99999):
        raise UserError(f"{name} is mislabelled: labels run from {array.min()} to {array.max()}")
    return torch.from_numpy(array.astype(np.int64))
