"""The command `lazyexp`: a run, or all runs of a sweep. Prints how they end and returns an exit code.

Does not import torch before there is something to train.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lazyexp.config.compose import compose_settings, hydra_session, literal_texts, register
from lazyexp.config.paths import CONF
from lazyexp.config.schema import Settings
from lazyexp.config.sweeps import (
    expand,
    in_parallel,
    local_workers,
    multirun,
    on_slurm,
    runs_in_parallel,
    search_path,
)
from lazyexp.errors import UserError
from lazyexp.settings import checked, settings_of, sweep_settings
from lazyexp.utils.memory import is_out_of_memory
from lazyexp.utils.workers import SweepFolder, asked_to_stop, note, parent_is_gone

# Environment variable with the number of runs of a sweep, for workers in other processes.
TOTAL = "LAZYEXP_SWEEP_RUNS"
RUN, SWEEP = {"--run", "-r"}, {"--multirun", "-m"}
# Hydra's flags that only print something; any other flag would bypass our checks.
PRINTING = {"--help", "-h", "--hydra-help", "--version", "--shell-completion", "-sc", "--cfg", "-c", "--info", "-i"}
CFG_OPTIONS = {"--package", "-p", "--resolve"}


@dataclass(frozen=True)
class RunEnd:
    """How a run of a sweep ended.

    `error`: one line, empty if there was none. `code`: the exit code of a single run. `signal`: number of the signal
    that asked the run to stop, or 0. `started`: False if the sweep was stopped before this run. `folder`: of the run.
    """

    title: str
    error: str = ""
    code: int = 0
    signal: int = 0
    started: bool = True
    folder: Path | None = None


def main() -> NoReturn:
    """Entry point. Exits with 0, 1 (a run of a sweep failed), 2 (user error) or 128 + signal."""
    for stream in (sys.stdout, sys.stderr):  # names of files and classes may contain what a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    register()
    try:
        code = dispatch(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        close_stdout()
        sys.exit(141)
    except OSError as error:
        close_stdout()
        what = error.filename or "standard output"
        fail(f"cannot read or write {what}: {error.strerror or error}")


def dispatch(arguments: list[str]) -> int:
    """Do what the command line asks for. Returns the exit code."""
    flags, overrides = split_arguments(arguments)
    if not flags - RUN - SWEEP:
        return sweep(overrides) if flags & SWEEP else single(overrides)
    known = PRINTING | (CFG_OPTIONS if flags & {"--cfg", "-c"} else set())
    if flags - known:
        raise UserError(
            f"{min(flags - known)}: unknown flag; -m runs a sweep, --config-dir DIR adds a folder of settings files; "
            "see lazyexp --help"
        )
    if flags & {"--cfg", "-c"}:
        with hydra_session():
            compose_settings([word for word in overrides if "=" in word])
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    return 0


def close_stdout() -> None:
    """Redirect stdout to nowhere, so that nothing fails on it at the end of the program."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def split_arguments(arguments: list[str]) -> tuple[set[str], list[str]]:
    """Flags and overrides. `--config-dir DIR` becomes an override that adds DIR to the search path."""
    flags, overrides, folders = set(), [], []
    rest = iter(arguments)
    for argument in rest:
        name, given, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            folder = Path(value if given else next(rest, "")).expanduser()
            if not folder.name or not folder.is_dir():
                raise UserError(f"--config-dir {folder}: no such folder")
            escaped = str(folder.resolve()).replace("\\", "\\\\").replace("'", "\\'")
            folders.append(f"'file://{escaped}'")
        elif argument.startswith("-"):
            flags.add(name)
        else:
            overrides.append(argument)
    if folders:
        overrides.append(f"hydra.searchpath=[{','.join(folders)}]")
    return flags, overrides


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error in one line and exit."""
    print(f"lazyexp: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def single(overrides: list[str]) -> int:
    """Do one run. Returns the exit code."""
    end = execute(settings_of(overrides))
    if end.error:
        fail(end.error, end.code)
    return end.code


def sweep(overrides: list[str]) -> int:
    """Do all runs of a sweep, checked before the first one starts, then write the report. Returns the exit code."""
    with hydra_session():
        overrides = literal_texts(overrides)
        jobs = expand(overrides)
        settings = sweep_settings(jobs, search_path(overrides))
        if runs_in_parallel(overrides):
            print("lazyexp: note: several runs at once; their seconds are not comparable", file=sys.stderr)
        os.environ[TOTAL] = str(len(jobs))
        ends, signal = launch(overrides)
    failed = [end for end in ends if end.error]
    for end in failed:
        print(f"lazyexp: failed: {end.title}: {end.error}", file=sys.stderr)
    print(f"{len(ends) - len(failed)} of {len(jobs)} runs done")
    if signal:
        return 128 + signal
    for runs_dir in sorted({Path(one.runs_dir).expanduser() for one in settings}):
        show_report(runs_dir, sorted({end.folder for end in ends if end.folder and end.folder.parent == runs_dir}))
    return 1 if failed or len(ends) < len(jobs) else 0


def launch(overrides: list[str]) -> tuple[list[RunEnd], int]:
    """Let Hydra do the runs. Returns how those that were started ended, and the signal that ended the sweep or 0.

    Runs that were lost with their launcher are missing.
    """
    with SweepFolder() if local_workers(overrides) else nullcontext() as folder, waiting_for_jobs(overrides):
        try:
            ends = multirun(task, overrides)
        except (Exception, SystemExit) as error:
            message = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"lazyexp: the launcher failed ({message[:300]})", file=sys.stderr)
            print("lazyexp: started runs may continue; the same command does the missing ones", file=sys.stderr)
            ends = [RunEnd(**known) for known in folder.results()] if folder else []
        return [end for end in ends if end.started], folder.signal if folder else 0


def waiting_for_jobs(overrides: list[str]) -> AbstractContextManager[None]:
    """Inside, a SLURM job that was cancelled or killed counts as a failed run."""
    if not on_slurm(overrides):
        return nullcontext()
    from lazyexp.utils.slurm import lost_jobs_as_results

    return lost_jobs_as_results(lambda title, error: RunEnd(title, error, code=1))


def show_report(runs_dir: Path, runs: list[Path]) -> None:
    """Write the report of a sweep: of its runs, or of all in `runs_dir` if it has none. An error does not fail it."""
    from lazyexp.report.build import write_report

    try:
        print(f"report: {write_report(runs or [runs_dir], out=runs_dir / 'report')}")
    except Exception as error:
        print(f"lazyexp: no report ({error}); try lazyexp-report {runs_dir}", file=sys.stderr)


def task(composed: DictConfig) -> RunEnd:
    """One run of a sweep, called by Hydra, here or on another machine."""
    if asked_to_stop():
        return RunEnd("", "not started", started=False)
    try:
        settings = checked(composed)
    except UserError as error:
        return RunEnd("settings", str(error), code=2)
    hydra_settings = HydraConfig.get()
    position = f"[{hydra_settings.job.num + 1}/{os.environ.get(TOTAL, '?')}]"
    parallel = in_parallel(hydra_settings.launcher)
    try:
        end = execute(settings, position, parallel)
    except Exception as error:  # a bug must not end the other runs of the sweep
        traceback.print_exc()
        return RunEnd(settings.dataset.name, f"{type(error).__name__}: {error}", code=1)
    note({"title": end.title, "error": end.error, "code": end.code})
    if parallel and parent_is_gone():
        os._exit(1)  # no process is left to take the result
    if (end.signal or end.code >= 128) and not parallel:
        raise KeyboardInterrupt  # the sweep ends, whether or not this run could finish
    if end.code >= 128:
        return RunEnd(end.title, f"interrupted by signal {end.signal}; the same command continues", end.code)
    return end


def execute(settings: Settings, position: str = "", concurrent: bool = False) -> RunEnd:
    """Do a run and print its end; in one line, with its `position`, if it is part of a sweep. Returns user errors."""
    from lazyexp import experiment
    from lazyexp.runs.display import show_end
    from lazyexp.runs.folder import RunIsBusy

    title = f"{settings.dataset.name} {settings.rule['name']} seed {settings.seed}"
    try:
        result = experiment.run(settings, concurrent)
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
    code = show_end(title, result, position)
    return RunEnd(title, code=code, signal=result.signal, folder=result.folder)
