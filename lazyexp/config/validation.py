"""What settings must be to work: every field's own bounds, and what they demand of each other.

Nothing here imports torch.
"""

from __future__ import annotations

import re
from dataclasses import Field, fields, is_dataclass, replace
from typing import Any

from lazyexp.config.fields import check_setting, require
from lazyexp.config.registry import CUSTOM_DATASET, DATASETS, NAMES
from lazyexp.config.schema import Config, ModelConfig, Settings


def _check_fields(config: Any, prefix: str = "") -> None:
    """Holds every value against the constraints on its field."""
    for entry in fields(Config if isinstance(config, Config) else config):
        value, key = getattr(config, entry.name), prefix + entry.name
        if entry.name == "name" and getattr(config, "_target_", None):  # what a settings file calls its own part
            require(re.fullmatch(r"[\w.+-]+", value) is not None, key, value, "letters, digits, and any of . _ + -")
        elif is_dataclass(value):
            _check_fields(value, f"{key}.")
        else:
            check_setting(entry, key, value)


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
    check_setting(ENTRIES[key], key, value)


def check(config: Config) -> Settings:
    """Fills in the data set's defaults and refuses values that cannot work. Raises UserError."""
    config = _name_custom_parts(config)
    config = replace(config, dataset=replace(config.dataset, augment=as_list(config.dataset.augment)))
    _check_fields(config)
    packing = config.packing
    require(
        packing.block_size > 0 or packing.precision == "float32",
        "packing.precision",
        packing.precision,
        "float32 without packing; set packing.block_size, for example to 512",
    )
    data, optimizer = config.dataset, config.optimizer
    defaults = DATASETS.get(data.name, CUSTOM_DATASET)
    _check_model(config.model)
    for key, name in (("dataset", data.name), ("optimizer", optimizer.name)):
        given = getattr(config, key).options
        own = name not in NAMES[key] or name == "folder"
        require(own or not given, f"{key}.options", given, f"left alone for {key}={name}")
    require(data.name != "folder" or bool(data.path), "dataset.path", data.path, "set for dataset=folder")
    require(data.name == "folder" or not data.path, "dataset.path", data.path, "left alone unless dataset=folder")
    require(
        optimizer.name == "sgd" or optimizer.momentum == 0,
        "optimizer.momentum",
        optimizer.momentum,
        f"0 for optimizer={optimizer.name} (momentum belongs to sgd"
        + ("; a custom optimizer's is optimizer.options.momentum)" if optimizer._target_ else ")"),
    )
    require(
        optimizer.warmup == 0 or optimizer.schedule != "onecycle",
        "optimizer.warmup",
        optimizer.warmup,
        "0 for optimizer.schedule=onecycle, which warms up by itself",
    )
    scored = bool(data.subset) and data.subset != "random"
    require(
        scored or data.subset_score == "learned",
        "dataset.subset_score",
        data.subset_score,
        "learned without a subset",
    )
    require(scored or data.subset_size is None, "dataset.subset_size", data.subset_size, "null without a subset")
    plain = (config.model.name, optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("mlp", "sgd", 0, 0)
    require(
        config.plasticity.name == "all" or (plain and config.engine != "autograd"),
        "plasticity.name",
        config.plasticity.name,
        "all but for model=mlp, optimizer=sgd without momentum and weight decay, and engine=auto or fast",
    )
    for key in ("runs_dir", "data_dir"):
        require(bool(getattr(config, key).strip()), key, getattr(config, key), "a folder; `.` is the current one")
    device = config.device.removeprefix("cuda:")
    require(
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


def as_list(value: Any) -> list[Any]:
    """A list; a single value is a list of one, null and `none` are empty."""
    if value is None or value == "none":
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def custom_targets(config: Config) -> dict[str, str]:
    """The import paths of what was brought along, by group."""
    paths = {group: _get(config, group, "_target_") for group in NAMES}
    return {group: path for group, path in paths.items() if path}


def _get(config: Config, group: str, key: str) -> Any:
    part = getattr(config, group)
    return part.get(key) if isinstance(part, dict) else getattr(part, key)


def _name_custom_parts(config: Config) -> Config:
    """A part with a `_target_` is called what its settings file calls it, else by the last word of its path."""
    require(isinstance(config.rule.get("name"), str), "rule.name", config.rule.get("name"), "the name of a rule")
    changed: dict[str, Any] = {}
    for group, known in NAMES.items():
        name, target = _get(config, group, "name"), _get(config, group, "_target_")
        if target is not None and name in known:
            last = str(target).rpartition(".")[2]
            name = {"name": "custom" if last in known or not last.isidentifier() else last}
            part = getattr(config, group)
            changed[group] = {**part, **name} if isinstance(part, dict) else replace(part, **name)
    return replace(config, **changed)


def _check_model(model: ModelConfig) -> None:
    """Refuses keys that the chosen network would not heed."""
    default = ModelConfig()
    if model._target_ or model.name == "torchvision":
        for key in ("width", "depth", "activation", "init"):
            given = getattr(model, key)
            require(given == getattr(default, key), f"model.{key}", given, "an option: model.options.NAME=VALUE")
    else:
        require(not model.options, "model.options", model.options, f"left alone for model={model.name}")
    require(model.name == "torchvision" or not model.arch, "model.arch", model.arch, "left alone: not torchvision")
