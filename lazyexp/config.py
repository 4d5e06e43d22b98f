"""The settings of a run: their schema, their checks, and the identity that follows from them.

Nothing here imports torch, so `lazyexp --help` and shell completion stay fast.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import Field, FrozenInstanceError, dataclass, field, fields, is_dataclass, replace
from typing import Any

from lazyexp.errors import UserError
from lazyexp.registry import DATASETS, MODELS, NAMES, OPTIMIZERS, OWN_DATASET


def _key(default: Any, help: str, **constraints: Any) -> Any:
    """A setting: its default, its meaning, and what its values must be.

    `choices`: a dictionary from value to meaning ("" where the name says it all), or a sequence. `at_least`, `above`,
    `at_most`, `below`: bounds, of every element if the value is a list. `wanted`: how an error puts the bounds.
    None is always allowed where it is the default.
    """
    metadata = {"help": help, **constraints}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DatasetConfig:
    name: str = _key("digits", "the data set; `folder` and `own` are yours", choices=(*DATASETS, "own"))
    _target_: str | None = _key(None, "for `own`: import path of what makes the data, see docs/own.md")
    options: dict[str, Any] = _key({}, "what it is called with, one by one: dataset.options.NAME=VALUE")
    path: str | None = _key(
        None, "for `folder`: IDX files, .npz, train/<class>/*.png and test/<class>/*.png, or tables (.csv, .parquet)"
    )
    mirror: str | None = _key(None, "address (also file://) tried before the official ones")
    train_size: int | None = _key(None, "train on a class-balanced subset of this size", at_least=1)
    subset: str | None = _key(
        None, "train on what a run learned from: its learned.npz, matched (rule=lazy here) or random (as many)"
    )
    subset_score: str = _key(
        "learned",
        "of the subset's samples, the highest",
        choices={"learned": "times learned from", "forgetting": "forgetting events", "el2n": "error norm at the end"},
    )
    subset_size: int | None = _key(None, "samples of the subset; null: as many as were learned from", at_least=1)
    val_size: int = _key(0, "training samples held out for val_accuracy", at_least=0)
    label_noise: float = _key(0.0, "share of training labels that are wrong, on purpose", at_least=0, at_most=1)
    imbalance: float = _key(1.0, "training samples of the last class per sample of the first one", above=0, at_most=1)
    scale: str = _key("standard", "inputs", choices={"standard": "zero mean, unit variance", "unit": "from 0 to 1"})
    augment: str = _key(
        "none", "of training images", choices={"none": "", "shift": "random translation of every sample"}
    )
    max_shift: int = _key(2, "largest shift in pixels, for augment=shift", at_least=1)


@dataclass
class ModelConfig:
    name: str = _key("mlp", "the network", choices=(*MODELS, "own"))
    _target_: str | None = _key(None, "for `own`: import path, called as target(shape=, classes=, **options)")
    options: dict[str, Any] = _key({}, "for `own` and `torchvision`, one by one: model.options.NAME=VALUE")
    arch: str | None = _key(None, "for `torchvision`: name of the network, such as resnet18")
    width: int = _key(1000, "hidden units per layer; cnn: channels of the first stage", at_least=1)
    depth: int = _key(1, "hidden layers; cnn: stages", at_least=1)
    activation: str = _key("relu", "between layers", choices=("relu", "leaky_relu", "gelu", "tanh"))
    init: str = _key(
        "uniform",
        "initial weights",
        choices={"uniform": "PyTorch's own", "lecun_normal": "zero biases", "kaiming": "zero biases"},
    )


@dataclass
class OptimizerConfig:
    name: str = _key("sgd", "the optimizer", choices=(*OPTIMIZERS, "own"))
    _target_: str | None = _key(None, "for `own`: import path, such as torch.optim.RMSprop")
    options: dict[str, Any] = _key({}, "for `own`, one by one: optimizer.options.NAME=VALUE")
    lr: float = _key(0.01, "learning rate", above=0)
    momentum: float = _key(0.0, "momentum (sgd)", at_least=0, below=1)
    weight_decay: float = _key(0.0, "weight decay", at_least=0)
    schedule: str = _key(
        "linear",
        "of the rate",
        choices={"constant": "", "linear": "to zero over the run", "cosine": "likewise", "onecycle": "up, then down"},
    )
    warmup: float = _key(0.0, "share of the run over which the rate rises from 0", at_least=0, below=1)
    reduction: str | None = _key(
        None,
        "divisor of the gradient; null: the rule's own",
        choices={"batch": "the batch size", "selected": "the number that learn"},
    )


@dataclass
class PlasticityConfig:
    name: str = _key(
        "all",
        "which synapses change (mlp, plain sgd)",
        choices={"all": "", "largest": "largest updates only", "cached": "transient store"},
    )
    share: float = _key(0.1, "largest: share of a layer's synapses that change", above=0, at_most=1)
    threshold: float | None = _key(None, "cached: when a synapse is made persistent; null: at the end", above=0)
    decay: float = _key(0.0, "cached: share of the store lost per sample", at_least=0, below=1)
    cost: float = _key(1e-5, "cached: cost of the store per unit and sample", at_least=0)


@dataclass
class Config:
    """The settings as a user gives them; `check` makes `Settings` of them."""

    seed: int = _key(
        0,
        "initial weights, order of samples, everything random",
        at_least=0,
        below=2**63,
        wanted="a whole number from 0 to 2^63 - 1",
    )
    device: str = _key("auto", "auto, cpu, cuda, cuda:N")
    epochs: int | None = _key(None, "passes over the training set; null: the data set's default", at_least=1)
    batch_size: int = _key(1, "samples per presented batch; 1 is online learning", at_least=1)
    eval_every: int | None = _key(None, "samples between two evaluations; null: the data set's default", at_least=1)
    targets: list[float] | None = _key(
        None,
        "test accuracies whose first crossing is timed; null: the data set's",
        above=0,
        at_most=1,
        wanted="accuracies above 0 and at most 1",
    )
    stop_at: float | None = _key(
        None,
        "end the run once this test accuracy is reached",
        above=0,
        at_most=1,
        wanted="an accuracy above 0 and at most 1",
    )
    data_dir: str = _key("data", "where data sets are (torchvision's layout); default $LAZYEXP_DATA or data")
    runs_dir: str = _key("runs", "where results go")
    overwrite: bool = _key(False, "do a finished run again")
    energy: bool = _key(True, "measure energy")
    engine: str = _key(
        "auto", "how it is computed", choices={"auto": "", "general": "autograd", "fast": "hand-derived"}
    )
    matmul_precision: str = _key(
        "highest",
        "of products while training",
        choices={"highest": "float32", "high": "TF32 on a GPU", "medium": "bfloat16 factors on a CPU that has them"},
    )
    checkpoint_every: float = _key(60.0, "seconds between checkpoints; 0: at every evaluation", at_least=0)
    tracker: str | None = _key(
        None, "is told the rows of metrics.csv, too", choices=("tensorboard", "mlflow", "wandb")
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rule: dict[str, Any] = _key({"name": "lazy"}, "who learns; the options are the rule's own")
    rule_label: str | None = _key(None, "what the report calls the rule; null: its name")
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)


@dataclass
class Settings(Config):
    """Settings that have been checked and have nothing left open. They do not change any more."""

    epochs: int = 0
    eval_every: int = 0
    targets: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_frozen", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_frozen", False):
            raise FrozenInstanceError(f"cannot assign to {name}: these settings have been checked")
        object.__setattr__(self, name, value)


def _require(condition: bool, key: str, value: Any, wanted: str) -> None:
    if not condition:
        raise UserError(f"{key}={value}: must be {wanted}")


def _bounds(entry: Mapping[str, Any], kind: type) -> str:
    """What values must be, in words."""
    if "wanted" in entry:
        return str(entry["wanted"])
    start = "at least" if kind is int else "a number from"
    low = f"{start} {entry['at_least']:g}" if "at_least" in entry else f"a number above {entry['above']:g}"
    if "below" in entry:
        return f"{low} to below {entry['below']:g}"
    return f"{low} to {entry['at_most']:g}" if "at_most" in entry else low


def _check_fields(config: Any, prefix: str = "") -> None:
    """Holds every value against the constraints on its field."""
    for entry in fields(Config if isinstance(config, Config) else config):
        value, key = getattr(config, entry.name), prefix + entry.name
        if entry.name == "name" and getattr(config, "_target_", None):  # what a settings file calls its own part
            _require(re.fullmatch(r"[\w.+-]+", value) is not None, key, value, "letters, digits, and any of . _ + -")
        elif is_dataclass(value):
            _check_fields(value, f"{key}.")
        elif value is not None:
            _check_value(entry, key, value)


def _check_value(entry: Field, key: str, value: Any) -> None:
    wanted = entry.metadata
    if "choices" in wanted:
        _require(value in wanted["choices"], key, value, f"one of {', '.join(wanted['choices'])}")
    if not {"at_least", "above"} & set(wanted):
        return
    for number in value if isinstance(value, list) else [value]:
        inside = (
            math.isfinite(number)
            and number >= wanted.get("at_least", -math.inf)
            and number > wanted.get("above", -math.inf)
            and number <= wanted.get("at_most", math.inf)
            and number < wanted.get("below", math.inf)
        )
        _require(inside, key, value, _bounds(wanted, type(number)))


def _entries(schema: type = Config, prefix: str = "") -> dict[str, Field]:
    """The fields of all keys, by their dotted names."""
    found: dict[str, Field] = {}
    for entry in fields(schema):
        inner: Any = entry.default_factory
        grouped = isinstance(inner, type) and is_dataclass(inner)
        found.update(_entries(inner, f"{entry.name}.") if grouped else {prefix + entry.name: entry})
    return found


ENTRIES = _entries()
# Keys of whole numbers and of numbers for which nothing is checked but their own bounds.
NUMBERS = {
    key: int if "int" in str(entry.type) else float
    for key, entry in ENTRIES.items()
    if {"at_least", "above"} & set(entry.metadata)
    and "list" not in str(entry.type)
    and key not in ("optimizer.momentum", "optimizer.warmup")
}


def check_value(key: str, value: Any) -> None:
    """Refuses a value that is out of the bounds of its key. Raises UserError."""
    _check_value(ENTRIES[key], key, value)


def check(config: Config) -> Settings:
    """Fills in the data set's defaults and refuses values that cannot work. Raises UserError."""
    config = _name_own_parts(config)
    _check_fields(config)
    data, optimizer = config.dataset, config.optimizer
    defaults = DATASETS.get(data.name, OWN_DATASET)
    _check_model(config.model)
    for key, name in (("dataset", data.name), ("optimizer", optimizer.name)):
        given = getattr(config, key).options
        own = name not in NAMES[key] or name == "folder"
        _require(own or not given, f"{key}.options", given, f"left alone for {key}={name}")
    _require(data.name != "folder" or bool(data.path), "dataset.path", data.path, "set for dataset=folder")
    _require(data.name == "folder" or not data.path, "dataset.path", data.path, "left alone unless dataset=folder")
    _require(
        optimizer.name == "sgd" or optimizer.momentum == 0,
        "optimizer.momentum",
        optimizer.momentum,
        f"0 for optimizer={optimizer.name} (momentum is an option of sgd)"
        + (" (optimizer.options.momentum is your own's)" if optimizer._target_ else ""),
    )
    _require(
        optimizer.warmup == 0 or optimizer.schedule != "onecycle",
        "optimizer.warmup",
        optimizer.warmup,
        "0 for optimizer.schedule=onecycle, which warms up by itself",
    )
    scored = bool(data.subset) and data.subset != "random"
    _require(
        scored or data.subset_score == "learned",
        "dataset.subset_score",
        data.subset_score,
        "learned without a subset",
    )
    _require(scored or data.subset_size is None, "dataset.subset_size", data.subset_size, "null without a subset")
    plain = (config.model.name, optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("mlp", "sgd", 0, 0)
    _require(
        config.plasticity.name == "all" or (plain and config.engine != "general"),
        "plasticity.name",
        config.plasticity.name,
        "all but for model=mlp, optimizer=sgd without momentum and weight decay, and engine=auto or fast",
    )
    for key in ("runs_dir", "data_dir"):
        _require(bool(getattr(config, key).strip()), key, getattr(config, key), "a folder; `.` is the current one")
    device = config.device.removeprefix("cuda:")
    _require(
        device in ("auto", "cpu", "cuda") or (device.isdecimal() and device != config.device),
        "device",
        config.device,
        "auto, cpu, cuda or cuda:N",
    )
    given = {entry.name: getattr(config, entry.name) for entry in fields(Config)}
    return Settings(
        **{
            **given,
            "epochs": defaults.epochs if config.epochs is None else config.epochs,
            "eval_every": defaults.eval_every if config.eval_every is None else config.eval_every,
            "targets": list(defaults.targets if config.targets is None else config.targets),
        }
    )


def own_targets(config: Config) -> dict[str, str]:
    """The import paths of what was brought along, by group."""
    paths = {group: _get(config, group, "_target_") for group in NAMES}
    return {group: path for group, path in paths.items() if path}


def _get(config: Config, group: str, key: str) -> Any:
    part = getattr(config, group)
    return part.get(key) if isinstance(part, dict) else getattr(part, key)


def _name_own_parts(config: Config) -> Config:
    """A part with a `_target_` is called what its settings file calls it, else by the last word of its path."""
    _require(isinstance(config.rule.get("name"), str), "rule.name", config.rule.get("name"), "the name of a rule")
    changed: dict[str, Any] = {}
    for group, known in NAMES.items():
        name, target = _get(config, group, "name"), _get(config, group, "_target_")
        _require(target is not None or name != "own", f"{group}._target_", target, f"set for {group}=own")
        if target is not None and (name == "own" or name in known):
            last = str(target).rpartition(".")[2]
            name = {"name": "own" if last in known or not last.isidentifier() else last}
            part = getattr(config, group)
            changed[group] = {**part, **name} if isinstance(part, dict) else replace(part, **name)
    return replace(config, **changed)


def _check_model(model: ModelConfig) -> None:
    """Refuses keys that the chosen network would not heed."""
    default = ModelConfig()
    if model._target_ or model.name == "torchvision":
        for key in ("width", "depth", "activation", "init"):
            given = getattr(model, key)
            _require(given == getattr(default, key), f"model.{key}", given, "an option: model.options.NAME=VALUE")
    else:
        _require(not model.options, "model.options", model.options, f"left alone for model={model.name}")
    _require(model.name == "torchvision" or not model.arch, "model.arch", model.arch, "left alone: not torchvision")


# Settings that say where, how safely and under which name a run is done; they cannot change its result.
PLACES = ("data_dir", "runs_dir", "overwrite", "checkpoint_every", "rule_label", "tracker")
# Raised when the meaning of a setting changes, so that results from before are not taken for new ones.
SCHEMA = 3


def run_id(
    config: Settings, rule: dict[str, Any], device: str, data: str, sources: dict[str, Any] | None = None
) -> str:
    """The run's folder name: a readable part and a hash of everything that can change its result.

    The hash is of what differs from the defaults, so that a new key leaves finished runs valid. `rule` is the
    rule's `identity`, `device` the kind that computes ("cpu" or "cuda"), `data` a fingerprint of the samples, so
    that the same command on other data is another run. `sources`: the SHA-256 of what was brought along, by group.
    """
    ignored = (*PLACES, "rule", "device", "dataset.path", "dataset.mirror")  # of the data, the content counts
    settings = {key: value for key, value in differing(config).items() if key not in ignored}
    settings.update(schema=SCHEMA, rule={"name": config.rule["name"], **rule}, device=device, data=data)
    if sources:
        settings.update(sources=sources, rule={**settings["rule"], "_target_": config.rule.get("_target_")})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:10]
    parts = (
        config.dataset.name,
        config.rule["name"],
        network_label(config.model),
        f"b{config.batch_size}",
        f"lr{config.optimizer.lr:g}",
        f"s{config.seed}",
        digest,
    )
    return "-".join(parts)


def network_label(model: ModelConfig) -> str:
    """What a run's name says of its network."""
    if model._target_ or model.arch:
        return model.arch or model.name
    return f"w{model.width}"


def differing(config: Any, prefix: str = "") -> dict[str, Any]:
    """The settings that are not at their defaults, with dotted keys."""
    different: dict[str, Any] = {}
    for entry in fields(Config if isinstance(config, Config) else config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            different.update(differing(value, f"{prefix}{entry.name}."))
        elif value != (entry.default_factory() if callable(entry.default_factory) else entry.default):
            different[prefix + entry.name] = value
    return different
