"""The settings of a run: their schema, their checks, and the identity that follows from them.

Nothing here imports torch, so `lazyexp --help` and shell completion stay fast.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from lazyexp.errors import UserError


@dataclass(frozen=True)
class DatasetDefaults:
    """What a run on a named data set does unless told otherwise (our choice: the paper does not say)."""

    epochs: int
    eval_every: int
    targets: tuple[float, ...]


DATASETS = {
    "digits": DatasetDefaults(20, 2000, (0.90, 0.95)),
    "mnist": DatasetDefaults(10, 10000, (0.95, 0.97, 0.98)),
    "emnist": DatasetDefaults(8, 20000, (0.98, 0.99, 0.992)),
    "emnist_balanced": DatasetDefaults(10, 20000, (0.75, 0.80, 0.83)),
    "emnist_letters": DatasetDefaults(10, 20000, (0.80, 0.85, 0.88)),
    "emnist_byclass": DatasetDefaults(4, 100000, (0.80, 0.82, 0.84)),
    "emnist_bymerge": DatasetDefaults(4, 100000, (0.84, 0.86, 0.88)),
    "emnist_mnist": DatasetDefaults(10, 10000, (0.95, 0.97, 0.98)),
    "fashion_mnist": DatasetDefaults(10, 10000, (0.80, 0.85, 0.88)),
    "kmnist": DatasetDefaults(10, 10000, (0.85, 0.90, 0.92)),
    "qmnist": DatasetDefaults(10, 10000, (0.95, 0.97, 0.98)),
    "usps": DatasetDefaults(20, 5000, (0.90, 0.93, 0.94)),
    "svhn": DatasetDefaults(10, 20000, (0.70, 0.75, 0.80)),
    "cifar10": DatasetDefaults(10, 10000, (0.40, 0.45, 0.50)),
    "cifar100": DatasetDefaults(10, 10000, (0.15, 0.20, 0.25)),
    "folder": DatasetDefaults(10, 10000, (0.90, 0.95, 0.99)),
}
CHOICES = {
    "dataset.name": tuple(DATASETS),
    "dataset.scale": ("standard", "unit"),
    "dataset.augment": ("none", "shift"),
    "model.name": ("mlp", "cnn"),
    "model.activation": ("relu", "leaky_relu", "gelu", "tanh"),
    "model.init": ("uniform", "lecun_normal", "kaiming"),
    "optimizer.name": ("sgd", "adam", "adamw"),
    "optimizer.schedule": ("constant", "linear", "cosine", "onecycle"),
    "optimizer.reduction": ("batch", "selected"),
    "engine": ("auto", "general", "fast"),
}


def _key(default: Any, help: str) -> Any:
    metadata = {"help": help}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DatasetConfig:
    name: str = _key("digits", "the data set; `folder` is your own")
    path: str | None = _key(None, "for `folder`: a folder of IDX files or one .npz")
    mirror: str | None = _key(None, "address (also file://) tried before the official ones")
    train_size: int | None = _key(None, "train on a class-balanced subset of this size")
    subset: str | None = _key(
        None, "train on what a run learned from: its learned.npz, matched (rule=lazy here) or random (as many)"
    )
    val_size: int = _key(0, "training samples held out for val_accuracy")
    scale: str = _key("standard", "standard (zero mean, unit variance) or unit ([0, 1])")
    augment: str = _key("none", "none or shift (random translation of every sample)")
    max_shift: int = _key(2, "largest shift in pixels, for augment=shift")


@dataclass
class ModelConfig:
    name: str = _key("mlp", "mlp or cnn (convolutional)")
    width: int = _key(1000, "hidden units per layer; cnn: channels of the first stage")
    depth: int = _key(1, "hidden layers; cnn: stages")
    activation: str = _key("relu", "relu, leaky_relu, gelu, tanh")
    init: str = _key("uniform", "uniform (PyTorch's own), lecun_normal (zero biases), kaiming")


@dataclass
class OptimizerConfig:
    name: str = _key("sgd", "sgd, adam, adamw")
    lr: float = _key(0.01, "learning rate")
    momentum: float = _key(0.0, "momentum (sgd)")
    weight_decay: float = _key(0.0, "weight decay")
    schedule: str = _key("linear", "constant, linear (to zero over the run), cosine, onecycle")
    warmup: float = _key(0.0, "share of the run over which the rate rises from 0")
    reduction: str = _key("batch", "divide the gradient by the batch size or by the number `selected`")


@dataclass
class Config:
    seed: int = _key(0, "initial weights, order of samples, everything random")
    device: str = _key("auto", "auto, cpu, cuda, cuda:N")
    epochs: int | None = _key(None, "passes over the training set; null: the data set's default")
    batch_size: int = _key(1, "samples per presented batch; 1 is online learning")
    eval_every: int | None = _key(None, "samples between two evaluations; null: the data set's default")
    targets: list[float] | None = _key(None, "test accuracies whose first crossing is timed; null: the data set's")
    stop_at: float | None = _key(None, "end the run once this test accuracy is reached")
    data_dir: str = _key("data", "where data sets are (torchvision's layout); default $LAZYEXP_DATA or data")
    runs_dir: str = _key("runs", "where results go")
    overwrite: bool = _key(False, "do a finished run again")
    energy: bool = _key(True, "measure energy")
    engine: str = _key("auto", "auto, general (autograd), fast (hand-derived)")
    checkpoint_every: float = _key(60.0, "seconds between checkpoints; 0: at every evaluation")
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rule: dict[str, Any] = _key({"name": "lazy"}, "who learns; the options are the rule's own")
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def _require(condition: bool, key: str, value: Any, wanted: str) -> None:
    if not condition:
        raise UserError(f"{key}={value}: must be {wanted}")


def check(config: Config) -> Config:
    """Fills in the data set's defaults and refuses values that cannot work. Raises UserError."""
    for key, choices in CHOICES.items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        _require(value in choices, key, value, f"one of {', '.join(choices)}")

    data, model, optimizer = config.dataset, config.model, config.optimizer
    defaults = DATASETS[data.name]
    config.epochs = defaults.epochs if config.epochs is None else config.epochs
    config.eval_every = defaults.eval_every if config.eval_every is None else config.eval_every
    config.targets = list(defaults.targets if config.targets is None else config.targets)

    _require(0 <= config.seed < 2**63, "seed", config.seed, "a whole number from 0 to 2^63 - 1")
    for key, number in (
        ("epochs", config.epochs),
        ("batch_size", config.batch_size),
        ("eval_every", config.eval_every),
        ("model.width", model.width),
        ("model.depth", model.depth),
        ("dataset.max_shift", data.max_shift),
    ):
        _require(number >= 1, key, number, "at least 1")
    for target in config.targets:
        _require(0 < target <= 1, "targets", config.targets, "accuracies above 0 and at most 1")
    if config.stop_at is not None:
        _require(0 < config.stop_at <= 1, "stop_at", config.stop_at, "an accuracy above 0 and at most 1")
    _require(data.val_size >= 0, "dataset.val_size", data.val_size, "at least 0")
    if data.train_size is not None:
        _require(data.train_size >= 1, "dataset.train_size", data.train_size, "at least 1")
    _require(data.name != "folder" or bool(data.path), "dataset.path", data.path, "set for dataset=folder")
    _require(data.name == "folder" or not data.path, "dataset.path", data.path, "left alone unless dataset=folder")
    _require(math.isfinite(optimizer.lr) and optimizer.lr > 0, "optimizer.lr", optimizer.lr, "a number above 0")
    _require(0 <= optimizer.momentum < 1, "optimizer.momentum", optimizer.momentum, "from 0 to below 1")
    _require(
        optimizer.name == "sgd" or optimizer.momentum == 0,
        "optimizer.momentum",
        optimizer.momentum,
        f"0 for optimizer={optimizer.name} (momentum is an option of sgd)",
    )
    _require(
        math.isfinite(optimizer.weight_decay) and optimizer.weight_decay >= 0,
        "optimizer.weight_decay",
        optimizer.weight_decay,
        "a number from 0 up",
    )
    _require(0 <= optimizer.warmup < 1, "optimizer.warmup", optimizer.warmup, "from 0 to below 1")
    _require(
        optimizer.warmup == 0 or optimizer.schedule != "onecycle",
        "optimizer.warmup",
        optimizer.warmup,
        "0 for optimizer.schedule=onecycle, which warms up by itself",
    )
    _require(bool(config.runs_dir.strip()), "runs_dir", config.runs_dir, "a folder; `.` is the current one")
    _require(bool(config.data_dir.strip()), "data_dir", config.data_dir, "a folder; `.` is the current one")
    _require(
        math.isfinite(config.checkpoint_every) and config.checkpoint_every >= 0,
        "checkpoint_every",
        config.checkpoint_every,
        "seconds, from 0 up",
    )
    device = config.device.removeprefix("cuda:")
    _require(
        device in ("auto", "cpu", "cuda") or (device.isdecimal() and device != config.device),
        "device",
        config.device,
        "auto, cpu, cuda or cuda:N",
    )
    _require(isinstance(config.rule.get("name"), str), "rule.name", config.rule.get("name"), "the name of a rule")
    return config


# Settings that say where and how safely a run is done; they cannot change its result.
PLACES = ("data_dir", "runs_dir", "overwrite", "checkpoint_every")
# Raised when the meaning of a setting changes, so that results from before are not taken for new ones.
SCHEMA = 2


def run_id(config: Config, rule: dict[str, Any], device: str, data: str) -> str:
    """The run's folder name: a readable part and a hash of everything that can change its result.

    The hash is of what differs from the defaults, so that a new key leaves finished runs valid. `rule` is the
    rule's `identity`, `device` the kind that computes ("cpu" or "cuda"), `data` a fingerprint of the samples, so
    that the same command on other data is another run.
    """
    ignored = (*PLACES, "rule", "device", "dataset.path", "dataset.mirror")  # of the data, the content counts
    settings = {key: value for key, value in differing(config).items() if key not in ignored}
    settings.update(schema=SCHEMA, rule={"name": config.rule["name"], **rule}, device=device, data=data)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    parts = (
        config.dataset.name,
        config.rule["name"],
        f"w{config.model.width}",
        f"b{config.batch_size}",
        f"lr{config.optimizer.lr:g}",
        f"s{config.seed}",
        digest,
    )
    return "-".join(parts)


def differing(config: Any, prefix: str = "") -> dict[str, Any]:
    """The settings that are not at their defaults, with dotted keys."""
    different: dict[str, Any] = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            different.update(differing(value, f"{prefix}{entry.name}."))
        elif value != (entry.default_factory() if callable(entry.default_factory) else entry.default):
            different[prefix + entry.name] = value
    return different
