"""Quoted values are read back by Hydra's own parser."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lazyexp.config.quoting import arguments, override, quote
from lazyexp.errors import UserError

PARSER = OverridesParser.create()


def read_back(word):
    """What a key gets: parsed by Hydra, resolved by OmegaConf."""
    parsed = PARSER.parse_override(word)
    assert not parsed.is_sweep_override()
    return OmegaConf.to_container(OmegaConf.create({"key": parsed.value()}), resolve=True)["key"]


NAMES = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True).filter(lambda name: name not in ("null", "true", "false"))
NAMES = NAMES.filter(lambda name: name not in ("inf", "nan"))
PRIMITIVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
# Characters that mean something to Hydra, OmegaConf or a shell.
# Without "???", which no setting can be (see the refused values).
TRICKY = st.text(st.sampled_from("\\'\"${}[](),:=~+-*? \t\n/.%@#!|&;<>a1eü日")).filter(lambda text: text != "???")
VALUES = st.recursive(
    PRIMITIVES | TRICKY, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(TRICKY)
@example("\\'")
@example("\\\\'\\")
@example("${oc.env:HOME}")
@example("\\${a}")
@example("$\\{a}\\")
def test_any_string_is_read_back(text):
    value = read_back(override("key", text))
    assert value == text and type(value) is str


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_any_value_is_read_back(value):
    assert read_back(override("key", value)) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "1e3", "1_000", "007", "0x10", "-1", "+a", "null", "None", "True", "FALSE", "nan", "Inf", "it's", '"'],
)
def test_strings_that_look_like_something_else_stay_strings(text):
    value = read_back(override("key", text))
    assert value == text and type(value) is str


@pytest.mark.parametrize(
    "name",
    [
        "t (1)",
        "t,1",
        "t=1",
        "tü",
        "größe",
        "[a]",
        "{a}",
        "a b/c d",
        "~/x",
        "a:b",
        "a#b",
        "100%",
        "glob(*)",
        "$HOME",
        "choice(a,b)",
        "range(3)",
        "a;b",
        "a&b",
        "日本",
        "back\\slash",
        "tail\\",
        "C:\\new\\dir",
        "�",
        "a\nb",
    ],
)
def test_paths_are_read_back(name):
    path = Path("/data") / name
    assert read_back(override("dataset.path", path)) == str(path)
    assert read_back(override("dataset.path", name)) == name


def test_plain_words_stay_readable():
    values = {"a": 1, "b": 0.1, "c": True, "d": None, "e": "emnist", "f": "runs/a-b_c.npz", "g": [0.9, 0.95]}
    words = [override(key, value) for key, value in values.items()]
    assert words == ["a=1", "b=0.1", "c=true", "d=null", "e=emnist", "f=runs/a-b_c.npz", "g=[0.9,0.95]"]
    assert quote({"a": (1, "x y")}) == "{a:[1,'x y']}"


@pytest.mark.parametrize("value", [1e-05, 1e22, -0.0, 1e-300, float("inf"), float("-inf"), 10**30])
def test_numbers_are_read_back(value):
    found = read_back(override("key", value))
    assert found == value and type(found) is type(value)
    assert math.isnan(read_back(override("key", float("nan"))))


def test_numpy_scalars_are_plain_numbers():
    for value in (np.int64(3), np.float64(0.5), np.bool_(True), np.array(7)):
        assert read_back(override("key", value)) == value.item()
    assert quote(np.float32(0.5)) == "0.5"


@pytest.mark.parametrize("key", ["", "a b", "a=b", "a,b", "größe", "a.", ".a", "-a", "a(1)", "a\n", "'a'"])
def test_impossible_keys_are_refused(key):
    with pytest.raises(UserError, match="not a key"):
        override(key, 1)


@pytest.mark.parametrize("key", ["a", "+a.b", "++a", "hydra/launcher", "model@x", "rule._target_", "a.0"])
def test_keys_of_hydra_are_accepted(key):
    assert PARSER.parse_override(override(key, "x y")).value() == "x y"


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, {"a b": 1}, {1: 2}, {"null": 1}, np.zeros((2, 2)), b"x", "???", ["???"]]
)
def test_impossible_values_are_refused(value):
    with pytest.raises(UserError):
        override("key", value)


def test_arguments_from_python():
    found = arguments(["rule=lazy"], {"model__width": np.int64(3), "targets": np.array([0.5]), "epochs": 2})
    assert found == ["rule=lazy", "model.width=3", "targets=[0.5]", "epochs=2"]
    assert quote(range(2)) == "[0,1]"
    for words, options, message in (
        (["seed=1"], {"seed": 2}, "seed: given twice"),
        ([{"epochs": 1}], {}, "must be a text"),
    ):
        with pytest.raises(UserError, match=message):
            arguments(words, options)
