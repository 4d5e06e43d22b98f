"""From settings to what trains: data, network, rule, engine. The last place that sees all settings."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lazyexp.config.imports import attribute_errors, resolve, source
from lazyexp.config.run_id import run_id
from lazyexp.config.schema import Settings
from lazyexp.config.validation import custom_targets
from lazyexp.data import Data, load_data, with_features
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.models.checks import check_output, materialize
from lazyexp.rules import Rule, RunInfo, make_rule
from lazyexp.runs import matching
from lazyexp.runs.rebuild import load_features
from lazyexp.streams import Replay, Store, check_members, make_phases
from lazyexp.training import Engine, EngineSpec, TrainingSchedule, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.course import Course, Stage
from lazyexp.training.energy import Energy
from lazyexp.training.folding import onto_components
from lazyexp.training.precision import fastest_scoring_precision


@dataclass(frozen=True)
class Prepared:
    """A run before its network is made: settings that fit the data, and the constant columns of metrics.csv."""

    config: Settings
    rule: Rule
    device: torch.device
    data: Data
    constants: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.runs_dir).expanduser() / str(self.constants["run_id"])


def prepare(config: Settings, data: Data | None = None) -> Prepared:
    """Load the data, unless they are given, and name the run. Raises UserError."""
    rule, device = make_rule(config.rule), pick_device(config.device)
    data = prepare_data(config, device) if data is None else data
    if config.batch_size > len(data.train):
        raise UserError(f"batch_size={config.batch_size}: larger than the training set ({len(data.train)})")
    config = fitted(config, data)
    with attribute_custom_errors(config):
        return Prepared(config, rule, device, data, constant_columns(config, data, rule, device))


def fitted(config: Settings, data: Data) -> Settings:
    """The settings with those filled in that depend on the data."""
    config = resolve_components(config, data.train.targets.device)
    if config.packing.precision == "auto":
        projected = bool(config.packing.components or config.dataset.components)
        linear = config.model.name == "mlp" and data.train.affine
        fastest = fastest_scoring_precision(linear, data.train.pixels, projected)
        config = replace(config, packing=replace(config.packing, precision=fastest))
    return config


@dataclass(frozen=True)
class Built:
    """What trains, and what is trained on."""

    data: Data
    model: torch.nn.Module
    rule: Rule
    engine: Engine
    energy: Energy
    course: Course


def build(run: Prepared) -> Built:
    """The network, checked, and what trains it. Raises UserError."""
    config, data = run.config, replace(run.data)
    model = make_model(config.model, data.shape, data.classes, config.seed)
    inputs, what = data.test.part(0, 2)[0], f"model={config.model.name}"
    materialize(model, inputs.cpu(), config.seed, what)
    check_output(model.to(run.device), inputs, data.classes, what)
    clock = Clock(run.device)
    if config.dataset.components is not None:
        onto_components(data, model, config.dataset.components, clock, config.seed)
    energy = Energy(model, clock, config.energy)
    course = make_course(config, data, model, energy)
    with attribute_custom_errors(config):
        rule, engine = make_parts(config, data, model, energy, course, course.stage(0))
    return Built(data, model, rule, engine, energy, course)


def prepare_data(config: Settings, device: torch.device) -> Data:
    """The data of a run, with the samples of `dataset.subset` if it is set. Raises UserError."""
    subset = matching.resolve(asdict(config))
    dataset = replace(config.dataset, subset=subset.path, subset_size=subset.size)
    data = load_data(dataset, config.data_dir, device, random_subset=subset.random)
    data.scoring = matching.cost(asdict(config), subset)
    if config.model.features:
        source = str(Path(config.model.features).expanduser().resolve())
        features = load_features(source)
        data = with_features(data, features.extract, features.sha256, config.dataset.scale, source)
    data.train.label_smoothing = config.loss.label_smoothing
    return data


def make_course(config: Settings, data: Data, model: torch.nn.Module, energy: Energy) -> Course:
    """The phases and the store of the settings `stream` and `memory`. Raises UserError."""
    stream, memory, targets = config.stream, config.memory, data.train.targets
    phases = make_phases(stream.phases, stream.present, data.classes, config.epochs, memory.restart_epochs)
    check_members(phases, targets.cpu(), data.classes)
    course = Course(phases, base=stream.base_rule is not None)
    if memory.name is not None:
        store = Store(memory.name, memory.capacity, targets, data.classes, config.seed)
        course.replay = Replay(memory, store, config.seed)
    course.make_parts = lambda stage: make_parts(config, data, model, energy, course, stage)
    return course


def make_parts(
    config: Settings, data: Data, model: torch.nn.Module, energy: Energy, course: Course, stage: Stage
) -> tuple[Rule, Engine]:
    """The rule and the engine of a stage, at their start. The rule counts the passes of the stages before, too."""
    base, phases = stage is Stage.BASE, course.phases
    rule = make_rule({"name": config.stream.base_rule} if base else config.rule)
    last = max(number for number in range(len(phases)) if course.stage(number) is stage)
    epochs = course.first_epoch(last + 1)
    device = data.train.targets.device
    rule.start(RunInfo(len(data.train), config.batch_size, epochs, config.seed, device, data.index))
    return rule, make_engine(config.engine, engine_spec(config, model, data, rule, energy))


def resolve_components(config: Settings, device: torch.device) -> Settings:
    """The settings with packing.components as they apply: null for other models than an mlp, and on a GPU."""
    count, model = config.packing.components, config.model
    if count is None or (model.name == "mlp" and not model._target_ and device.type == "cpu"):
        return config
    return replace(config, packing=replace(config.packing, components=None))


def engine_spec(config: Settings, model: torch.nn.Module, data: Data, rule: Rule, energy: Energy) -> EngineSpec:
    """What the engine needs of the settings."""
    return EngineSpec(
        model=model,
        samples=data.train,
        rule=rule,
        optimizer=config.optimizer,
        batch_size=config.batch_size,
        energy=energy,
        plasticity=config.plasticity,
        packing=config.packing,
        seed=config.seed,
        precision=config.precision,
    )


def training_schedule(config: Settings, clock: Clock | None = None) -> TrainingSchedule:
    """What the trainer needs of the settings. `clock` measures the seconds of training."""
    return TrainingSchedule(
        seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        eval_every=config.eval_every,
        lr=config.optimizer.lr,
        schedule=config.optimizer.schedule,
        warmup=config.optimizer.warmup,
        milestones=config.optimizer.milestones,
        gamma=config.optimizer.gamma,
        max_seconds=config.max_seconds,
        seconds=lambda: 0.0 if clock is None else clock.seconds,
        precision=config.precision,
        stop_at=config.stop_at,
        checkpoint_every=config.checkpoint_every,
    )


def attribute_custom_errors(config: Settings) -> AbstractContextManager[None]:
    """Turn exceptions of custom parts into one line. Without custom parts an exception is a bug of this program."""
    paths = custom_targets(config)
    if config.model.arch:  # torchvision's networks are checked in evaluation mode only
        paths = {"model": config.model.arch, **paths}
    if not paths:
        return nullcontext()
    return attribute_errors(f"in a run with {', '.join(f'{group} {path}' for group, path in paths.items())}")


def custom_sources(config: Settings) -> dict[str, dict[str, str | None]]:
    """Import path, file and SHA-256 of custom parts, by group."""
    return {group: source(resolve(path, f"{group}._target_"), path) for group, path in custom_targets(config).items()}


def pick_device(name: str) -> torch.device:
    """The device of the setting `device`; `auto` is a GPU if there is one. Raises UserError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"device={name}: there are {count} CUDA devices here; use device=cpu or auto")
    return device


def constant_columns(config: Settings, data: Data, rule: Rule, device: torch.device) -> dict[str, Any]:
    """The columns of metrics.csv that are the same in every row of a run."""
    fingerprint = f"{data.sha256}/{data.subset}" + (f"/{data.features['sha256']}" if data.features else "")
    digests = {group: facts["sha256"] for group, facts in custom_sources(config).items()}
    sized = not (config.model._target_ or config.model.arch)
    return {
        "run_id": run_id(config, rule.identity(), device.type, fingerprint, digests),
        "dataset": config.dataset.name,
        "train_size": len(data.train),
        "rule": config.rule["name"],
        "width": config.model.width if sized else None,
        "depth": config.model.depth if sized else None,
        "batch_size": config.batch_size,
        "lr": config.optimizer.lr,
        "seed": config.seed,
        "device": str(device),
    }
