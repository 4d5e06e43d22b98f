"""Every input of the corpus has the right value, is refused in one line, or prints a note."""

from __future__ import annotations

import re
from pathlib import Path

import corpus
import corpus_settings
import pytest
import torch

from lazyexp.config.compose import compose_settings, hydra_session, parse
from lazyexp.config.fields import value_at
from lazyexp.config.schema import DatasetConfig, ModelConfig
from lazyexp.config.settings_files import check_single
from lazyexp.data import load_data
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.models.checks import check_output
from lazyexp.settings import checked


@pytest.mark.parametrize("one", corpus.DATA, ids=lambda one: one.name)
def test_data(one, tmp_path):
    if one.needs:
        pytest.importorskip(one.needs)
    settings = DatasetConfig(**one.make(tmp_path))
    if one.outcome == "refused":
        with pytest.raises(UserError) as error:
            load_data(settings, "", torch.device("cpu"))
        assert one.text in str(error.value) and "\n" not in str(error.value)
        return
    data = load_data(settings, "", torch.device("cpu"))
    if one.outcome == "warning":
        assert any(one.text in note for note in data.notes), data.notes
    else:
        assert data.notes == []
    assert one.check is None or one.check(data)
    assert one.outcome == "warning" or one.check is not None


@pytest.mark.parametrize("one", corpus.MODELS, ids=lambda one: one.name)
def test_models(one, capsys, monkeypatch):
    def make(shape, classes):
        return one.make()

    monkeypatch.setattr(corpus, "make_it", make, raising=False)
    config = ModelConfig(name="custom", _target_="corpus.make_it")

    def begin():
        model = make_model(config, (1, 4, 4), 3, 0)
        torch.manual_seed(0)
        check_output(model, torch.rand(2, 1, 4, 4), 3, "the model")
        return model

    if "same network" in one.name:
        begin()
    if one.outcome == "refused":
        with pytest.raises(UserError) as error:
            begin()
        assert one.text in str(error.value) and "\n" not in str(error.value)
        return
    begin()
    printed = capsys.readouterr().err
    assert one.text in printed if one.outcome == "warning" else printed == ""


@pytest.fixture(scope="module")
def hydra():
    with hydra_session():
        yield


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(one, id=one.name, marks=() if one.origin == "issue" else pytest.mark.slow)
        for one in corpus_settings.SETTINGS
    ],
)
def test_settings(one, hydra, tmp_path, monkeypatch):
    monkeypatch.delenv("NOPE", raising=False)
    words = one.make(tmp_path)

    def compose():
        check_single(parse(words))
        return checked(compose_settings(words))

    if one.outcome == "refused":
        with pytest.raises(UserError) as error:
            compose()
        assert one.text in str(error.value)
        return
    settings = compose()
    assert {key: value_at(settings, key) for key in one.expected} == one.expected


def test_the_corpus_is_large_enough():
    """At least twenty further inputs of each cause, and ten of custom parts that change what they are given."""
    cases = [*corpus.DATA, *corpus.MODELS, *corpus_settings.SETTINGS]
    count = {origin: sum(one.origin == origin for one in cases) for origin in "abcef"}
    assert count["b"] >= 10 and all(count[origin] >= 20 for origin in "acef"), count
    names = [one.name for one in cases]
    assert len(set(names)) == len(names)


def test_the_tables_of_the_docs_are_those_of_the_corpus():
    """To update them: python tests/faults/corpus.py."""
    page = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"
    assert corpus.markdown() in page.read_text(encoding="utf-8")


def test_the_tests_that_the_docs_name_exist():
    root = Path(__file__).resolve().parents[2]
    named = set(re.findall(r"`(test_\w+)`", (root / "docs" / "inputs.md").read_text(encoding="utf-8")))
    known = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py"))
    assert named and not [name for name in named if f"def {name}(" not in known]
