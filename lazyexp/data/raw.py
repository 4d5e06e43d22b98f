"""A data set as it was read, in one layout, with its checks and its fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lazyexp.data.pieces import pieces
from lazyexp.errors import UserError


@dataclass
class Raw:
    """Samples (n, channels, height, width), uint8 or float32, and targets (n,) int64, on the CPU.

    Samples that are not images are (n, ...) float32, or int64 for tokens.

    `sources` names the four parts in error messages: the file or folder to look at. `white` is the pixel value that
    `scale=unit` maps to 1. `class_names` are the labels as the files spell them, None for numbers from 0. `official`
    are the published numbers of training and test samples. `notes` are printed at the start of a run. `on_disk`: the
    samples are memory-mapped and stay there; a batch is read when it is needed.
    """

    train_images: Tensor
    train_targets: Tensor
    test_images: Tensor
    test_targets: Tensor
    classes: int
    sources: dict[str, str]
    white: float = 255.0
    official: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)
    class_names: list[str] | None = None
    on_disk: bool = False

    def check(self) -> None:
        """Refuse data that cannot be trained on; the error names the file. Raises UserError."""
        for part in ("train", "test"):
            images, targets = getattr(self, f"{part}_images"), getattr(self, f"{part}_targets")
            where_images, where_targets = self.sources[f"{part}_images"], self.sources[f"{part}_targets"]
            dtypes = (torch.uint8, torch.float32) if images.dim() == 4 else (torch.float32, torch.int64)
            if images.dim() < 2 or targets.dim() != 1 or images.dtype not in dtypes:
                shapes = f"{tuple(images.shape)} and {tuple(targets.shape)}"
                raise UserError(f"{where_images} and {where_targets} do not hold samples and labels: {shapes}")
            if len(images) != len(targets):
                raise UserError(
                    f"{where_images} has {len(images)} samples but {where_targets} has {len(targets)} labels; "
                    "the numbers must be equal"
                )
            if len(images) == 0:
                raise UserError(f"{where_images} holds no samples")
            if images.is_floating_point() and not all(bool(torch.isfinite(part).all()) for part in pieces(images)):
                raise UserError(f"{where_images} holds values that are NaN or infinite in single precision")
            low, high = int(targets.min()), int(targets.max())
            if low < 0 or high >= self.classes:
                raise UserError(
                    f"{where_targets} is mislabelled: labels run from {low} to {high}, "
                    f"expected 0 to {self.classes - 1}"
                )
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise UserError(
                f"samples of {self.sources['train_images']} and {self.sources['test_images']} differ in size: "
                f"{tuple(self.train_images.shape[1:])} and {tuple(self.test_images.shape[1:])}"
            )
        counts = (len(self.train_images), len(self.test_images))
        if self.official and counts != self.official:
            self.notes.append(
                f"not the official data set: {counts[0]:,} training and {counts[1]:,} test images, "
                f"the official one has {self.official[0]:,} and {self.official[1]:,}"
            )

    def sha256(self) -> str:
        """SHA-256 of all samples and labels with their shapes and types, in the order of the files."""
        digest = hashlib.sha256()
        for name in ("train_images", "train_targets", "test_images", "test_targets"):
            array = getattr(self, name)
            digest.update(f"{name} {tuple(array.shape)} {array[:0].numpy().dtype}".encode())
            for part in pieces(array):
                digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()
