"""From the words of a command line to checked settings, with Hydra.

Hydra is used here, in sweeps.py and in cli.py. Nothing here imports torch before a run is checked.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from lazyexp.config.help import help_text
from lazyexp.config.imports import resolve
from lazyexp.config.messages import readable_errors
from lazyexp.config.paths import CONF
from lazyexp.config.registry import NAMES
from lazyexp.config.schema import Config, Settings
from lazyexp.config.validation import ENTRIES, check, custom_targets
from lazyexp.errors import UserError

# Groups of settings whose choices are registered by name; a file in conf/ says more than a name.
GROUPS: dict[str, Any] = {**NAMES, "plasticity": ("all",)}


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
    state, store = GlobalHydra.instance(), ConfigStore.instance()
    outer, entries = state.hydra, store.repo
    store.repo = copy.deepcopy(entries)
    state.clear()
    try:
        register()
        with initialize_config_dir(str(CONF), version_base="1.3", job_name="lazyexp"):
            yield
    finally:
        state.hydra, store.repo = outer, entries


def config_loader() -> Any:
    """The loader of the current session."""
    return GlobalHydra.instance().config_loader()


def compose_settings(overrides: list[str]) -> DictConfig:
    """The settings of one run. Raises UserError with one line that names the key and the choices."""
    with readable_errors():
        return compose("config", overrides)


def settings_of(overrides: Sequence[str]) -> Settings:
    """The checked settings of one run. Raises UserError."""
    with hydra_session():
        return checked(compose_settings(list(overrides)))


def checked(composed: DictConfig) -> Settings:
    """The settings as plain values, all keys known and all values checked. Raises UserError."""
    with readable_errors():
        unknown = unknown_keys(composed)
        if unknown:
            raise UserError(f"{unknown[0]}: unknown key; see lazyexp --help")
        plain: Any = OmegaConf.to_object(composed)
    settings = check(plain)
    _check_rule(settings)
    for group, path in custom_targets(settings).items():
        resolve(path, f"{group}._target_")
    return settings


def _check_rule(settings: Settings) -> None:
    from lazyexp.rules import make_rule

    rule, block_size = make_rule(settings.rule), settings.packing.block_size
    if block_size and not rule.pointwise:
        raise UserError(
            f"packing.block_size={block_size}: must be 0 for rule={settings.rule['name']}; packing needs a rule that "
            "decides by a sample's own logits, such as lazy"
        )


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
