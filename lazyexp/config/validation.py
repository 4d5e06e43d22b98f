"""Check settings: the bounds of every field, and combinations of fields.

Nothing here imports torch.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

from lazyexp.config.fields import check_setting, require, value_at, walk
from lazyexp.config.registry import CUSTOM_DATASET, DATASETS, NAMES
from lazyexp.config.schema import Config, ModelConfig, Settings
from lazyexp.config.streams import check_memory, check_stream, check_time_limit

ENTRIES = dict(walk(Config))
# Keys of numbers whose own bounds are all there is to check, and their types.
NUMBERS = {
    key: int if "int" in str(entry.type) else float
    for key, entry in ENTRIES.items()
    if {"at_least", "above"} & set(entry.metadata)
    and "list" not in str(entry.type)
    and key not in ("optimizer.momentum", "optimizer.warmup", "packing.block_size")
    and key not in ("memory.replay_epochs", "memory.restart_epochs")
}


def check_value(key: str, value: Any) -> None:
    """Raise UserError if `value` is outside the bounds of its key."""
    check_setting(ENTRIES[key], key, value)


def check(config: Config) -> Settings:
    """Fill in the data set's defaults and check everything that needs no torch. Raises UserError."""
    config = _name_custom_parts(config)
    config = replace(config, dataset=replace(config.dataset, augment=as_list(config.dataset.augment)))
    _check_fields(config)
    _check_dataset(config)
    _check_model(config.model)
    require(
        not config.model.features or not config.dataset.augment,
        "dataset.augment",
        config.dataset.augment,
        "[] with model.features, which are computed once",
    )
    _check_optimizer(config)
    _check_execution(config)
    check_stream(config.stream, config.epochs, config.dataset.subset)
    check_memory(config.memory)
    check_time_limit(config.stream, config.memory, config.max_seconds)
    _check_effects(config)
    defaults = DATASETS.get(config.dataset.name, CUSTOM_DATASET)
    given = {entry.name: getattr(config, entry.name) for entry in fields(Config)}
    if config.epochs is None:
        given["epochs"] = 1 if config.stream.name == "online" else defaults.epochs
    if config.eval_every is None:
        given["eval_every"] = defaults.eval_every_of(config.dataset.train_size)
    given["targets"] = (
        defaults.targets_of(config.dataset.train_size) if config.targets is None else list(config.targets)
    )
    return Settings(**given)


def as_list(value: Any) -> list[Any]:
    """A list; a single value is a list of one; null and `none` are an empty list."""
    if value is None or value == "none":
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def custom_targets(config: Config) -> dict[str, str]:
    """The import paths of custom parts, by group."""
    paths = {group: _value(config, group, "_target_") for group in NAMES}
    return {group: path for group, path in paths.items() if path}


def _value(config: Config, group: str, key: str) -> Any:
    """A key of a group; None for an option that a rule lacks."""
    part = getattr(config, group)
    return part.get(key) if isinstance(part, dict) else getattr(part, key)


def _name_custom_parts(config: Config) -> Config:
    """The settings with custom parts named as in their settings file, else by the last word of their import path."""
    changed: dict[str, Any] = {}
    for group, known in NAMES.items():
        name, target = _value(config, group, "name"), _value(config, group, "_target_")
        require(isinstance(name, str), f"{group}.name", name, "a name")
        if target is not None and name in known:
            last = str(target).rpartition(".")[2]
            renamed = {"name": "custom" if last in known or not last.isidentifier() else last}
            part = getattr(config, group)
            changed[group] = {**part, **renamed} if isinstance(part, dict) else replace(part, **renamed)
    return replace(config, **changed)


def _check_fields(config: Config) -> None:
    """Check every value against the bounds of its field. A name is part of a folder's name."""
    for key, entry in ENTRIES.items():
        group, _, name = key.rpartition(".")
        if name == "name" and group in NAMES and _value(config, group, "_target_"):
            continue  # checked below: a custom part has a name of its own
        check_setting(entry, key, value_at(config, key))
    for group in NAMES:
        name = _value(config, group, "name")
        valid = re.fullmatch(r"[\w+-][\w.+-]*", name) is not None
        require(valid, f"{group}.name", name, "letters, digits, and any of . _ + -, not starting with a dot")


def _check_dataset(config: Config) -> None:
    data = config.dataset
    custom = data.name not in DATASETS or data.name == "folder"
    require(custom or not data.options, "dataset.options", data.options, f"empty for dataset={data.name}")
    require(data.name != "folder" or bool(data.path), "dataset.path", data.path, "set for dataset=folder")
    require(data.name == "folder" or not data.path, "dataset.path", data.path, "null unless dataset=folder")
    both = "shift" in data.augment and "crop" in data.augment
    require(not both, "dataset.augment", data.augment, "without shift or without crop, which differ in padding alone")
    scored = bool(data.subset) and data.subset != "random"
    require(
        scored or data.subset_score == "learned",
        "dataset.subset_score",
        data.subset_score,
        "learned without dataset.subset",
    )
    require(
        scored or data.subset_size is None, "dataset.subset_size", data.subset_size, "null without dataset.subset"
    )
    require(
        scored or data.subset_choice == "top",
        "dataset.subset_choice",
        data.subset_choice,
        "top without dataset.subset",
    )
    stratified = data.subset_choice == "ccs"
    require(
        stratified or data.subset_cutoff == 0,
        "dataset.subset_cutoff",
        data.subset_cutoff,
        "0 unless dataset.subset_choice=ccs",
    )


def _check_model(model: ModelConfig) -> None:
    """Refuse keys that the chosen network would ignore."""
    default = ModelConfig()
    if model._target_ or model.name == "torchvision":
        for key in ("width", "depth", "activation", "init", "norm"):
            given = getattr(model, key)
            require(
                given == getattr(default, key), f"model.{key}", given, f"unset here; use model.options.{key}=VALUE"
            )
    else:
        require(not model.options, "model.options", model.options, f"empty for model={model.name}")
    require(model.name == "resnet" or model.norm == "batch", "model.norm", model.norm, "batch unless model=resnet")
    whole = model.name != "resnet" or (model.depth >= 8 and model.depth % 6 == 2)
    require(whole, "model.depth", model.depth, "8, 20, 32, 44, 56 or another 6n + 2 for model=resnet")
    require(model.name == "torchvision" or not model.arch, "model.arch", model.arch, "null unless model=torchvision")


def _check_optimizer(config: Config) -> None:
    optimizer = config.optimizer
    custom = optimizer.name not in NAMES["optimizer"]
    require(
        custom or not optimizer.options,
        "optimizer.options",
        optimizer.options,
        f"empty for optimizer={optimizer.name}",
    )
    hint = "set optimizer.options.momentum for a custom optimizer" if custom else "momentum is a key of sgd"
    require(
        optimizer.name == "sgd" or optimizer.momentum == 0,
        "optimizer.momentum",
        optimizer.momentum,
        f"0 for optimizer={optimizer.name}; {hint}",
    )
    require(
        not optimizer.nesterov or optimizer.momentum > 0,
        "optimizer.nesterov",
        optimizer.nesterov,
        "false without optimizer.momentum",
    )
    stepwise = optimizer.schedule in ("multistep", "exponential")
    require(
        optimizer.milestones is None or optimizer.schedule == "multistep",
        "optimizer.milestones",
        optimizer.milestones,
        "null unless optimizer.schedule=multistep",
    )
    require(
        optimizer.gamma is None or stepwise,
        "optimizer.gamma",
        optimizer.gamma,
        "null unless optimizer.schedule=multistep or exponential",
    )
    require(
        optimizer.warmup == 0 or optimizer.schedule != "onecycle",
        "optimizer.warmup",
        optimizer.warmup,
        "0 for optimizer.schedule=onecycle, which has a warm-up of its own",
    )


# Keys that have an effect only if another one has a certain value, that value, and the data sets that are downloaded.
PLASTICITY = {"share": "largest", "threshold": "cached", "decay": "cached", "cost": "cached"}
NOT_DOWNLOADED = ("digits", "folder")


def _check_effects(config: Config) -> None:
    """Refuse values other than the defaults that cannot change anything."""
    data, plasticity = config.dataset, config.plasticity
    shifted = "shift" in data.augment or data.max_shift == type(data)().max_shift
    require(shifted, "dataset.max_shift", data.max_shift, "unset without dataset.augment=shift; it has no effect")
    downloaded = data.name in DATASETS and data.name not in NOT_DOWNLOADED
    require(downloaded or not data.mirror, "dataset.mirror", data.mirror, f"null for dataset={data.name}")
    for key, name in PLASTICITY.items():
        given = getattr(plasticity, key)
        used = plasticity.name == name or given == getattr(type(plasticity)(), key)
        require(used, f"plasticity.{key}", given, f"unset without plasticity={name}; it has no effect")


def _check_execution(config: Config) -> None:
    optimizer, packing = config.optimizer, config.packing
    require(
        packing.block_size > 0 or packing.precision == "float32",
        "packing.precision",
        packing.precision,
        "float32 without packing; set packing.block_size, for example to 512",
    )
    require(
        packing.components is None or packing.block_size > 0,
        "packing.components",
        packing.components,
        "null without packing; set packing.block_size, for example to 512",
    )
    require(
        packing.components is None or packing.precision != "int8",
        "packing.precision",
        packing.precision,
        "float32, bfloat16 or auto with packing.components",
    )
    require(
        config.dataset.components is None or (config.model.name == "mlp" and not config.model._target_),
        "dataset.components",
        config.dataset.components,
        f"null for model={config.model.name}",
    )
    plain = (config.model.name, optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("mlp", "sgd", 0, 0)
    require(
        config.plasticity.name == "all" or (plain and config.engine != "autograd"),
        "plasticity.name",
        config.plasticity.name,
        "all except for model=mlp, optimizer=sgd without momentum and weight decay, and engine=auto or fast",
    )
    switches = config.stream.base_rule is not None or config.memory.restart_epochs > 0
    require(
        config.plasticity.name != "cached" or not switches,
        "plasticity.name",
        config.plasticity.name,
        "all or largest with stream.base_rule or memory.restart_epochs, which begin with an empty transient store",
    )
    require(
        config.plasticity.name == "all" or config.loss.label_smoothing == 0,
        "loss.label_smoothing",
        config.loss.label_smoothing,
        "0 unless plasticity=all",
    )
    for key in ("runs_dir", "data_dir"):
        folder = getattr(config, key)
        require(bool(folder.strip()), key, repr(folder), "a folder; `.` is the current one")
    device = config.device.removeprefix("cuda:")
    require(
        device in ("auto", "cpu", "cuda") or (device.isdecimal() and device != config.device),
        "device",
        config.device,
        "auto, cpu, cuda or cuda:N",
    )
