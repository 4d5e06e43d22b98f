"""One run, top to bottom: data, model, rule, training, results."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lazyexp import __version__
from lazyexp.building import attribute_custom_errors, build, custom_sources, prepare, training_schedule
from lazyexp.config.schema import Settings
from lazyexp.errors import UserError
from lazyexp.models.checks import single_sample_warning
from lazyexp.runs.folder import RunFolder
from lazyexp.runs.recorder import Recorder
from lazyexp.runs.trackers import Tracking
from lazyexp.training import Trainer
from lazyexp.training.isolation import isolated
from lazyexp.training.precision import slow_precision_note
from lazyexp.utils.terminal import Position, log
from lazyexp.utils.workers import first_in_sweep


@dataclass(frozen=True)
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


def run(config: Settings, position: Position | None = None) -> RunResult:
    """Train with checked settings and write all files.

    Args:
        config: the checked settings.
        position: where the run is in its sweep; whether it is a parallel one is recorded in run.json.

    Raises:
        UserError: an error that the user can fix.
        RunIsBusy: another process is working on this run.
        OSError: a file cannot be read or written.
    """
    with isolated(config.threads):  # the result must not depend on what the caller has set in torch
        return _run(config, position)


def _run(config: Settings, position: Position | None) -> RunResult:
    prepared, asked = prepare(config), config.packing.components
    config, data = prepared.config, prepared.data
    for text in data.notes:
        if position is None or first_in_sweep(text):
            log(f"note: {text}")
    with RunFolder(prepared.folder, prepared.constants) as folder:
        done = former_result(folder, config.overwrite)
        if done and (folder.replaced or not config.overwrite):
            return RunResult(folder.path, done["status"], done, repeated=True)
        target = folder.replacement() if done else folder

        built = build(prepared)
        for warning in (
            single_sample_warning(built.model, config.batch_size, f"model={config.model.name}"),
            slow_precision_note(config.precision, prepared.device),
            None if asked == config.packing.components else unused_components(asked),
        ):
            if warning and (position is None or first_in_sweep(warning)):
                log(warning)
        with Recorder(
            target,
            data,
            prepared.device,
            settings=asdict(config),
            targets=config.targets,
            tracking=Tracking(config.tracker, target.path, Path(config.runs_dir).expanduser()),
            position=position,
            sources=custom_sources(config),
        ) as recorder:
            trainer = Trainer(
                training_schedule(config, built.energy.clock),
                built.data,
                built.model,
                built.rule,
                built.engine,
                built.energy,
                recorder,
                built.course,
            )
            recorder.start(trainer)
            with attribute_custom_errors(config):
                status = trainer.run()
            summary = recorder.finish(trainer, status)
            folder.replace()
            return RunResult(folder.path, status, summary, signal=recorder.interruption.signal)


def unused_components(count: int | None) -> str:
    """The note on packing.components where they do not apply."""
    return f"note: packing.components={count}: is for model=mlp on a CPU; samples are scored on all inputs"


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
