"""What the README promises is tried."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lazyexp import cli

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines()]
OURS = [words[1:] for words in COMMANDS if words and words[0] == "lazyexp"]


def test_the_readme_has_commands():
    assert len(OURS) >= 7


@pytest.mark.parametrize("arguments", [words for words in OURS if "--help" not in words], ids=" ".join)
def test_commands_are_settings_that_exist(arguments, monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    cli.register()
    overrides = [word for word in arguments if word != "-m"]
    with cli.hydra_session():
        cli.sweep_settings(cli.expand(overrides) if "-m" in arguments else [overrides], [])


def test_the_first_command_runs(call):
    assert OURS[0] == []
    answer = call()
    assert answer.code == 0 and "digits lazy seed 0: finished" in answer.out


@pytest.mark.parametrize(
    "arguments", [words for words in OURS if any("_target_" in word for word in words)], ids=" ".join
)
def test_your_own_runs(call, arguments, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])
    assert call(*arguments, "epochs=1", "energy=false").code == 0


def test_the_python_examples_run():
    (loss,) = (block for block in PYTHON if "LazyLoss" in block)
    (sampler,) = (block for block in PYTHON if "SpacedSampler" in block)
    scope: dict = {}
    exec(loss, scope)
    wrong = (scope["model"](scope["inputs"]).argmax(1) != scope["targets"]).float().mean()
    assert float(wrong) < 0.5  # random labels of four classes: it has learned some by heart
    scope = {}
    exec(sampler, scope)
    assert len(scope["loader"].sampler) < 0.6 * 512  # most of them sleep
    marked = [line for line in sampler.splitlines() if "  # was" in line or "  # new" in line]
    assert len(marked) == 3


def test_the_example_from_python_runs(tmp_path, monkeypatch):
    (code,) = (block for block in PYTHON if "lazyexp.sweep" in block)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(code, scope)
    assert len(scope["runs"]) == 2 and len(scope["hardest"]) == 5


def test_rules_and_files_that_are_mentioned_exist():
    from lazyexp.rules import RULES

    table = README.partition("| `rule=` |")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert len(named) > 10 and set(named) <= set(RULES)
    for name in ("metrics.csv", "summary.csv", "run.json", "learned.npz", "model.pt"):
        assert f"`{name}`" in README, name
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).resolve().parents[2] / link).exists(), link
