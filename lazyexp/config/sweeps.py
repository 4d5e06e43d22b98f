"""Sweeps: expand a command line into runs, and let a launcher of Hydra's do them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from lazyexp.config.compose import config_loader
from lazyexp.config.messages import readable_errors
from lazyexp.errors import UserError

# The packages of the launchers in conf/hydra/launcher, and the extras that install them.
EXTRAS = {"hydra_joblib_launcher": "parallel", "hydra_submitit_launcher": "slurm"}


def expand(overrides: list[str]) -> list[list[str]]:
    """The overrides of every run of a sweep. Raises UserError."""
    settings = _multirun_settings(overrides)
    with readable_errors():
        parameters = [f"{key}={value}" for key, value in (settings.hydra.sweeper.params or {}).items()]
        tasks = [override for override in overrides if not override.lstrip("+~").startswith("hydra")]
        parsed = OverridesParser.create(config_loader()).parse_overrides(parameters + tasks)
        with _without_second_check():
            jobs: list[list[str]] = BasicSweeper.split_arguments(parsed, None)[0]
    if not jobs:
        raise UserError(f"{' '.join(tasks)}: no value, so there is no run")
    return jobs


def varied_keys(jobs: list[list[str]]) -> list[str]:
    """The keys whose values differ between the runs of a sweep."""
    common = set.intersection(*map(set, jobs)) if jobs else set()
    return list(dict.fromkeys(_key(word) for job in jobs for word in job if word not in common))


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def search_path(overrides: list[str]) -> list[str]:
    """The overrides that add folders of settings files: every run of a sweep needs them."""
    return [override for override in overrides if override.lstrip("+").startswith("hydra.searchpath=")]


def runs_in_parallel(overrides: list[str]) -> bool:
    """Whether the sweep's launcher starts several runs at once. Raises UserError if it is not installed."""
    return in_parallel(_multirun_settings(overrides).hydra.launcher)


def local_workers(overrides: list[str]) -> bool:
    """Whether the launcher starts worker processes on this machine."""
    return "joblib" in str(_multirun_settings(overrides).hydra.launcher._target_)


def on_slurm(overrides: list[str]) -> bool:
    """Whether the sweep's runs are SLURM jobs."""
    return str(_multirun_settings(overrides).hydra.launcher._target_).endswith(".SlurmLauncher")


def in_parallel(launcher: DictConfig) -> bool:
    """As `runs_in_parallel`, from the launcher's settings."""
    module = str(launcher._target_).rpartition(".")[0]
    try:
        if not module or find_spec(module) is None:
            raise ModuleNotFoundError(module)
    except (ModuleNotFoundError, ValueError):
        package = module.removeprefix("hydra_plugins.").partition(".")[0]
        if package not in EXTRAS:
            raise UserError(f"hydra.launcher._target_={launcher._target_}: no such launcher") from None
        extra = EXTRAS[package]
        raise UserError(f'hydra/launcher: not installed; pip install "lazyexp[{extra}]"') from None
    return not module.startswith("hydra._internal.") and launcher.get("n_jobs") != 1


def multirun(task: Callable[[DictConfig], Any], overrides: list[str]) -> list[Any]:
    """Let Hydra's launcher do the runs of a sweep. Returns what `task` returned for each."""
    with _without_second_check():
        hydra: Any = GlobalHydra.instance().hydra
        batches = hydra.multirun(
            config_name="config", task_function=task, overrides=[*overrides, "hydra.mode=MULTIRUN"]
        )
    return [job.return_value for batch in batches for job in batch]


def _multirun_settings(overrides: list[str]) -> DictConfig:
    with readable_errors():
        settings: DictConfig = config_loader().load_configuration("config", overrides, run_mode=RunMode.MULTIRUN)
    return settings


@contextmanager
def _without_second_check() -> Iterator[None]:
    """Keep Hydra from composing every run before the first one starts: they have been checked."""
    name = "validate_batch_is_legal"
    original = getattr(BasicSweeper, name)
    setattr(BasicSweeper, name, lambda self, batch: None)
    try:
        yield
    finally:
        setattr(BasicSweeper, name, original)
