"""From the words of a command line to checked settings: composing, sweeping, help. Hydra is known here and in cli.

Nothing here imports torch: `--help` and shell completion run it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lazyexp.config.imports import resolve
from lazyexp.config.registry import DATASETS, MODELS, OPTIMIZERS, RULES
from lazyexp.config.schema import Config, Settings
from lazyexp.config.validation import NUMBERS, check, check_value, custom_targets
from lazyexp.errors import UserError
from lazyexp.utils.terminal import NO_BAR, tqdm

PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel the configs are inside the package, in a checkout beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

# The launchers of conf/hydra/launcher and the extras that install them.
EXTRAS = {"hydra_joblib_launcher": "parallel", "hydra_submitit_launcher": "slurm"}

HELP = """lazyexp: train a network that learns only from its mistakes, and its matched controls.

Examples
  lazyexp                                             lazy learning on the bundled digits, offline
  lazyexp rule=lazy dataset=emnist                    the paper's headline
  lazyexp rule=backprop dataset=emnist                its matched control
  lazyexp -m rule=lazy,backprop dataset=mnist model.width=100,300 seed=0,1,2    a sweep over all combinations
  lazyexp -m sweep=headline                           a named sweep, one per claim of the paper
  lazyexp -m sweep=headline hydra/launcher=joblib hydra.launcher.n_jobs=4    several runs at once
  lazyexp model._target_=my_nets.Net rule=lazy        a custom network (likewise rule, dataset, optimizer)
  lazyexp --config-dir my_conf rule=mine              with settings files of your own (my_conf/rule/mine.yaml)
  lazyexp-report runs/headline                        its tables and figures

Choices (group=choice)
$APP_CONFIG_GROUPS
Keys (key=value)
{keys}

Defaults of the data sets (epochs, eval_every, targets)
{datasets}

Results: runs_dir/<run>/metrics.csv, summary.csv, run.json, learned.npz, model.pt. A finished run is not
repeated, an interrupted one is continued by the same command.
Exit codes: 0 done, 1 a run of a sweep failed, 2 something to mend (one line says what), 130 interrupted.
Shell completion: eval "$$(lazyexp -sc install=bash)" (or zsh, fish). Hydra's own flags: lazyexp --hydra-help
"""


def key_lines(schema: type = Config, prefix: str = "") -> list[str]:
    """One line per key of the schema: name, default, meaning."""
    lines = []
    for entry in fields(schema):
        default = entry.default_factory() if callable(entry.default_factory) else entry.default
        if is_dataclass(default):
            lines += key_lines(type(default), f"{entry.name}.")
        elif entry.name == "rule":
            lines.append("  rule._target_          null          import path of a custom lazyexp.Rule")
            lines.append("  rule.<option>          (the rule's)  options of the chosen rule")
        else:
            shown = {"None": "null", "True": "true", "False": "false"}.get(str(default), default)
            lines.append(f"  {prefix + entry.name:<22} {shown!s:<13} {entry.metadata['help']}{_choices(entry)}")
    return lines


def _choices(entry: Any) -> str:
    """The values of a key and their meanings; those of a group stand under the groups already."""
    choices = entry.metadata.get("choices")
    if not choices or entry.name == "name":
        return ""
    meanings = choices if isinstance(choices, dict) else dict.fromkeys(choices, "")
    return ": " + ", ".join(f"{choice} ({meaning})" if meaning else choice for choice, meaning in meanings.items())


def register() -> None:
    """Makes the schema and the help text known to Hydra."""
    datasets = [
        f"  {name:<16} {d.epochs:>3} {d.eval_every:>7}  {', '.join(f'{t:g}' for t in d.targets)}"
        for name, d in DATASETS.items()
    ]
    store = ConfigStore.instance()
    schema = OmegaConf.structured(Config)
    for part in ("rule", "model.options", "dataset.options", "optimizer.options"):  # new words are welcome here
        OmegaConf.set_struct(OmegaConf.select(schema, part), False)
    store.store(name="schema", node=schema)
    for group, names in (
        ("dataset", DATASETS),
        ("model", MODELS),
        ("optimizer", OPTIMIZERS),
        ("rule", RULES),
        ("plasticity", ("all",)),
    ):
        for name in names:
            if not (CONF / group / f"{name}.yaml").is_file():  # a file is needed only where it has more to say
                store.store(group=group, name=name, node={"name": name})
    text = HELP.format(keys="\n".join(key_lines()).replace("$", "$$"), datasets="\n".join(datasets))
    # The launchers' packages register settings under the names of our presets, and Hydra would merge the two.
    Plugins.instance()
    for preset in (CONF / "hydra" / "launcher").glob("*.yaml"):
        store.repo["hydra"]["launcher"].pop(preset.name, None)
    store.store(group="hydra/help", name="lazyexp", node={"app_name": "lazyexp", "template": text})


def hydra_session() -> Any:
    """Hydra, ready to compose from our folder of configs."""
    return initialize_config_dir(str(CONF), version_base="1.3", job_name="lazyexp")


def expand(overrides: list[str]) -> list[list[str]]:
    """The overrides of every run of a sweep. Raises UserError."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    settings = _sweep_settings(overrides)
    with readable_errors():
        parameters = [f"{key}={value}" for key, value in (settings.hydra.sweeper.params or {}).items()]
        tasks = [override for override in overrides if not override.lstrip("+~").startswith("hydra")]
        parsed = OverridesParser.create(_loader()).parse_overrides(parameters + tasks)
        # Hydra would compose every run once more before the first one starts; `sweep_settings` has checked them.
        BasicSweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
        return BasicSweeper.split_arguments(parsed, None)[0]


def sweep_settings(jobs: list[list[str]], common: list[str]) -> list[Settings]:
    """The checked settings of a sweep's runs, once for those that differ in plain numbers within bounds alone.

    A thousand seeds are so composed once. `common` are overrides that every run needs. Raises UserError.
    """
    different = dict.fromkeys(tuple(word for word in job if not _plain_number(word)) for job in jobs)
    representatives = {tuple(word for word in job if not _plain_number(word)): job for job in reversed(jobs)}
    bar = tqdm(different, desc="checking", unit=" settings", leave=False, delay=1, disable=NO_BAR)
    return [checked(compose_readably([*representatives[key], *common])) for key in bar]


@cache
def _plain_number(word: str) -> bool:
    """Whether `word` gives a number to a key whose bounds are all there is to check, and it is within them."""
    key, _, value = word.partition("=")
    kind = NUMBERS.get(key)
    if kind is None or not re.fullmatch(r"\d+" if kind is int else r"\d+(\.\d+)?", value):
        return False
    check_value(key, kind(value))
    return True


def search_path(overrides: list[str]) -> list[str]:
    """Those of the overrides that tell where else settings are to be found: every run of a sweep needs them."""
    return [override for override in overrides if override.lstrip("+").startswith("hydra.searchpath=")]


def runs_in_parallel(overrides: list[str]) -> bool:
    """Whether the sweep's launcher starts several runs at once. Raises UserError if it is not installed."""
    return in_parallel(_sweep_settings(overrides).hydra.launcher)


def local_workers(overrides: list[str]) -> bool:
    """Whether the sweep's runs are done by processes that the launcher starts on this machine."""
    return "joblib" in str(_sweep_settings(overrides).hydra.launcher._target_)


def on_slurm(overrides: list[str]) -> bool:
    """Whether the sweep's runs are SLURM jobs."""
    return str(_sweep_settings(overrides).hydra.launcher._target_).endswith(".SlurmLauncher")


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
        raise UserError(f'hydra/launcher: is not installed; pip install "lazyexp[{extra}]"') from None
    return not module.startswith("hydra._internal.") and launcher.get("n_jobs") != 1


def _sweep_settings(overrides: list[str]) -> DictConfig:
    with readable_errors():
        return _loader().load_configuration("config", overrides, run_mode=RunMode.MULTIRUN)


def multirun(task: Callable[[DictConfig], Any], overrides: list[str]) -> list[Any]:
    """Has Hydra's launcher do the runs of a sweep. Returns what `task` returned for each."""
    batches = _hydra().multirun(
        config_name="config", task_function=task, overrides=[*overrides, "hydra.mode=MULTIRUN"]
    )
    return [job.return_value for batch in batches for job in batch]


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()


def _hydra() -> Any:
    return GlobalHydra.instance().hydra


def compose_readably(overrides: list[str]) -> DictConfig:
    """The settings of one run. Raises UserError with one line that names the key and the choices."""
    with readable_errors():
        return compose("config", overrides)


class readable_errors:
    """Turns what Hydra and OmegaConf say into one line for the user."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Hydra fails on odd words in odd ways, with a TypeError for model=[nan], say.
        if not isinstance(error, Exception) or isinstance(error, UserError):
            return
        if isinstance(error, MissingConfigException):
            group = os.path.dirname(error.missing_cfg_file or "")
            name = os.path.basename(error.missing_cfg_file or "")
            choices = ", ".join(error.options or sorted(file.stem for file in (CONF / group).glob("*.yaml")))
            raise UserError(f"{group}={name}: no such choice; one of {choices or 'none'}") from None
        if isinstance(error, OverrideParseException):
            raise UserError(f"{error.override}: not of the form key=value ({error})") from None
        first = (str(error) or "no reason given").splitlines()[0].strip()
        cause = (str(error.__cause__) or "?").splitlines()[0] if error.__cause__ else ""
        if first.startswith("Could not override"):
            key = first.split("'")[1]
            raise UserError(f"{key}: unknown key; see lazyexp --help") from None
        if not isinstance(error, (HydraException, OmegaConfBaseException)):
            first = f"these settings cannot be composed ({type(error).__name__}: {first}); see lazyexp --help"
        raise UserError(f"{first}{': ' + cause if cause else ''}") from None


def checked(settings: DictConfig) -> Settings:
    """The settings as plain values, all of them known and in range. Raises UserError."""
    with readable_errors():
        unknown = unknown_keys(settings, Config)
        if unknown:
            raise UserError(f"{unknown[0]}: unknown key; see lazyexp --help")
        plain: Any = OmegaConf.to_object(settings)
    config = check(plain)
    from lazyexp.rules import make_rule

    if config.packing.block_size and not make_rule(config.rule).pointwise:
        raise UserError(
            f"packing.block_size={config.packing.block_size}: must be 0 for rule={config.rule['name']}; packing is for "
            "rules that decide by a sample's own logits, such as lazy"
        )
    make_rule(config.rule)
    for group, path in custom_targets(config).items():
        resolve(path, f"{group}._target_")
    return config


def unknown_keys(settings: DictConfig, schema: type, prefix: str = "") -> list[str]:
    """Keys that `+key=value` has smuggled past the schema: Hydra accepts and then drops them."""
    known = {entry.name: entry for entry in fields(schema)}
    unknown = []
    for key in map(str, settings):
        if key not in known:
            unknown.append(f"{prefix}{key}")
        elif isinstance(inner := known[key].default_factory, type) and is_dataclass(inner):
            unknown += unknown_keys(settings[key], inner, f"{key}.")
    return unknown
