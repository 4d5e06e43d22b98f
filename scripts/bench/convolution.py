"""Measure training steps of convolutional networks: selection under batch and group normalisation, and a bare loop.

    python scripts/bench/convolution.py [--samples 512] [--depth 8] [--batch 64]

One thread. Microseconds of processor time per presented sample, the best of three turns, for a ResNet on 3 x 32 x 32
images with crop and flip. The rule selects a tenth of the samples. `bare` is a loop of PyTorch that trains on all
samples, with the same network and the same augmented batches, made beforehand.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.config.schema import ModelConfig, OptimizerConfig, PackingConfig
from lazyexp.data import Samples
from lazyexp.data.augmentation import Augmentation
from lazyexp.models.builtin import make_model
from lazyexp.rules import Rule, RunInfo, ScoredBatch
from lazyexp.rules.baselines import Backprop
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy

CPU = torch.device("cpu")
LR = 0.05


@dataclass
class Tenth(Rule):
    """Select every tenth sample."""

    pointwise = True

    def select(self, batch: ScoredBatch) -> Tensor:
        return batch.index % 10 == 0


def fastest(act: Callable[[], object], samples: int) -> float:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        act()
        seconds.append(time.process_time() - start)
    return min(seconds) / samples * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    count = options.samples
    samples = Samples(
        torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8),
        torch.randint(10, (count,)),
        1 / 64,
        -2.0,
        augmentation=Augmentation(4, True, True),
    )
    samples.start_epoch(0, 0)
    index = torch.arange(count)
    optimizer = OptimizerConfig(lr=LR, momentum=0.9)

    def network(norm: str) -> torch.nn.Module:
        return make_model(ModelConfig("resnet", width=16, depth=options.depth, norm=norm), (3, 32, 32), 10, 0)

    def engine(norm: str, rule: Rule, block: int = 0, energy: bool = False) -> Callable[[], object]:
        model = network(norm)
        rule.start(RunInfo(count, options.batch, 1, 0, CPU))
        packing = PackingConfig(block_size=block)
        measured = Energy(model, Clock(CPU), energy)
        spec = EngineSpec(model, samples, rule, optimizer, options.batch, measured, packing=packing)
        made = make_engine("autograd", spec)
        return lambda: made.train(index, [LR] * -(-count // options.batch))

    def bare(norm: str) -> Callable[[], object]:
        model = network(norm).train()
        steps = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
        batches = [samples.batch(part) for part in index.split(options.batch)]

        def loop() -> None:
            for inputs, targets in batches:
                steps.zero_grad()
                F.cross_entropy(model(inputs), targets).backward()
                steps.step()

        return loop

    cases = {
        "batch norm: bare loop, all samples": bare("batch"),
        "batch norm: all samples": engine("batch", Backprop()),
        "batch norm: all samples, energy": engine("batch", Backprop(), energy=True),
        "batch norm: a tenth": engine("batch", Tenth()),
        "batch norm: a tenth, packing": engine("batch", Tenth(), 512),
        "group norm: bare loop, all samples": bare("group"),
        "group norm: all samples": engine("group", Backprop()),
        "group norm: a tenth": engine("group", Tenth()),
        "group norm: a tenth, packing": engine("group", Tenth(), 512),
    }
    print(f"ResNet-{options.depth}, batch {options.batch}, microseconds per presented sample")
    for name, act in cases.items():
        print(f"{name:36} {fastest(act, count):8.0f}", flush=True)


if __name__ == "__main__":
    main()
