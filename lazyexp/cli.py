"""The command `lazyexp`: a run, or all runs of a sweep; how they end is shown and returned as an exit code.

It does not import torch before there is something to train.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lazyexp.config.compose import (
    CONF,
    checked,
    compose_readably,
    expand,
    hydra_session,
    in_parallel,
    local_workers,
    multirun,
    register,
    runs_in_parallel,
    search_path,
    sweep_settings,
)
from lazyexp.config.schema import Settings
from lazyexp.errors import UserError
from lazyexp.utils.workers import SweepFolder, asked_to_stop, note, parent_is_gone

TOTAL = "LAZYEXP_SWEEP_RUNS"
# In place of an exit code: a run that was left because the sweep was told to stop.
NOT_BEGUN = -1
RUN, SWEEP = {"--run", "-r"}, {"--multirun", "-m"}
# Hydra's flags that only tell something; any other one would lead around our checks.
TELLING = {"--help", "-h", "--hydra-help", "--version", "--shell-completion", "-sc", "--cfg", "-c", "--info", "-i"}
OF_CFG = {"--package", "-p", "--resolve"}


def main() -> NoReturn:
    """Entry point; exits with 0, 1 (a run of a sweep failed), 2 (user error) or 128 + signal."""
    for stream in (sys.stdout, sys.stderr):  # names of files and of classes may hold what a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    register()
    try:
        flags, overrides = split_arguments(sys.argv[1:])
        if not flags - RUN - SWEEP:
            code = sweep(overrides) if flags & SWEEP else single(overrides)
            sys.stdout.flush()
            sys.exit(code)
        known = TELLING | (OF_CFG if flags & {"--cfg", "-c"} else set())
        if flags - known:
            raise UserError(
                f"{min(flags - known)}: is not for lazyexp; --config-dir DIR adds a folder of settings, -m is a "
                "sweep, and the rest stands in lazyexp --help"
            )
        if flags & {"--cfg", "-c"}:
            with hydra_session():
                compose_readably([word for word in overrides if "=" in word])
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
        sys.exit(0)
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        leave_stdout()
        sys.exit(141)
    except OSError as error:  # those of runs have been met where they belong
        leave_stdout()
        fail(f"cannot write to standard output: {error.strerror or error}; what was finished is in its folder")


def leave_stdout() -> None:
    """Lets nothing more be written there, not even at the end of the program."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def split_arguments(arguments: list[str]) -> tuple[set[str], list[str]]:
    """The flags, and the overrides; `--config-dir DIR` adds DIR to the places of settings."""
    flags, overrides, folders = set(), [], []
    rest = iter(arguments)
    for argument in rest:
        name, given, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            folder = Path(value if given else next(rest, "")).expanduser()
            if not folder.name or not folder.is_dir():
                raise UserError(f"--config-dir {folder}: no such folder")
            folders.append(f"'file://{folder.resolve()}'")
        elif argument.startswith("-"):
            flags.add(name)
        else:
            overrides.append(argument)
    if folders:
        overrides.append(f"hydra.searchpath=[{','.join(folders)}]")
    return flags, overrides


def fail(message: str, code: int = 2) -> NoReturn:
    print(f"lazyexp: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def single(overrides: list[str]) -> int:
    """One run. Returns the exit code."""
    with hydra_session():
        config = checked(compose_readably(overrides))
    result = execute(config)
    if result["error"]:
        fail(result["error"], result["code"])
    return result["code"]


def sweep(overrides: list[str]) -> int:
    """All runs of a sweep, checked before the first one starts, then the report. Returns the exit code."""
    with hydra_session():
        jobs = expand(overrides)
        configs = sweep_settings(jobs, search_path(overrides))
        if runs_in_parallel(overrides):
            print("lazyexp: note: several runs at once; their seconds are not to be compared", file=sys.stderr)
        os.environ[TOTAL] = str(len(jobs))  # for workers in other processes, too
        results, number = launch(overrides)
    failed = [result for result in results if result["error"]]
    for result in failed:
        print(f"lazyexp: failed: {result['title']}: {result['error']}", file=sys.stderr)
    print(f"{len(results) - len(failed)} of {len(jobs)} runs done")
    if number:
        return 128 + number
    for folder in sorted({config.runs_dir for config in configs}):
        show_report(Path(folder).expanduser())
    return 1 if failed or len(results) < len(jobs) else 0


def launch(overrides: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Has Hydra do the runs. Returns what `task` returned for each, and the signal that ended the sweep or 0.

    Runs that were not begun, or were lost with their launcher, have no result.
    """
    with SweepFolder() if local_workers(overrides) else nullcontext() as folder:
        try:
            results = multirun(task, overrides)
        except (Exception, SystemExit) as error:
            message = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"lazyexp: the launcher gave up ({message[:300]})", file=sys.stderr)
            print("lazyexp: runs that were started may go on; the same command does what is missing", file=sys.stderr)
            results = folder.results() if folder else []
        return [result for result in results if result["code"] != NOT_BEGUN], folder.signal if folder else 0


def show_report(folder: Path) -> None:
    """Writes the report of a sweep's folder; a failure there does not make the sweep fail."""
    from lazyexp.report.build import write_report

    try:
        print(f"report: {write_report([folder])}")
    except Exception as error:
        print(f"lazyexp: no report ({error}); try lazyexp-report {folder}", file=sys.stderr)


def task(settings: DictConfig) -> dict[str, Any]:
    """What Hydra calls for every run of a sweep, here or on another machine."""
    if asked_to_stop():
        return {"title": "", "error": "not begun", "code": NOT_BEGUN}
    try:
        config = checked(settings)
    except UserError as error:
        return {"title": "settings", "error": str(error), "code": 2}
    hydra_settings = HydraConfig.get()
    place = f"[{hydra_settings.job.num + 1}/{os.environ.get(TOTAL, '?')}]"
    parallel = in_parallel(hydra_settings.launcher)
    try:
        result = execute(config, place, parallel)
    except Exception as error:  # a fault of ours must not take the other runs of the sweep with it
        traceback.print_exc()
        return {"title": config.dataset.name, "error": f"{type(error).__name__}: {error}", "code": 1}
    note(result)
    if parallel and parent_is_gone():
        os._exit(1)  # nobody is left to take the result
    if result["code"] >= 128:
        if not parallel:
            raise KeyboardInterrupt
        result["error"] = f"interrupted by signal {result['code'] - 128}; the same command goes on from here"
    if result.get("signal") and not parallel:
        raise KeyboardInterrupt  # it came while the run was being saved: that run is done, the sweep is over
    return result


def execute(config: Settings, place: str = "", concurrent: bool = False) -> dict[str, Any]:
    """Does a run and shows its end; in a sweep, at its `place`, in one line. Errors to mend are returned."""
    from lazyexp import experiment
    from lazyexp.runs.folder import RunIsBusy
    from lazyexp.utils import terminal

    title = f"{config.dataset.name} {config.rule['name']} seed {config.seed}"
    try:
        report = experiment.run(config, concurrent)
    except RunIsBusy as busy:
        return {"title": title, "error": f"another process is working on {busy}; leaving it alone", "code": 1}
    except UserError as error:
        return {"title": title, "error": str(error), "code": 2}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return {"title": title, "error": f"{where}{error.strerror or error}", "code": 2}
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return {"title": title, "error": f"out of memory: {error}; use a smaller model or batch", "code": 2}
    code = terminal.show_end(title, report, place)
    return {"title": title, "error": "", "code": code, "signal": report.signal, "report": report}
