"""How far single precision carries: the first sample about which an engine decides otherwise than double precision.

Run it with the data directory: `python scripts/bench/rounding.py --data data --samples 20000`. Online learning
amplifies rounding, whatever the loop: the autograd loop splits from itself when its initial weights are changed by
one unit in the last place. Prints one line per engine and seed.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

from lazyexp.config.schema import DatasetConfig, ModelConfig, OptimizerConfig
from lazyexp.data import load_data
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.lookahead import LookAhead

CPU = torch.device("cpu")


def decisions(kind: type, dtype: torch.dtype, seed: int, arguments: argparse.Namespace, nudge: bool = False):
    """The selected samples, in the order presented: (samples,) bool."""
    data = load_data(DatasetConfig(name=arguments.dataset), arguments.data, CPU, dtype)
    model = make_model(ModelConfig(width=arguments.width), data.shape, data.classes, seed).to(dtype)
    if nudge:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.nextafter(parameter, torch.full_like(parameter, torch.inf)))
    rule = make_rule({"name": arguments.rule})
    rule.start(RunInfo(len(data.train), 1, 1, seed, CPU))
    order = rule.epoch_indices(0)[: arguments.samples]
    energy = Energy(model, Clock(CPU), enabled=False)
    engine = kind(EngineSpec(model, data.train, rule, OptimizerConfig(lr=arguments.lr), 1, energy))
    return torch.cat([engine.train(part, [arguments.lr] * len(part)).chosen for part in order.split(2048)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--rule", default="confidence")
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    single = torch.float32
    cases: dict[str, tuple[Any, ...]] = {
        "autograd": (AutogradEngine, single),
        "autograd, weights one unit in the last place up": (AutogradEngine, single, True),
        "direct": (Direct, single),
        "look-ahead": (LookAhead, single),
        "look-ahead in double precision": (LookAhead, torch.float64),
    }
    for seed in range(arguments.seeds):
        exact = decisions(AutogradEngine, torch.float64, seed, arguments)
        for name, (kind, dtype, *nudge) in cases.items():
            other = decisions(kind, dtype, seed, arguments, *nudge)
            differ = (other != exact).nonzero().flatten()
            first = int(differ[0]) if len(differ) else "none"
            print(f"seed {seed}  {name:<48} first split {first:>6}, differing {len(differ)}", flush=True)


if __name__ == "__main__":
    main()
