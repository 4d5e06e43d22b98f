"""What Hydra is asked to do, and what is asked of its inner parts."""

from __future__ import annotations

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore

from lazyexp import compose
from lazyexp.config import ENTRIES, NUMBERS
from lazyexp.errors import UserError


@pytest.fixture
def session():
    compose.register()
    with compose.hydra_session():
        yield


def test_ten_thousand_seeds_are_composed_once(session, monkeypatch):
    jobs = compose.expand(["seed=range(0,10000)", "optimizer.lr=0.1,0.2", "rule=lazy,backprop"])
    composed = []
    original = compose.compose_readably
    monkeypatch.setattr(compose, "compose_readably", lambda words: composed.append(words) or original(words))
    settings = compose.sweep_settings(jobs, [])
    assert len(jobs) == 40000 and len(composed) == 2
    assert sorted(config.rule["name"] for config in settings) == ["backprop", "lazy"]


@pytest.mark.parametrize("words", ["seed=0,-1", "batch_size=1,0", "epochs=1,2.5", "optimizer.lr=0.1,0", "seed=1,2,x"])
def test_one_wrong_number_among_many_is_found_before_the_first_run(session, words):
    jobs = compose.expand([words])
    with pytest.raises(UserError, match=words.partition("=")[0]):
        compose.sweep_settings(jobs, [])


def test_numbers_that_depend_on_other_keys_are_composed(session):
    assert "optimizer.momentum" not in NUMBERS and set(NUMBERS) <= set(ENTRIES)
    jobs = compose.expand(["optimizer=sgd,adam", "optimizer.momentum=0,0.9"])
    with pytest.raises(UserError, match="momentum"):
        compose.sweep_settings(jobs, [])


def test_the_inner_parts_of_hydra_that_we_rely_on_are_there():
    """A new Hydra may move them; this names them before a user's sweep does."""
    assert callable(BasicSweeper.split_arguments) and "validate_batch_is_legal" in dir(BasicSweeper)
    assert isinstance(ConfigStore.instance().repo, dict)
    with compose.hydra_session():
        assert hasattr(compose._loader(), "load_configuration")
