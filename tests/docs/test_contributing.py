"""The instructions of CONTRIBUTING.md work, in a copy of the project."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from pages import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(mark: str) -> list[tuple[str, str]]:
    """Return (argument of the mark, code below it) for every `<!-- mark: argument -->`."""
    return re.findall(rf"<!-- {mark}:? ?(.*?) ?-->\n```\w+\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_a_rule_in_ten_minutes(tmp_path):
    copy = tmp_path / "project"
    unneeded = shutil.ignore_patterns("__pycache__")
    for folder in ("lazyexp", "conf"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=unneeded)
    registry = copy / "lazyexp" / "config" / "registry.py"

    def python(*words: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=120)

    def enter(opening: str, line: str) -> None:
        """Put the line behind the brace that follows `opening` in the registry."""
        text = registry.read_text()
        start = text.index("{", text.index(opening)) + 1
        registry.write_text(f"{text[:start]}\n{line}{text[start:].lstrip()}")

    ((path, text),) = blocks("file")
    (copy / path).write_text(text)
    ((_, command),) = blocks("run")
    answer = python("-m", *shlex.split(command))
    assert answer.returncode == 0, answer.stderr

    ((start, line),) = blocks("line after")
    enter(start, line)
    answer = python("-m", "lazyexp", "rule=margin", "epochs=2", "model.width=50")
    assert answer.returncode == 0 and "digits margin seed 0: finished" in answer.stdout, answer.stderr
    assert "margin=1" in python("-m", "lazyexp", "--help").stdout

    # An optimizer, a model and a data set need one entry of the registry each.
    enter("OPTIMIZERS = Registry(", '"rprop": "torch.optim.Rprop",')
    enter("MODELS = Registry(", '"line": "line.line",')
    enter("DATASETS = {", '"numbers": Dataset(2, 500, (0.5,), "lazyexp.data.local.load_digits"),')
    # A column needs one entry of the table.
    columns = copy / "lazyexp" / "runs" / "columns.py"
    entry = 'Column("passes_left", float, "passes left", "epochs to come", lambda m: m.schedule.epochs - m.epoch)'
    columns.write_text(columns.read_text().replace("MEASURED = (", f"MEASURED = (\n    {entry},", 1))
    (copy / "line.py").write_text(
        "import torch\n\n\ndef line(shape, classes):\n    (height, width) = shape[1:]\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(height * width, classes))\n"
    )
    answer = python("-m", "lazyexp", "optimizer=rprop", "model=line", "dataset=numbers", "batch_size=100")
    assert answer.returncode == 0 and "numbers lazy seed 0: finished" in answer.stdout, answer.stderr

    (folder,) = (copy / "runs").glob("numbers-*")
    for file, wanted in (("metrics.csv", "2.0"), ("summary.csv", "0.0")):
        with (folder / file).open(newline="") as stream:
            assert next(csv.DictReader(stream))["passes_left"] == wanted

    ((_, test),) = blocks("test")
    (copy / "test_margin.py").write_text(
        f"import torch\nfrom lazyexp.rules import ScoredBatch, make_rule\n\n\n{test}"
    )
    answer = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_margin.py")
    assert answer.returncode == 0, answer.stdout
