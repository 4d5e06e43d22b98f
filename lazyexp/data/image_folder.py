"""A folder of images in torchvision's ImageFolder layout: train/<class>/*.png and test/<class>/*.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lazyexp.data.custom import from_pair
from lazyexp.data.raw import Raw
from lazyexp.errors import UserError


def load(path: Path) -> Raw:
    """Samples of one size, in colour unless all are grey; classes are sorted folder names. Raises UserError."""
    from torchvision.datasets import ImageFolder

    parts = []
    for part in ("train", "test"):
        try:
            parts.append(ImageFolder(str(path / part), loader=_open))
        except (FileNotFoundError, OSError) as error:
            raise UserError(f"{path / part}: {' '.join(str(error).split())[:200]}") from None
    if parts[0].classes != parts[1].classes:
        odd = min(set(parts[0].classes) ^ set(parts[1].classes))
        raise UserError(f"{path}: train and test must have the same classes, {odd} is in one of them alone")
    raw = from_pair(parts, [str(path / "train"), str(path / "test")])
    raw.classes = max(len(parts[0].classes), 2)
    return raw


def _open(file: str) -> np.ndarray[Any, Any]:
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{file} is not a readable image: {' '.join(str(error).split())[:150]}") from None
