"""The command `lazyexp`: a run, or all runs of a sweep. Prints how they end and returns an exit code.

Does not import torch before there is something to train.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra

from lazyexp import __version__
from lazyexp.config.compose import compose_settings, hydra_session, register
from lazyexp.config.paths import CONF
from lazyexp.errors import UserError
from lazyexp.settings import settings_of
from lazyexp.sweeps.multirun import execute, sweep, task

RUN, SWEEP, DRY_RUN = {"--run", "-r"}, {"--multirun", "-m"}, {"--dry-run"}
# Hydra's flags that only print something; any other flag would bypass our checks.
PRINTING = {"--help", "-h", "--hydra-help", "--shell-completion", "-sc", "--cfg", "-c", "--info", "-i"}
CFG_OPTIONS = {"--package", "-p", "--resolve"}


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
    if "--version" in flags:
        print(f"lazyexp {__version__}")
        return 0
    if not flags - RUN - SWEEP - DRY_RUN:
        if flags & DRY_RUN:
            from lazyexp.sweeps.dry_run import dry_run

            print(dry_run(overrides, multirun=bool(flags & SWEEP)))
            return 0
        return sweep(overrides) if flags & SWEEP else single(overrides)
    known = PRINTING | (CFG_OPTIONS if flags & {"--cfg", "-c"} else set())
    if flags - known:
        raise UserError(
            f"{min(flags - known)}: unknown flag; -m runs a sweep, --dry-run lists its runs, "
            "--config-dir DIR adds a folder of settings files; see lazyexp --help"
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
    print(end.text)
    return end.code
