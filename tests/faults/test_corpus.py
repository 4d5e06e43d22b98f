"""Every input of the corpus has the right value, is refused in one line, or prints a note."""

from __future__ import annotations

from pathlib import Path

import corpus
import pytest
import torch

from lazyexp.config.schema import DatasetConfig, ModelConfig
from lazyexp.data import load_data
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.models.checks import check_output


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


def test_the_corpus_is_large_enough():
    """At least twenty further inputs for readers, and ten for custom parts that change what they are given."""
    count = {origin: sum(one.origin == origin for one in corpus.DATA + corpus.MODELS) for origin in "bc"}
    assert count["c"] >= 20 and count["b"] >= 10, count
    names = [one.name for one in corpus.DATA + corpus.MODELS]
    assert len(set(names)) == len(names)


def test_the_tables_of_the_docs_are_those_of_the_corpus():
    """To update them: python tests/faults/corpus.py."""
    page = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"
    assert corpus.markdown() in page.read_text(encoding="utf-8")
