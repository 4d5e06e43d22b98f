"""Memory of a process: freed blocks are kept, and training does not make it grow."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts page faults and peaks this way"),
]

BLOCKS = """
import resource, sys
import numpy as np
from lazyexp.utils.memory import keep_freed_blocks

if sys.argv[1] == "keep":
    keep_freed_blocks()
for round in range(20):
    if round == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(2**19) for _ in range(3)]  # 4 MiB each
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
STEPS = """
import resource
import torch
from torch import nn
from lazyexp.config.schema import OptimizerConfig
from lazyexp.data import Samples
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy

torch.set_num_threads(1)
samples = Samples(torch.randint(0, 256, (600, 1, 28, 28), dtype=torch.uint8), torch.randint(0, 10, (600,)), 1 / 255)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 10))
rule = make_rule({"name": "backprop"})
rule.start(RunInfo(600, 1, 1, 0, torch.device("cpu")))
energy = Energy(model, Clock(torch.device("cpu")), enabled=False)
engine = make_engine("autograd", EngineSpec(model, samples, rule, OptimizerConfig(lr=0.01), 1, energy))
engine.train(torch.arange(50), [0.01] * 50)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
engine.train(torch.arange(50, 600), [0.01] * 550)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def printed(program: str, *arguments: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    answer = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, env=environment
    )
    assert answer.returncode == 0, answer.stderr
    return int(answer.stdout)


def test_freed_blocks_are_kept():
    assert printed(BLOCKS, "keep") < 100
    if os.confstr("CS_GNU_LIBC_VERSION"):
        assert printed(BLOCKS, "default") > 1000  # what the call avoids


def test_memory_does_not_grow_from_step_to_step():
    assert printed(STEPS) < 30_000  # KiB; a step has 3 MiB of gradients
