"""The command `lazyexp`: composes the settings, checks them all, and hands plain values on.

Only this module knows Hydra, and it does not import torch before there is something to train.
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lazyexp.config import DATASETS, Config, check
from lazyexp.errors import UserError

PACKAGE = Path(__file__).resolve().parent
# In a wheel the configs are inside the package, in a checkout beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

TOTAL = "LAZYEXP_SWEEP_RUNS"

HELP = """lazyexp: train a network that learns only from its mistakes, and its matched controls.

Examples
  lazyexp                                             lazy learning on the bundled digits, offline
  lazyexp rule=lazy dataset=emnist                    the paper's headline
  lazyexp rule=backprop dataset=emnist                its matched control
  lazyexp -m rule=lazy,backprop dataset=mnist model.width=100,300 seed=0,1,2    a sweep over all combinations
  lazyexp -m sweep=headline                           a named sweep, one per claim of the paper
  lazyexp-report runs/headline                        its tables and figures

Choices (group=choice)
$APP_CONFIG_GROUPS
Keys (key=value)
{keys}

Defaults of the data sets (epochs, eval_every, targets)
{datasets}

Results: runs_dir/<run>/metrics.csv, summary.csv, run.json, learned.npz, model.pt. A finished run is not
repeated, an interrupted one is continued by the same command.
Exit codes: 0 done, 2 something to mend (one line says what), 130 interrupted.
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
            lines.append("  rule.<option>          (the rule's)  options of the chosen rule, see conf/rule")
        else:
            shown = {"None": "null", "True": "true", "False": "false"}.get(str(default), default)
            lines.append(f"  {prefix + entry.name:<22} {shown!s:<13} {entry.metadata['help']}")
    return lines


def register() -> None:
    """Makes the schema and the help text known to Hydra."""
    datasets = [
        f"  {name:<16} {d.epochs:>3} {d.eval_every:>7}  {', '.join(f'{t:g}' for t in d.targets)}"
        for name, d in DATASETS.items()
    ]
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    text = HELP.format(keys="\n".join(key_lines()).replace("$", "$$"), datasets="\n".join(datasets))
    store.store(group="hydra/help", name="lazyexp", node={"app_name": "lazyexp", "template": text})


def main() -> NoReturn:
    """Entry point; exits with 0, 1 (a run of a sweep failed), 2 (user error) or 128 + signal."""
    register()
    arguments = sys.argv[1:]
    flags = [argument for argument in arguments if argument.startswith("-")]
    try:
        if set(flags) <= {"-m", "--multirun"}:
            overrides = [argument for argument in arguments if argument not in flags]
            sys.exit(sweep(overrides) if flags else single(overrides))
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
        sys.exit(0)
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def fail(message: str) -> NoReturn:
    print(f"lazyexp: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def single(overrides: list[str]) -> int:
    """One run. Returns the exit code."""
    with hydra_session():
        config = checked(compose_readably(overrides))
    result = execute(config)
    if result["error"]:
        fail(result["error"])
    return result["code"]


def sweep(overrides: list[str]) -> int:
    """All runs of a sweep, checked before the first one starts, then the report. Returns the exit code."""
    with hydra_session():
        jobs = expand(overrides)
        configs = [checked(compose_readably(job)) for job in jobs]
        os.environ[TOTAL] = str(len(jobs))  # for workers in other processes, too
        batches = GlobalHydra.instance().hydra.multirun(
            config_name="config", task_function=task, overrides=[*overrides, "hydra.mode=MULTIRUN"]
        )
    results = [job.return_value for batch in batches for job in batch]
    failed = [result for result in results if result["error"]]
    for result in failed:
        print(f"lazyexp: failed: {result['title']}: {result['error']}", file=sys.stderr)
    print(f"{len(results) - len(failed)} of {len(results)} runs done")
    for folder in sorted({config.runs_dir for config in configs}):
        show_report(Path(folder).expanduser())
    return 1 if failed else 0


def show_report(folder: Path) -> None:
    """Writes the report of a sweep's folder; a failure there does not make the sweep fail."""
    from lazyexp.report.cli import write_report

    try:
        print(f"report: {write_report([folder])}")
    except Exception as error:
        print(f"lazyexp: no report ({error}); try lazyexp-report {folder}", file=sys.stderr)


def task(settings: DictConfig) -> dict[str, Any]:
    """What Hydra calls for every run of a sweep, here or on another machine."""
    try:
        config = checked(settings)
    except UserError as error:
        return {"title": "settings", "error": str(error), "code": 2}
    place = f"[{HydraConfig.get().job.num + 1}/{os.environ.get(TOTAL, '?')}]"
    result = execute(config, place)
    if result["code"] >= 128:
        raise KeyboardInterrupt
    return result


def execute(config: Config, place: str = "") -> dict[str, Any]:
    """Does a run and shows its end; in a sweep, at its `place`, in one line. Errors to mend are returned."""
    from lazyexp import experiment, face
    from lazyexp.results import RunIsBusy

    title = f"{config.dataset.name} {config.rule['name']} seed {config.seed}"
    try:
        report = experiment.run(config)
    except RunIsBusy as busy:
        face.say(f"another process is working on {busy}; leaving it alone")
        return {"title": title, "error": "", "code": 0}
    except UserError as error:
        return {"title": title, "error": str(error), "code": 2}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return {"title": title, "error": f"{where}{error.strerror or error}", "code": 2}
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return {"title": title, "error": f"out of memory: {error}; use a smaller model or batch", "code": 2}
    return {"title": title, "error": "", "code": face.show_end(title, report, place)}


def hydra_session() -> Any:
    """Hydra, ready to compose from our folder of configs."""
    return initialize_config_dir(str(CONF), version_base="1.3", job_name="lazyexp")


def expand(overrides: list[str]) -> list[list[str]]:
    """The overrides of every run of a sweep. Raises UserError."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    loader = GlobalHydra.instance().config_loader()
    with readable_errors():
        settings = loader.load_configuration("config", overrides, run_mode=RunMode.MULTIRUN)
        parameters = [f"{key}={value}" for key, value in (settings.hydra.sweeper.params or {}).items()]
        tasks = [override for override in overrides if not override.lstrip("+~").startswith("hydra")]
        parsed = OverridesParser.create(loader).parse_overrides(parameters + tasks)
        return BasicSweeper.split_arguments(parsed, None)[0]


def compose_readably(overrides: list[str]) -> DictConfig:
    """The settings of one run. Raises UserError with one line that names the key and the choices."""
    with readable_errors():
        return compose("config", overrides)


class readable_errors:
    """Turns what Hydra and OmegaConf say into one line for the user."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, (HydraException, OmegaConfBaseException, ValueError)):
            return
        if isinstance(error, MissingConfigException):
            group = os.path.dirname(error.missing_cfg_file or "")
            name = os.path.basename(error.missing_cfg_file or "")
            choices = ", ".join(error.options or sorted(file.stem for file in (CONF / group).glob("*.yaml")))
            raise UserError(f"{group}={name}: no such choice; one of {choices or 'none'}") from None
        if isinstance(error, OverrideParseException):
            raise UserError(f"{error.override}: not of the form key=value ({error})") from None
        first = str(error).splitlines()[0].strip()
        cause = str(error.__cause__).splitlines()[0] if error.__cause__ else ""
        if first.startswith("Could not override"):
            key = first.split("'")[1]
            raise UserError(f"{key}: unknown key; see lazyexp --help{_rule_hint(key)}") from None
        raise UserError(f"{first}{': ' + cause if cause else ''}") from None


def _rule_hint(key: str) -> str:
    return " (rule options belong to their rule: rule=NAME rule.OPTION=...)" if key.startswith("rule.") else ""


def checked(settings: DictConfig) -> Config:
    """The settings as plain values, all of them known and in range. Raises UserError."""
    with readable_errors():
        unknown = unknown_keys(settings, Config)
        if unknown:
            raise UserError(f"{unknown[0]}: unknown key; see lazyexp --help")
        config = check(OmegaConf.to_object(settings))
    from lazyexp.rules import make_rule

    make_rule(config.rule)
    return config


def unknown_keys(settings: DictConfig, schema: type, prefix: str = "") -> list[str]:
    """Keys that `+key=value` has smuggled past the schema: Hydra accepts and then drops them."""
    known = {entry.name: entry for entry in fields(schema)}
    unknown = []
    for key in settings:
        if key not in known:
            unknown.append(f"{prefix}{key}")
        elif is_dataclass(known[key].default_factory):
            unknown += unknown_keys(settings[key], known[key].default_factory, f"{key}.")
    return unknown
