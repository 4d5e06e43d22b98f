"""README.md: its commands, code, names and links work, and it is short."""

from __future__ import annotations

import re

import pytest
import torch
from pages import ROOT, code, lazyexp_commands

PATH = ROOT / "README.md"
README = PATH.read_text(encoding="utf-8")
COMMANDS = lazyexp_commands(PATH)


def test_the_readme_has_commands_and_is_short():
    assert len(COMMANDS) >= 6
    assert len(README.splitlines()) <= 130


def test_set_up_is_one_command_each():
    """Set-up and first run; set-up and quick tests."""
    start = "python3 -m venv .venv && .venv/bin/pip install -e "
    blocks = [block.strip() for block in code(PATH, "bash") if block.startswith(start)]
    assert [block.removeprefix(start) for block in blocks] == [
        ". && .venv/bin/lazyexp",
        '".[test]" && .venv/bin/python -m pytest -q -n 2',
    ]


@pytest.mark.slow
def test_the_first_command_runs(call):
    assert COMMANDS[0] == []
    answer = call()
    assert answer.code == 0 and "digits lazy seed 0: finished" in answer.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [words for words in COMMANDS if any("_target_" in word for word in words)], ids=" ".join
)
def test_commands_with_custom_parts_run(call, arguments, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    assert call(*arguments, "epochs=1", "energy=false").code == 0


def python(word: str) -> str:
    """The only Python block that contains the word."""
    (block,) = (block for block in code(PATH, "python") if word in block)
    return block


def test_the_training_loop_runs_and_skips():
    text = python("SpacedSampler")
    scope: dict = {}
    torch.manual_seed(0)
    exec(text, scope)
    wrong = (scope["model"](scope["inputs"]).argmax(1) != scope["targets"]).float().mean()
    assert float(wrong) < 0.1
    assert len(scope["loader"].sampler) < 0.6 * 512  # most samples are skipped
    assert sum("  # was" in line or "  # new" in line for line in text.splitlines()) == 3


@pytest.mark.slow
def test_the_example_from_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(python("lazyexp.sweep"), scope)
    assert len(scope["runs"]) == 2 and len(scope["hardest"]) == 5


def test_the_table_of_rules_is_complete():
    from lazyexp.config.registry import RULES

    table = README.partition("| `rule=` |")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(RULES)


def test_files_of_a_run_are_named():
    for name in ("metrics.csv", "summary.csv", "run.json", "learned.npz", "model.pt", "predictions.npz"):
        assert f"`{name}`" in README, name
