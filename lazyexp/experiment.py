"""One run, top to bottom: data, model, rule, training, results. The last place that sees all settings."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lazyexp import __version__
from lazyexp.config.imports import attribute_errors, resolve, source
from lazyexp.config.run_id import run_id
from lazyexp.config.schema import Settings
from lazyexp.config.validation import custom_targets
from lazyexp.data import Data, load_data
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.models.checks import check_output, materialize
from lazyexp.rules import Rule, RunInfo, make_rule
from lazyexp.runs import matching
from lazyexp.runs.folder import RunFolder
from lazyexp.runs.recorder import Recorder
from lazyexp.runs.trackers import Tracking
from lazyexp.training import EngineSpec, Trainer, TrainingSchedule, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.isolation import isolated
from lazyexp.training.precision import fastest_scoring_precision
from lazyexp.utils.terminal import log


@dataclass
class RunResult:
    """How a run ended.

    `summary` is its row of summary.csv. `repeated`: the run was finished before. `signal`: number of the signal that
    asked it to stop, or 0.
    """

    folder: Path
    status: str
    summary: dict[str, Any]
    repeated: bool = False
    signal: int = 0


def run(config: Settings, concurrent: bool = False) -> RunResult:
    """Train with checked settings and write all files.

    Args:
        config: the checked settings.
        concurrent: whether other runs may be running at the same time; recorded in run.json.

    Raises:
        UserError: an error that the user can fix.
        RunIsBusy: another process is working on this run.
        OSError: a file cannot be read or written.
    """
    with isolated():  # the result must not depend on what the caller has set in torch
        return _run(config, concurrent)


def _run(config: Settings, concurrent: bool) -> RunResult:
    rule, device = make_rule(config.rule), pick_device(config.device)
    data = prepare_data(config, device)
    if config.packing.precision == "auto":
        fastest = fastest_scoring_precision(config.model.name == "mlp", data.train.pixels)
        config = replace(config, packing=replace(config.packing, precision=fastest))
    with attribute_custom_errors(config):
        constants = constant_columns(config, data, rule, device)
    with RunFolder(Path(config.runs_dir).expanduser() / constants["run_id"], constants) as folder:
        done = former_result(folder, config.overwrite)
        if done and (folder.replaced or not config.overwrite):
            return RunResult(folder.path, done["status"], done, repeated=True)
        target = folder.replacement() if done else folder

        model = make_model(config.model, data.shape, data.classes, config.seed)
        inputs, what = data.test.part(0, 2)[0], f"model={config.model.name}"
        materialize(model, inputs.cpu(), config.seed, what)
        check_output(model.to(device), inputs, data.classes, what)
        with attribute_custom_errors(config):
            rule.start(RunInfo(len(data.train), config.batch_size, config.epochs, config.seed, device))
        energy = Energy(model, Clock(device), config.energy)
        engine = make_engine(config.engine, engine_spec(config, model, data, rule, energy))
        with Recorder(
            target,
            data,
            device,
            settings=asdict(config),
            epochs=config.epochs,
            targets=config.targets,
            tracking=Tracking(config.tracker, target.path, Path(config.runs_dir).expanduser()),
            concurrent=concurrent,
            sources=custom_sources(config),
        ) as recorder:
            trainer = Trainer(training_schedule(config), data, model, rule, engine, energy, recorder)
            recorder.start(trainer)
            with attribute_custom_errors(config):
                status = trainer.run()
            summary = recorder.finish(trainer, status)
            folder.replace()
            return RunResult(folder.path, status, summary, signal=recorder.interruption.signal)


def prepare_data(config: Settings, device: torch.device) -> Data:
    """The data of a run, with the samples of `dataset.subset` if it is set. Raises UserError."""
    subset = matching.resolve(asdict(config))
    dataset = replace(config.dataset, subset=subset.path, subset_size=subset.size)
    data = load_data(dataset, config.data_dir, device, random_subset=subset.random)
    data.scoring = matching.cost(asdict(config), subset)
    if config.batch_size > len(data.train):
        raise UserError(f"batch_size={config.batch_size}: larger than the training set ({len(data.train)})")
    for text in data.notes:
        log(f"note: {text}")
    return data


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
    )


def training_schedule(config: Settings) -> TrainingSchedule:
    """What the trainer needs of the settings."""
    return TrainingSchedule(
        seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        eval_every=config.eval_every,
        lr=config.optimizer.lr,
        schedule=config.optimizer.schedule,
        warmup=config.optimizer.warmup,
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


def former_result(folder: RunFolder, overwrite: bool) -> dict[str, Any]:
    """The summary of the finished run in `folder`, empty if there is none. Damage is an error unless `overwrite`."""
    try:
        summary = folder.finished()
    except UserError:
        if not overwrite:
            raise
        return {"status": "damaged"}
    made_by = (folder.read_json().get("versions") or {}).get("lazyexp")
    if summary and not overwrite and made_by != __version__:
        log(f"note: {folder.path.name} was made by lazyexp {made_by}, not {__version__}; overwrite=true repeats it")
    return summary


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
    digests = {group: facts["sha256"] for group, facts in custom_sources(config).items()}
    sized = not (config.model._target_ or config.model.arch)
    return {
        "run_id": run_id(config, rule.identity(), device.type, f"{data.sha256}/{data.subset}", digests),
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
