"""From a data set's name to tensors on the device."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lazyexp.config.imports import resolve
from lazyexp.config.registry import DATASETS
from lazyexp.config.schema import DatasetConfig
from lazyexp.data.corrupt import add_label_noise, make_imbalanced
from lazyexp.data.custom import load_custom
from lazyexp.data.raw import Raw
from lazyexp.data.samples import Samples, scaling
from lazyexp.data.subset import choose, scorers
from lazyexp.errors import UserError
from lazyexp.utils.seeding import generator

__all__ = ["Data", "Samples", "load_data", "load_raw"]


@dataclass
class Data:
    """A data set ready for training; `index` (n,) are the training samples' places in the published set.

    `sha256` is the fingerprint of the published set, `subset` that of the choice made by `dataset.subset`; `noisy`
    (n,) bool tells whose label is wrong on purpose, `scoring` what the run has cost that chose the subset.
    """

    train: Samples
    test: Samples
    val: Samples | None
    index: Tensor
    classes: int
    shape: tuple[int, ...]
    sha256: str
    subset: str | None
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)
    scoring: dict[str, Any] = field(default_factory=dict)
    noisy: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))


def load_raw(config: DatasetConfig, data_dir: str) -> Raw:
    """The published data set, checked. Raises UserError."""
    if config._target_:
        raw = load_custom(config._target_, config.options)
    else:
        entry = DATASETS[config.name]
        loader = resolve(entry.target, "dataset")
        given = {"name": config.name, "path": config.path, "mirror": config.mirror, "data_dir": data_dir}
        wanted = inspect.signature(loader).parameters
        settings = {key: value for key, value in given.items() if key in wanted}
        unknown = [key for key in config.options if key not in wanted or key in given]
        if unknown:
            raise UserError(f"dataset.options.{unknown[0]}: unknown option of dataset={config.name}")
        raw = loader(**settings, **entry.options, **config.options)
    raw.check()
    return raw


def load_data(
    config: DatasetConfig,
    data_dir: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    random_subset: bool = False,
) -> Data:
    """The training, validation and test samples that the settings ask for. Raises UserError.

    With `random_subset` the samples of config.subset are replaced by as many random ones.
    """
    raw = load_raw(config, data_dir)
    sha256, available = raw.sha256(), len(raw.train_targets)
    if config.val_size >= available:
        raise UserError(f"dataset.val_size={config.val_size}: too large, there are {available} training samples")
    held_out, rest = _split(raw.train_targets, torch.arange(available), config.val_size, "val")
    size = len(rest) if config.train_size is None else config.train_size
    if size > len(rest):
        raise UserError(f"dataset.train_size={size}: larger than the data, {len(rest)} training samples")
    index, _ = _split(raw.train_targets, rest, size, "train_size")
    index = make_imbalanced(raw.train_targets, index.sort().values, config.imbalance, raw.classes)
    targets, noisy = raw.train_targets.clone(), torch.zeros(available, dtype=torch.bool)
    targets[index], noisy[index] = add_label_noise(raw.train_targets, index, config.label_noise, raw.classes)
    scale, offset = scaling(raw, index, config.scale)
    subset = None
    if config.subset:
        chosen = choose(scorers(config.subset), index, available, sha256, config.subset_score, config.subset_size)
        if random_subset:
            chosen = _split(raw.train_targets, index, len(chosen), "subset")[0].sort().values
        index, subset = chosen, hashlib.sha256(chosen.numpy().data).hexdigest()
    shift = config.max_shift if "shift" in config.augment else 0
    if shift and raw.train_images.dim() != 4:
        raise UserError(f"dataset.augment={config.augment}: is for images, not {tuple(raw.train_images.shape[1:])}")
    if shift and shift >= min(raw.train_images.shape[2:]):
        raise UserError(f"dataset.max_shift={shift}: must be smaller than the images")

    def images(pixels: Tensor, targets: Tensor, shift: int = 0) -> Samples:
        return Samples(pixels.to(device), targets.to(device), scale, offset, shift, dtype)

    everything = len(index) == available
    train_pixels = raw.train_images if everything else raw.train_images[index]
    return Data(
        train=images(train_pixels, targets[index], shift),
        test=images(raw.test_images, raw.test_targets),
        val=images(raw.train_images[held_out], raw.train_targets[held_out]) if config.val_size else None,
        index=index,
        classes=raw.classes,
        shape=tuple(raw.train_images.shape[1:]),
        sha256=sha256,
        subset=subset,
        counts={
            "train": available,
            "test": len(raw.test_targets),
            "used": len(index),
            "val": config.val_size,
        },
        notes=raw.notes,
        noisy=noisy[index],
    )


def _split(targets: Tensor, index: Tensor, size: int, purpose: str) -> tuple[Tensor, Tensor]:
    """`size` of the samples `index`, balanced over classes, and the others; the same ones in every run.

    Smaller subsets are contained in larger ones: the samples are put in one order, in which the classes take
    turns, and cut.
    """
    shuffled = index[torch.randperm(len(index), generator=generator(0, purpose))]
    labels = targets[shuffled]
    turn = torch.empty_like(shuffled)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        turn[members] = torch.arange(len(members))
    order = shuffled[turn.argsort(stable=True)]
    return order[:size], order[size:].sort().values
