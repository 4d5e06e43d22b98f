"""Whole runs under a caller's global state give the same rows."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from conftest import timeless

from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.experiment import run
from lazyexp.training import isolated


@contextmanager
def float64():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CALLERS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "float64": float64,
}


def rows(folder, model):
    config = Config(epochs=1, batch_size=16, eval_every=100, device="cpu", runs_dir=str(folder))
    config.dataset.train_size, config.model.name, config.model.width = 200, model, 4
    return timeless(run(check(config)).folder / "metrics.csv")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_run_does_not_depend_on_the_caller(tmp_path, model):
    expected = rows(tmp_path / "plain", model)
    for name, caller in CALLERS.items():
        with caller(), isolated():
            assert rows(tmp_path / name, model) == expected


def test_threads_hold_inside_a_run_alone(tmp_path):
    """`threads` is set for the run, recorded in run.json, and restored; null leaves what the caller has set."""
    config = Config(epochs=1, batch_size=16, device="cpu", runs_dir=str(tmp_path), threads=2)
    config.dataset.train_size, config.model.width = 200, 4
    assert torch.get_num_threads() == 1
    folders = [run(check(config)).folder, run(check(replace(config, threads=None))).folder]
    assert torch.get_num_threads() == 1
    recorded = [json.loads((folder / "run.json").read_text())["sessions"][-1]["threads"] for folder in folders]
    assert recorded == [2, 1] and folders[0] != folders[1]


@pytest.mark.slow
def test_the_command_imports_neither_pandas_nor_the_compiler(tmp_path):
    """They take longer than a small run."""
    code = (
        "import sys, lazyexp.config.compose\n"
        "from lazyexp.settings import settings_of\n"
        "from lazyexp.sweeps.multirun import execute\n"
        "lazyexp.config.compose.register()\n"
        f"execute(settings_of(['epochs=1', 'dataset.train_size=100', 'model.width=4', 'runs_dir={tmp_path}']))\n"
        "slow = {'pandas', 'sklearn', 'torch._dynamo', 'torch._inductor', 'torchvision'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
