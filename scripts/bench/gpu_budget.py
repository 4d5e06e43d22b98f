"""Count the launches and waits of a GPU, on the emulated GPU of the tests.

    python scripts/bench/gpu_budget.py                        # the table of docs/performance.md, in Markdown
    python scripts/bench/gpu_budget.py --rules lazy --batches 1

With this network and learning rate, exactly 1 sample in 100 is misclassified at any time. Counted is one epoch from
its first to its last batch, with all graphs captured before, and without evaluations, the same for all rules.
Seconds are implied, not measured: for 8 epochs of 240,000 images, by 5 us per launch and 20 us per wait, and in the
last column by 1.5 us more for every kernel inside a graph.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cuda_emulator import Gpu, pretend  # noqa: E402

import lazyexp.training.trainer as trainer_module  # noqa: E402
from lazyexp.config.schema import ModelConfig, OptimizerConfig, PackingConfig  # noqa: E402
from lazyexp.data import Data, Samples  # noqa: E402
from lazyexp.models.builtin import make_model  # noqa: E402
from lazyexp.rules import RunInfo, make_rule  # noqa: E402
from lazyexp.training import EngineSpec, EvalContext, Trainer, TrainingSchedule, make_engine  # noqa: E402
from lazyexp.training.clock import Clock  # noqa: E402
from lazyexp.training.energy import Energy  # noqa: E402

RULES: dict[str, dict[str, Any]] = {
    "backprop": {"name": "backprop"},
    "lazy": {"name": "lazy"},
    "confidence": {"name": "confidence", "threshold": 0.9},
    "spaced": {"name": "spaced", "threshold": 0.9, "max_interval": 8},
    "fast_lazy": {"name": "spaced", "threshold": 0.9, "max_interval": 16, "skip_threshold": 0.99},
    "infobatch": {"name": "infobatch"},
}
BLOCKS = {"fast_lazy": 1024}  # packing.block_size
BATCHES = (1, 64, 1024)
LAUNCH, WAIT, NODE = 5e-6, 20e-6, 1.5e-6
IMAGES = 8 * 240_000


@dataclass
class Budget:
    """Counts of one epoch: samples `presented` and `trained` on, launches, kernels inside graphs, and waits."""

    presented: int
    trained: int
    launches: int
    nodes: int
    waits: int

    def seconds(self, node: float = 0.0) -> float:
        """Implied seconds for 8 epochs of 240,000 images, all of them presented."""
        spent = self.launches * LAUNCH + self.waits * WAIT + self.nodes * node
        return spent / self.presented * IMAGES


class Silent:
    """A trainer's callback that does nothing."""

    def evaluated(self, context: EvalContext) -> None: ...
    def checkpoint(self, state: dict[str, Any]) -> None: ...
    def progress(self, samples: int, correct: int, selected: int) -> None: ...
    def stop(self) -> bool:
        return False


def work(
    gpu: Gpu, options: dict[str, Any], batch_size: int, samples: int, block_size: int = 0, **optimizer: Any
) -> tuple[EngineSpec, Data]:
    """A spec on the emulated GPU: 1 sample in 100 is misclassified, the others are confident, and stay so."""
    cuda = torch.device("cuda")
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (samples, 1, 6, 6), generator=rng, dtype=torch.uint8)
    model = make_model(ModelConfig(width=16), (1, 6, 6), 10, 0)
    images = Samples(pixels, torch.zeros(samples, dtype=torch.int64), 1 / 128, -1.0)
    with torch.no_grad():
        model.get_submodule("3").get_parameter("weight").mul_(1000)  # nearly all samples are confident
        images.targets.copy_(model(images.batch(torch.arange(samples))[0]).argmax(1))
    images.targets[::100] = (images.targets[::100] + 1) % 10
    on_gpu = Samples(pixels.to(cuda), images.targets.to(cuda), 1 / 128, -1.0)
    model = model.to(cuda)
    rule = make_rule(options)
    rule.start(RunInfo(samples, batch_size, 1, 0, cuda))
    energy = Energy(model, Clock(cuda))
    packing = PackingConfig(block_size=block_size)
    spec = EngineSpec(model, on_gpu, rule, OptimizerConfig(lr=1e-9, **optimizer), batch_size, energy, packing=packing)
    return spec, Data(on_gpu, on_gpu, None, torch.arange(samples), 10, on_gpu.shape, "", None, {})


def count(rule: str, batch_size: int, samples: int = 8192, **optimizer: Any) -> Budget:
    """Count an epoch with the engine of engine=auto; an epoch before it captures the graphs."""
    options, block_size = RULES[rule], BLOCKS.get(rule, 0)
    patience, trainer_module.PATIENCE = trainer_module.PATIENCE, math.inf  # no reads for the progress bar
    try:
        with pretend() as gpu:
            spec, data = work(gpu, options, batch_size, samples, block_size, **optimizer)
            engine = make_engine("auto", spec)
            schedule = TrainingSchedule(
                0, 1, batch_size, samples, spec.optimizer.lr, "constant", 0.0, "float32", None, math.inf
            )
            for _ in range(2):
                spec.rule.start(spec.rule.info)
                trainer = Trainer(schedule, data, spec.model, spec.rule, engine, spec.energy, Silent())
                found = _watched(trainer, gpu)
                trainer.run()
            return Budget(trainer.counters.tally.samples_seen, trainer.counters.tally.backward_samples, **found)
    finally:
        trainer_module.PATIENCE = patience


def _watched(trainer: Trainer, gpu: Gpu) -> dict[str, int]:
    """Count from the start of an epoch to the first time that the counters are settled."""
    found: dict[str, int] = {}
    start, settle = trainer._start_epoch, trainer.counters.settle

    def started() -> torch.Tensor:
        order = start()
        gpu.reset()
        return order

    def settled() -> tuple[int, int, bool]:
        if not found:
            found.update(launches=gpu.launches, nodes=gpu.nodes, waits=sum(gpu.waits.values()))
        return settle()

    for owner, name, method in ((trainer, "_start_epoch", started), (trainer.counters, "settle", settled)):
        setattr(owner, name, method)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES))
    parser.add_argument("--batches", type=int, nargs="*", default=list(BATCHES))
    parser.add_argument("--samples", type=int, default=8192)
    options = parser.parse_args()
    print("| rule | batch | selected | launches a sample | kernels in graphs a sample | waits per 1,000 samples "
          "| seconds | with graphs' kernels |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for rule in options.rules:
        for batch_size in options.batches:
            b = count(rule, batch_size, options.samples)
            n = b.presented
            print(f"| {rule} | {batch_size} | {b.trained / n:.1%} | {b.launches / n:.3f} | {b.nodes / n:.2f} "
                  f"| {1000 * b.waits / n:.2f} | {b.seconds():.1f} | {b.seconds(NODE):.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
