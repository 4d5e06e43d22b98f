"""All runs of a sweep: checked before the first one starts, done by Hydra's launcher, followed by the report.

Does not import torch before there is something to train.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lazyexp.config.compose import hydra_session, literal_texts
from lazyexp.config.schema import Settings
from lazyexp.config.sweeps import (
    expand,
    in_parallel,
    local_workers,
    multirun,
    on_slurm,
    runs_in_parallel,
    search_path,
    varied_keys,
)
from lazyexp.errors import UserError
from lazyexp.settings import checked, sweep_settings
from lazyexp.utils.memory import is_out_of_memory, keep_freed_blocks
from lazyexp.utils.sweep_display import SweepDisplay
from lazyexp.utils.terminal import Position, log
from lazyexp.utils.workers import SweepFolder, asked_to_stop, forget_notes, has_parent, note, parent_is_gone

# Environment variables for workers in other processes: the number of runs of a sweep, and the keys that it varies.
TOTAL, VARIED = "LAZYEXP_SWEEP_RUNS", "LAZYEXP_SWEEP_KEYS"


@dataclass(frozen=True)
class RunEnd:
    """How a run of a sweep ended.

    `error`: one line, empty if there was none. `code`: the exit code of a single run. `signal`: number of the signal
    that asked the run to stop, or 0. `started`: False if the sweep was stopped before this run. `folder`: of the run.
    `text`: for standard output.
    """

    title: str
    error: str = ""
    code: int = 0
    signal: int = 0
    started: bool = True
    folder: str = ""
    status: str = ""
    text: str = ""

    @property
    def interrupted(self) -> bool:
        return self.code >= 128


# The runs of the sweep that this process has done, and their wall-clock seconds without those finished before.
_ended: list[RunEnd] = []
_seconds: list[float] = []


def sweep(overrides: list[str]) -> int:
    """Do all runs of a sweep, checked before the first one starts, then write the report. Returns the exit code."""
    with hydra_session():
        overrides = literal_texts(overrides)
        jobs = expand(overrides)
        settings = sweep_settings(jobs, search_path(overrides))
        if runs_in_parallel(overrides):
            log("note: several runs at once; their seconds are not comparable")
        os.environ[TOTAL], os.environ[VARIED] = str(len(jobs)), json.dumps(varied_keys(jobs))
        local = local_workers(overrides)
        _ended.clear()
        _seconds.clear()
        forget_notes()
        try:
            ends, signal = launch(overrides, len(jobs))
        except KeyboardInterrupt:
            print(tally(_ended, len(jobs)))
            raise
    for end in ends:
        if end.error and not (end.interrupted and local):  # these have been printed
            log(f"{'interrupted' if end.interrupted else 'failed'}: {end.title}: {end.error}")
    print(tally(ends, len(jobs)))
    if signal:
        return 128 + signal
    for runs_dir in sorted({Path(one.runs_dir).expanduser() for one in settings}):
        show_report(runs_dir, sorted({Path(end.folder) for end in ends if Path(end.folder).parent == runs_dir}))
    return 1 if any(end.error for end in ends) or len(ends) < len(jobs) else 0


def tally(ends: list[RunEnd], total: int) -> str:
    """How many runs of a sweep are done and how the others ended."""
    done = [end for end in ends if not end.error and not end.interrupted]
    diverged = sum(end.status == "diverged" for end in done)
    interrupted = sum(end.interrupted for end in ends)
    rest = {
        "failed": sum(bool(end.error) and not end.interrupted for end in ends),
        "interrupted": interrupted,
        "not started or lost": total - len(ends),
    }
    text = f"{len(done)} of {total} runs done" + f" ({diverged} diverged)" * bool(diverged)
    text = ", ".join([text, *(f"{number} {how}" for how, number in rest.items() if number)])
    return text + "; the same command continues" * (interrupted > 0)


def launch(overrides: list[str], total: int) -> tuple[list[RunEnd], int]:
    """Let Hydra do the runs. Returns how those that were started ended, and the signal that ended the sweep or 0.

    Runs that were lost with their launcher are missing.
    """
    workers = SweepFolder() if local_workers(overrides) else nullcontext()
    with workers as folder, _display(folder, overrides, total), waiting_for_jobs(overrides):
        try:
            ends = multirun(task, overrides)
        except (Exception, SystemExit) as error:
            message = " ".join(f"{type(error).__name__}: {error}".split())
            log(f"the launcher failed ({message[:300]})")
            log("started runs may continue; the same command does the missing ones")
            ends = [RunEnd(**known) for known in folder.results()] if folder else []
        return [end for end in ends if end.started], folder.signal if folder else 0


def _display(folder: SweepFolder | None, overrides: list[str], total: int) -> AbstractContextManager[object]:
    """The progress of parallel runs on this machine, shown by this process instead of by each of them."""
    return SweepDisplay(folder.results, total) if folder and runs_in_parallel(overrides) else nullcontext()


def waiting_for_jobs(overrides: list[str]) -> AbstractContextManager[None]:
    """Inside, a SLURM job that was cancelled or killed counts as a failed run."""
    if not on_slurm(overrides):
        return nullcontext()
    from lazyexp.utils.slurm import lost_jobs_as_results

    return lost_jobs_as_results(lambda title, error: RunEnd(title, error, code=1))


def show_report(runs_dir: Path, runs: list[Path]) -> None:
    """Write the report of a sweep and print its first table. An error does not fail the sweep.

    The report covers the sweep's runs, or all in `runs_dir` if it has none.
    """
    from lazyexp.report.build import make_report

    try:
        made = make_report(runs or [runs_dir], out=runs_dir / "report")
        print(made.text())
        print(f"report: {made.page}")
    except Exception as error:
        log(f"no report ({error}); try lazyexp-report {runs_dir}")


def task(composed: DictConfig) -> RunEnd:
    """One run of a sweep, called by Hydra, here or on another machine."""
    if asked_to_stop():
        return RunEnd("", "not started", started=False)
    try:
        settings = checked(composed)
    except UserError as error:
        return RunEnd("settings", str(error), code=2)
    hydra_settings = HydraConfig.get()
    position = Position(
        number=hydra_settings.job.num + 1,
        total=int(os.environ.get(TOTAL, "1")),
        title=_title(list(hydra_settings.overrides.task)),
        seconds=_seconds,
        parallel=in_parallel(hydra_settings.launcher),
    )
    try:
        end = execute(settings, position)
    except Exception as error:  # a bug must not end the other runs of the sweep
        traceback.print_exc()
        return RunEnd(position.title or settings.dataset.name, f"{type(error).__name__}: {error}", code=1)
    _ended.append(end)
    shown_by_parent = position.parallel and has_parent()
    if not shown_by_parent and end.text:
        print(end.text, flush=True)
    note(asdict(end))
    if position.parallel and parent_is_gone():
        os._exit(1)  # no process is left to take the result
    if (end.signal or end.interrupted) and not position.parallel:
        raise KeyboardInterrupt  # the sweep ends, whether or not this run could finish
    return end


def _title(overrides: list[str]) -> str:
    """The settings in which a run differs from others of its sweep."""
    keys = json.loads(os.environ.get(VARIED, "[]"))
    return ", ".join(word for word in overrides if word.partition("=")[0].lstrip("+") in keys)


def execute(settings: Settings, position: Position | None = None) -> RunEnd:
    """Do a run. Returns how it ended, errors of the user included."""
    from lazyexp import experiment
    from lazyexp.runs.display import end_line, end_text, exit_code
    from lazyexp.runs.folder import RunIsBusy

    keep_freed_blocks()
    title = f"{settings.dataset.name} {settings.rule['name']} seed {settings.seed}"
    title = position.title or title if position else title
    start = time.monotonic()
    try:
        result = experiment.run(settings, position)
    except RunIsBusy as busy:
        return RunEnd(title, f"another process is working on {busy}; skipped", code=1)
    except UserError as error:
        return RunEnd(title, str(error), code=2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return RunEnd(title, f"{where}{error.strerror or error}", code=2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return RunEnd(title, f"out of memory: {error}; use a smaller model or batch", code=2)
    if position and not result.repeated:
        position.seconds.append(time.monotonic() - start)
    code, stopped = exit_code(result), ""
    text = f"{position} {end_line(title, result)}" if position else end_text(title, result)
    if code and position and position.parallel:
        stopped = f"by signal {result.signal}; the same command continues"
    return RunEnd(title, stopped, code, result.signal, folder=str(result.folder), status=result.status, text=text)
