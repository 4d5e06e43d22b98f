"""From the settings of a data set to tensors on the device."""

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
from lazyexp.data.augmentation import Augmentation
from lazyexp.data.blur import blurred
from lazyexp.data.corrupt import add_label_noise, make_imbalanced
from lazyexp.data.custom import load_custom
from lazyexp.data.raw import Raw
from lazyexp.data.samples import Samples, scaling, unit_notes
from lazyexp.data.subset import choose, scorers
from lazyexp.errors import UserError
from lazyexp.utils import memory
from lazyexp.utils.seeding import generator


@dataclass
class Data:
    """A data set ready for training.

    `index` (n,) are the positions of the training samples in the data set as it was read. `sha256` is the fingerprint
    of that data set, `subset` that of the choice of `dataset.subset`. `noisy` (n,) bool: whether a label was changed
    by `dataset.label_noise`. `scoring` is what the runs cost that chose the subset. `class_names` are the labels in
    the order of the classes, None for 0, 1, ... `features`: where the samples are features of a frozen network, its
    source and fingerprint, and the scaling of the features; `origin` has the shape and scaling of the samples
    themselves, and no samples.
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
    class_names: list[str] | None = None
    features: dict[str, Any] | None = None
    origin: Data | None = None


def load_raw(config: DatasetConfig, data_dir: str) -> Raw:
    """The data set as it was published, checked. Raises UserError."""
    if config._target_:
        raw = load_custom(config._target_, config.options)
    else:
        entry = DATASETS[config.name]
        loader = resolve(entry.target, "dataset", custom=False)
        given = {"name": config.name, "path": config.path, "mirror": config.mirror, "data_dir": data_dir}
        parameters = inspect.signature(loader).parameters
        settings = {key: value for key, value in given.items() if key in parameters}
        unknown = [key for key in config.options if key not in parameters or key in given]
        if unknown:
            known = [key for key in parameters if key not in given and key not in entry.options]
            raise UserError(
                f"dataset.options.{unknown[0]}: unknown option of dataset={config.name} "
                f"(it has {', '.join(known) or 'none'})"
            )
        raw = loader(**settings, **entry.options, **config.options)
    raw.check()
    return raw


def load_data(
    config: DatasetConfig,
    data_dir: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    random_subset: bool = False,
    index: Tensor | None = None,
) -> Data:
    """The training, validation and test samples of the settings. Raises UserError.

    Args:
        dtype: of the inputs of the network.
        random_subset: replace the samples of config.subset by as many random ones.
        index: positions (n,) of the training samples, in place of config.subset's choice.
    """
    raw = load_raw(config, data_dir)
    sha256, available = raw.sha256(), len(raw.train_targets)
    if config.blur:
        raw.train_images, raw.test_images = (blurred(x, config.blur) for x in (raw.train_images, raw.test_images))
        raw.on_disk = False
    if raw.on_disk and device.type != "cpu":  # batches from the device's own memory are faster
        raw.on_disk = 4 * (raw.train_images.nbytes + raw.test_images.nbytes) > memory.available()
    held_out, candidates = _select(raw, config)
    targets, noisy = raw.train_targets.clone(), torch.zeros(available, dtype=torch.bool)
    targets[candidates], noisy[candidates] = add_label_noise(
        raw.train_targets, candidates, config.label_noise, raw.classes
    )
    scaled = scaling(raw, candidates, config.scale)
    subset = None
    if index is not None:
        candidates = index
    elif config.subset:
        cutoff = config.subset_cutoff if config.subset_choice == "ccs" else None
        chosen = choose(
            scorers(config.subset), candidates, available, sha256, config.subset_score, config.subset_size, cutoff
        )
        if random_subset:
            chosen = balanced_split(raw.train_targets, candidates, len(chosen), "subset")[0].sort().values
        candidates, subset = chosen, hashlib.sha256(chosen.numpy().data).hexdigest()
    changes = augmentation(raw, config)
    test = torch.arange(len(raw.test_targets))
    if config.test_size is not None:
        if config.test_size > len(test):
            raise UserError(f"dataset.test_size={config.test_size}: larger than the test set, {len(test)} samples")
        test = balanced_split(raw.test_targets, test, config.test_size, "test_size")[0].sort().values

    def samples(images: Tensor, labels: Tensor, index: Tensor, changes: Augmentation | None = None) -> Samples:
        everything = len(index) == len(images)
        return Samples(
            images if raw.on_disk else (images if everything else images[index]).to(device),
            labels[index].to(device),
            scaled.scale,
            scaled.offset,
            dtype=dtype,
            augmentation=changes,
            channels=scaled.channels,
            rows=index if raw.on_disk else None,
        )

    return Data(
        train=samples(raw.train_images, targets, candidates, changes),
        test=samples(raw.test_images, raw.test_targets, test),
        val=samples(raw.train_images, raw.train_targets, held_out) if config.val_size else None,
        index=candidates,
        classes=raw.classes,
        shape=tuple(raw.train_images.shape[1:]),
        sha256=sha256,
        subset=subset,
        counts={"train": available, "test": len(test), "used": len(candidates), "val": config.val_size},
        notes=raw.notes + (unit_notes(raw) if config.scale == "unit" else []),
        noisy=noisy[candidates],
        class_names=raw.class_names,
    )


def _select(raw: Raw, config: DatasetConfig) -> tuple[Tensor, Tensor]:
    """Positions of the validation samples, and of those that may be trained on. Raises UserError."""
    available = len(raw.train_targets)
    if config.val_size >= available:
        raise UserError(f"dataset.val_size={config.val_size}: too large, there are {available} training samples")
    held_out, rest = balanced_split(raw.train_targets, torch.arange(available), config.val_size, "val")
    size = len(rest) if config.train_size is None else config.train_size
    if size > len(rest):
        raise UserError(f"dataset.train_size={size}: larger than the data, {len(rest)} training samples")
    index, _ = balanced_split(raw.train_targets, rest, size, "train_size")
    return held_out, make_imbalanced(raw.train_targets, index.sort().values, config.imbalance, raw.classes)


def augmentation(raw: Raw, config: DatasetConfig) -> Augmentation:
    """The changes of training images that the settings ask for. Raises UserError if the samples do not allow them."""
    kinds, shape = config.augment, tuple(raw.train_images.shape[1:])
    if kinds and raw.train_images.dim() != 4:
        raise UserError(f"dataset.augment={kinds}: must be [] for samples of shape {shape}, which are not images")
    if "shift" in kinds and config.max_shift >= min(shape[1:]):
        raise UserError(f"dataset.max_shift={config.max_shift}: must be smaller than the images")
    if "crop" in kinds and config.padding >= min(shape[1:]):
        raise UserError(f"dataset.padding={config.padding}: must be smaller than the images")
    return Augmentation(
        padding=config.max_shift if "shift" in kinds else config.padding if "crop" in kinds else 0,
        reflect="crop" in kinds and config.padding_mode == "reflect",
        flip="flip" in kinds,
        cutout=config.cutout_size if "cutout" in kinds else 0,
    )


def balanced_split(targets: Tensor, index: Tensor, size: int, purpose: str) -> tuple[Tensor, Tensor]:
    """`size` of the samples `index`, balanced over classes, and the others; the same ones in every run.

    Smaller subsets are contained in larger ones: the samples are put in one order, in which the classes take turns,
    and cut.
    """
    shuffled = index[torch.randperm(len(index), generator=generator(0, purpose))]
    labels = targets[shuffled]
    turn = torch.empty_like(shuffled)
    for label in torch.unique(labels):
        members = (labels == label).nonzero().flatten()
        turn[members] = torch.arange(len(members))
    order = shuffled[turn.argsort(stable=True)]
    return order[:size], order[size:].sort().values
