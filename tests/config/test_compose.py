"""Composing settings and sweeps with Hydra, and the internals of Hydra that this uses."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lazyexp import settings as settings_module
from lazyexp.config import compose, sweeps
from lazyexp.config.registry import RULE_SUMMARIES
from lazyexp.config.schema import Config, ModelConfig, OptimizerConfig
from lazyexp.config.validation import ENTRIES, NUMBERS, check
from lazyexp.errors import UserError
from lazyexp.rules import RULES


@pytest.fixture
def session():
    compose.register()
    with compose.hydra_session():
        yield


@pytest.mark.slow
def test_ten_thousand_seeds_are_composed_once(session, monkeypatch):
    jobs = sweeps.expand(["seed=range(0,10000)", "optimizer.lr=0.1,0.2", "rule=lazy,backprop"])
    composed = []
    original = settings_module.compose_settings
    monkeypatch.setattr(settings_module, "compose_settings", lambda words: composed.append(words) or original(words))
    settings = settings_module.sweep_settings(jobs, [])
    assert len(jobs) == 40000 and len(composed) == 2
    assert sorted(config.rule["name"] for config in settings) == ["backprop", "lazy"]


@pytest.mark.slow
@pytest.mark.parametrize("words", ["seed=0,-1", "batch_size=1,0", "epochs=1,2.5", "optimizer.lr=0.1,0", "seed=1,2,x"])
def test_one_wrong_number_among_many_is_found_before_the_first_run(session, words):
    jobs = sweeps.expand([words])
    with pytest.raises(UserError, match=words.partition("=")[0]):
        settings_module.sweep_settings(jobs, [])


@pytest.mark.slow
def test_numbers_that_depend_on_other_keys_are_composed(session):
    assert "optimizer.momentum" not in NUMBERS and set(NUMBERS) <= set(ENTRIES)
    jobs = sweeps.expand(["optimizer=sgd,adam", "optimizer.momentum=0,0.9"])
    with pytest.raises(UserError, match="momentum"):
        settings_module.sweep_settings(jobs, [])


# What lazyexp/config uses of Hydra beyond its documented interface: module, class, attributes.
INNER = [
    ("hydra._internal.core_plugins.basic_sweeper", "BasicSweeper", ["split_arguments", "validate_batch_is_legal"]),
    ("hydra.core.override_parser.overrides_parser", "OverridesParser", ["create", "parse_overrides"]),
    ("hydra.core.config_store", "ConfigStore", ["instance", "store"]),
    ("hydra.core.utils", "JobStatus", ["COMPLETED"]),
    ("hydra.core.global_hydra", "GlobalHydra", ["instance", "config_loader"]),
    ("hydra.core.plugins", "Plugins", ["instance"]),
    ("hydra._internal.hydra", "Hydra", ["multirun"]),
    ("hydra._internal.config_loader_impl", "ConfigLoaderImpl", ["load_configuration"]),
]


@pytest.mark.parametrize("module, name, attributes", INNER, ids=[name for _, name, _ in INNER])
def test_internals_of_hydra_exist(module, name, attributes):
    """A new version of Hydra may move them; this fails before a user's sweep does."""
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        pytest.fail(f"Hydra {hydra.__version__} has no {module}.{name} any more; adapt lazyexp/config")
    for attribute in attributes:
        assert hasattr(found, attribute), f"Hydra {hydra.__version__} has no {name}.{attribute}"


def test_objects_of_hydra_have_the_expected_types(session):
    assert isinstance(ConfigStore.instance().repo, dict)
    assert type(compose.config_loader()).__name__ == "ConfigLoaderImpl"
    assert type(GlobalHydra.instance().hydra).__name__ == "Hydra"


@pytest.mark.slow
def test_internals_of_hydra_are_imported_in_few_modules():
    """`hydra` itself and the configuration of the running job are documented; the command line may use them."""
    allowed = {"compose.py", "sweeps.py", "messages.py", "slurm.py"}
    for path in Path(compose.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [module]
            for name in names:
                if name.startswith("hydra.") and path.name not in allowed:
                    assert name == "hydra.core.hydra_config", f"{path.name} imports {name}"


def test_hydra_is_left_as_it_was(session):
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    original = BasicSweeper.validate_batch_is_legal
    sweeps.expand(["seed=0,1"])
    assert BasicSweeper.validate_batch_is_legal is original


def test_every_rule_has_a_line_of_help():
    assert set(RULES) | {"fast_lazy"} == set(RULE_SUMMARIES)
    for name, rule in RULES.items():  # a default that the line mentions is the rule's
        for option, value in re.findall(r"(\w+)=([\d.]+\d)", RULE_SUMMARIES[name]):
            defaults = {entry.name: entry.default for entry in fields(rule)}
            if option in defaults:
                assert defaults[option] == float(value), f"{name}: {option}"


def test_the_files_of_models_and_optimizers_repeat_no_default():
    for group, schema in (("model", ModelConfig), ("optimizer", OptimizerConfig)):
        defaults = {entry.name: entry.default for entry in fields(schema)}
        for path in (compose.CONF / group).glob("*.yaml"):
            given = OmegaConf.to_object(OmegaConf.load(path))
            options = {key: value for key, value in given.items() if key not in ("name", "_target_")}
            repeated = [key for key, value in options.items() if value == defaults.get(key)]
            assert not repeated, f"{path}: {repeated} are defaults already"


def test_checked_settings_do_not_change():
    given = Config()
    settings = check(given)
    groups = (settings.dataset, settings.model, settings.optimizer, settings.plasticity, settings.packing)
    for part in (settings, *groups):
        for entry in fields(part):
            with pytest.raises(FrozenInstanceError, match=entry.name):
                setattr(part, entry.name, getattr(part, entry.name))
    given.dataset.val_size = 5  # the settings are a copy
    assert settings.dataset.val_size == 0 and replace(settings.dataset, val_size=7).val_size == 7
