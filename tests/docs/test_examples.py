"""examples/: the self-contained file, the custom parts, and next-character prediction.

examples/loops is tested by tests/test_sampler.py.
"""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import REAL, needs_data, only_run, rows
from pages import ROOT, lazyexp_commands

import lazyexp

FOLDER = ROOT / "examples" / "text"
CUSTOM = [words for words in lazyexp_commands(ROOT / "docs" / "examples.md") if "characters." not in " ".join(words)]


@pytest.mark.slow
def test_lazy_learning_in_one_file(tmp_path):
    command = [sys.executable, ROOT / "examples" / "lazy_learning.py"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert {"backprop", "lazy", "mistake_gated"} <= set(answer.stdout.split())


def test_the_record_is_short_and_needs_torch_alone():
    lines = (ROOT / "examples" / "record.py").read_text().splitlines()
    assert len(lines) <= 200
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported <= {"__future__", *sys.stdlib_module_names, "torch"}


@needs_data
@pytest.mark.slow
def test_the_record_does_what_the_program_does(tmp_path, monkeypatch):
    """98.9 % within the spread of seeds, and the same counts but for rounding."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    record = importlib.import_module("record").train(str(REAL))
    assert record["test_accuracy"] >= 0.988
    fixed = {"energy": False, "device": "cpu", "data_dir": str(REAL), "runs_dir": str(tmp_path), "eval_every": 10**9}
    row = lazyexp.run("rule=fast_lazy", "dataset=emnist", **fixed).summary
    assert record["test_accuracy"] == pytest.approx(row["test_accuracy"], abs=0.0015)
    for name in ("samples_seen", "backward_samples", "updates"):
        assert record[name] == pytest.approx(row[name], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", CUSTOM, ids=" ".join)
def test_custom_parts_run(call, arguments, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    assert len(CUSTOM) == 4
    assert call(*arguments, "epochs=1", "energy=false").code == 0


@pytest.fixture
def characters(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("characters")
    sys.modules.pop("characters")


@pytest.mark.slow
def test_windows_precede_their_characters_and_parts_do_not_overlap(characters):
    from pydoc_data import topics

    x_train, y_train, x_test, y_test = characters.windows(length=5, train=500, test=200)
    assert x_train.shape == (500, 5) and x_test.shape == (200, 5)
    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    # The most frequent letters have the highest codes, rare ones are 0.
    ranked = sorted(set(text), key=lambda letter: (-text.count(letter), text.index(letter)))[: characters.LETTERS - 1]
    codes = {letter: characters.LETTERS - 1 - rank for rank, letter in enumerate(ranked)}
    coded = np.array([codes.get(letter, 0) for letter in text])
    border = len(coded) * 4 // 5
    for part, x, y in ((coded[:border], x_train, y_train), (coded[border:], x_test, y_test)):
        pieces = {tuple(piece) for piece in np.lib.stride_tricks.sliding_window_view(part, 6).tolist()}
        assert all((*window, after) in pieces for window, after in zip(x.tolist(), y.tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["lazy", "spaced"])
def test_a_transformer_trains_on_tokens(call, characters, rule, tmp_path):
    answer = call(
        "dataset._target_=characters.windows", "dataset.options={length: 8, train: 600, test: 200}",
        "model._target_=characters.Transformer", "model.options={width: 16, layers: 1}", f"rule={rule}",
        "optimizer=adam", "batch_size=32", "epochs=2", "eval_every=600",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    last = rows(only_run(tmp_path) / "metrics.csv")[-1]
    # Samples are scored without a graph; selected ones are forwarded again.
    assert int(last["forward_samples"]) == int(last["samples_seen"]) + int(last["backward_samples"])
    assert 0 < int(last["backward_samples"]) <= 1200 and last["width"] == ""


@pytest.mark.slow
def test_irreducible_losses_are_of_networks_that_did_not_see_the_sample(monkeypatch, tmp_path, call):
    monkeypatch.syspath_prepend(ROOT / "examples")
    example = importlib.import_module("irreducible_loss")
    monkeypatch.chdir(tmp_path)
    words = ["epochs=3", "model.width=20", "batch_size=16", "optimizer.lr=0.1", "dataset.train_size=200"]
    example.main("losses.npy", words)
    losses = np.load("losses.npy")
    assert len(losses) == 1437 and np.isfinite(losses).sum() == 200
    assert 0.1 < np.nanmean(losses) < np.log(10)
    answer = call("rule=rho_loss", "rule.irreducible=losses.npy", "batch_size=20", "epochs=1", words[-1])
    assert answer.code == 0, answer.err
    assert int(rows(only_run(tmp_path) / "summary.csv")[0]["backward_samples"]) == 20


@pytest.mark.slow
def test_the_comparison_at_equal_seconds(characters, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    comparison = importlib.import_module("run")
    monkeypatch.setattr(comparison, "ATTEMPTS", 2)
    try:
        small = ["dataset.options={length: 8, train: 600, test: 100}", "model.options={width: 16, layers: 1}"]
        table = comparison.main(0.3, 1, small).set_index("rule")
    finally:
        sys.modules.pop("run")
    assert list(table.index) == [*comparison.ARMS, "as_many"]
    for name in ("epochs", "backward_samples"):
        assert table.loc["as_many", name] == table.loc["lazy", name]
    assert (table["epochs"] >= 1).all()
    assert table.loc["backprop", "backward_samples"] == 600 * table.loc["backprop", "epochs"]
