"""From the words of a command line to settings, with Hydra.

Hydra is used here, in sweeps.py and in cli.py. Nothing here imports torch.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from lazyexp.config.help import help_text
from lazyexp.config.messages import readable_errors
from lazyexp.config.paths import CONF
from lazyexp.config.quoting import quote
from lazyexp.config.schema import Config
from lazyexp.config.settings_files import GROUPS, check_folders, folders_of, is_text
from lazyexp.config.validation import ENTRIES
from lazyexp.errors import UserError

# Words that Hydra does not read as a text.
NOT_TEXT = re.compile(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[+-]?\d+)?|true|false|[+-]?inf|nan", re.IGNORECASE)


def register() -> None:
    """Register the schema, the choices and the help text with Hydra."""
    store = ConfigStore.instance()
    schema = OmegaConf.structured(Config)
    for part in ("rule", "model.options", "dataset.options", "optimizer.options"):  # these accept new keys
        OmegaConf.set_struct(OmegaConf.select(schema, part), False)
    store.store(name="schema", node=schema)
    for group, names in GROUPS.items():
        for name in names:
            if not (CONF / group / f"{name}.yaml").is_file():
                store.store(group=group, name=name, node={"name": name})
    # The launchers' packages register settings under the names of our presets, and Hydra would merge the two.
    Plugins.instance()
    for preset in (CONF / "hydra" / "launcher").glob("*.yaml"):
        store.repo["hydra"]["launcher"].pop(preset.name, None)
    store.store(group="hydra/help", name="lazyexp", node={"app_name": "lazyexp", "template": help_text()})


@contextmanager
def hydra_session() -> Iterator[None]:
    """Hydra, ready to compose from our settings files. An application of Hydra's around it stays as it was."""
    Plugins.instance()  # registers the launchers' settings once, in the entries that are kept
    store = ConfigStore.instance()
    outer, entries = GlobalHydra.instance().hydra, store.repo
    store.repo = copy.deepcopy(entries)
    GlobalHydra.instance().clear()
    try:
        register()
        with initialize_config_dir(str(CONF), version_base="1.3", job_name="lazyexp"):
            yield
    finally:
        store.repo = entries
        GlobalHydra.instance().hydra = outer  # initialize_config_dir replaces the instance on exit


def config_loader() -> Any:
    """The loader of the current session."""
    return GlobalHydra.instance().config_loader()


def parse(overrides: list[str]) -> list[Any]:
    """The overrides as objects of Hydra's grammar. Raises UserError."""
    with readable_errors():
        return list(OverridesParser.create().parse_overrides(overrides))


def compose_settings(overrides: list[str]) -> DictConfig:
    """The settings of one run. Raises UserError with one line that names the key and the choices."""
    parsed = parse(overrides)
    check_folders(folders_of(parsed))
    for item in parsed:
        _check_override(item)
    with readable_errors():
        return compose("config", literal_texts(overrides))


def literal_texts(overrides: list[str]) -> list[str]:
    """The overrides with quotes around numbers and the like that are the value of a text: `runs_dir=1e3`."""
    words = []
    for word, item in zip(overrides, parse(overrides), strict=True):
        prefix, _, value = word.partition("=")
        if is_text(item.key_or_group) and not re.search(r"""['"\[({]""", value):
            elements = [element.strip() for element in value.split(",")]
            word = f"{prefix}={','.join(quote(one) if NOT_TEXT.fullmatch(one) else one for one in elements)}"
        words.append(word)
    return words


def _check_override(item: Any) -> None:
    """Raise UserError for what Hydra reads otherwise than it is meant, without a word."""
    key, word = item.key_or_group, item.input_line
    if item.is_delete():
        raise UserError(f"{word}: no key can be removed; give it another value")
    value = None if item.is_sweep_override() else item.value()
    if key in GROUPS and not isinstance(value, (str, dict)) and not item.is_sweep_override():
        raise UserError(f"{word}: must be the name of one choice")
    if key in ENTRIES and item.is_add():
        raise UserError(f"{word}: the key exists; leave out the +")
    is_bool = key in ENTRIES and str(ENTRIES[key].type) == "bool"
    if is_bool and isinstance(value, (int, float)) and value not in (0, 1):
        raise UserError(f"{word}: must be true or false")


def unknown_keys(composed: DictConfig) -> list[str]:
    """Keys added by `+key=value` that the schema lacks: Hydra accepts and then drops them."""
    groups = {key.rpartition(".")[0] for key in ENTRIES} - {""}
    found = []
    for name in map(str, composed):
        if name in groups:
            part = composed[name]
            names = list(map(str, part)) if isinstance(part, DictConfig) else []
            found += [f"{name}.{key}" for key in names if f"{name}.{key}" not in ENTRIES]
        elif name not in ENTRIES:
            found.append(name)
    return found
