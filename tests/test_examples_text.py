"""docs/examples/text: data and network of next-character prediction, through the doors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import only_run, rows

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "examples" / "text"


@pytest.fixture
def my_text(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    import my_text

    yield my_text
    monkeypatch.delitem(sys.modules, "my_text", raising=False)


def test_windows_are_followed_by_their_characters_and_parts_do_not_overlap(my_text):
    x_train, y_train, x_test, y_test = my_text.windows(length=5, train=3000, test=500)
    assert x_train.shape == (3000, 5) and x_test.shape == (500, 5) and x_train.dtype == np.int64
    assert 0 <= min(x_train.min(), y_train.min()) and max(x_train.max(), y_train.max()) <= 95
    text = "\n".join(my_text.pydoc_data.topics.topics[name] for name in sorted(my_text.pydoc_data.topics.topics))
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]

    def letters(window, after):
        return "".join(chr(31 + code) if code else "\n" for code in (*window, after))

    for where, x, y in ((train, x_train, y_train), (test, x_test, y_test)):
        shown = [letters(window, after) for window, after in zip(x[:200], y[:200], strict=True)]
        assert np.mean([piece in where for piece in shown]) > 0.9  # but for characters beyond ASCII


@pytest.mark.parametrize("rule", ["lazy", "spaced"])
def test_a_transformer_trains_on_tokens(call, my_text, rule, tmp_path):
    answer = call(
        "dataset=own", "dataset._target_=my_text.windows", "dataset.options={length: 8, train: 600, test: 200}",
        "model=own", "model._target_=my_text.Transformer", "model.options={width: 16, depth: 1}", f"rule={rule}",
        "optimizer=adam", "batch_size=32", "epochs=2", "eval_every=600",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    last = rows(only_run(tmp_path) / "metrics.csv")[-1]
    # Judged without a graph, and those who learn forwarded again.
    assert int(last["forward_samples"]) == int(last["samples_seen"]) + int(last["backward_samples"])
    assert 0 < int(last["backward_samples"]) <= 1200 and last["width"] == ""
