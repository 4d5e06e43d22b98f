"""Whole runs under a caller's global state give the same rows."""

from __future__ import annotations

from contextlib import contextmanager

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


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_run_does_not_depend_on_the_caller(tmp_path, model):
    expected = rows(tmp_path / "plain", model)
    for name, caller in CALLERS.items():
        with caller(), isolated():
            assert rows(tmp_path / name, model) == expected
