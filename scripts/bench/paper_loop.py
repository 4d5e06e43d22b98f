"""The paper's own comparison: single samples, backprop against lazy, in a plain PyTorch loop and in this program.

    python scripts/bench/paper_loop.py                            # about 5 minutes on one core
    python scripts/bench/paper_loop.py --threads 1 2 --repeats 5 --out paper_loop.csv
    python scripts/bench/paper_loop.py --figure paper_loop.csv    # predicted_speedup.png, .pdf, .csv beside it

EMNIST subset, 784-1000-10, SGD at learning rate 0.01, batch size 1. `plain` is `plain_loop` below, which uses nothing
of this package but the inputs as tensors; `autograd` and `fast` are engine=autograd and engine=auto, without energy.
Situations:

    scratch   the first --samples samples of a random order, from initial weights
    trained   the same samples, after one epoch of lazy learning with the fast engine
    none      the same network, on the samples that it gets right with the largest margins: the ceiling

`forward` is the plain loop's forward pass without a graph. Each number of threads has its own process; the cases take
turns, and times are medians over the turns. `ratio`: time of backprop in the same engine, situation and threads,
divided by the row's. `cost_ratio`: B / F that this ratio corresponds to, see docs/speedup.md; not for `fast`, which
scores many samples at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lazyexp.config.schema import DatasetConfig, OptimizerConfig
from lazyexp.data import Samples, load_data
from lazyexp.report.prediction import required_ratio
from lazyexp.rules import RunInfo, make_rule
from lazyexp.runs.provenance import session
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy

LR, WIDTH = 0.01, 1000
CPU = torch.device("cpu")
CASES = [
    ("plain", "forward"),
    *((engine, rule) for engine in ("plain", "autograd", "fast") for rule in ("backprop", "lazy")),
]


def plain_network() -> nn.Sequential:
    """784-1000-10, ReLU, PyTorch's default initialization."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))


def plain_loop(model: nn.Module, inputs: Tensor, targets: Tensor, rule: str) -> int:
    """Train on the samples one after the other. Returns the number of mistakes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    mistakes = 0
    for x, y in zip(inputs.split(1), targets.split(1), strict=True):
        logits = model(x)
        wrong = logits.argmax().item() != y.item()
        mistakes += wrong
        if rule == "backprop" or (rule == "lazy" and wrong):
            optimizer.zero_grad()
            F.cross_entropy(logits, y).backward()
            optimizer.step()
    return mistakes


def engine_loop(model: nn.Module, samples: Samples, index: Tensor, engine: str, rule: str) -> int:
    """Train on the samples `index` with an engine of this program. Returns the number of mistakes."""
    made, energy, mistakes = make_rule({"name": rule}), Energy(model, Clock(CPU), enabled=False), 0
    made.start(RunInfo(len(samples), 1, 1, 0, CPU))
    trainer = make_engine(engine, EngineSpec(model, samples, made, OptimizerConfig(lr=LR), 1, energy))
    for part in index.split(2048):
        outcome = trainer.train(part, [LR] * len(part))
        mistakes += int((outcome.logits.argmax(1) != samples.targets[part]).sum())
    return mistakes


def situations(samples: Samples, number: int) -> dict[str, tuple[nn.Module, Tensor]]:
    """For each situation the network, and the samples to train on (n,)."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    trained = plain_network()
    engine_loop(trained, samples, order, "auto", "lazy")
    margins = []
    for part in order.split(4096):
        with torch.no_grad():
            best = trained(samples.batch(part)[0]).topk(2)
        margins.append(best.values.diff().neg().squeeze(1) * (best.indices[:, 0] == samples.targets[part]))
    easy = order[torch.cat(margins).topk(min(number, len(order))).indices]
    return {
        "scratch": (plain_network(), order[:number]),
        "trained": (trained, order[:number]),
        "none": (trained, easy),
    }


def run_case(model: nn.Module, samples: Samples, index: Tensor, engine: str, rule: str) -> tuple[float, float]:
    """Microseconds per sample and share of mistakes, training a copy of the network."""
    model, (inputs, targets) = deepcopy(model), samples.batch(index)
    start = time.perf_counter()
    if engine != "plain":
        mistakes = engine_loop(model, samples, index, "auto" if engine == "fast" else engine, rule)
    else:
        with torch.set_grad_enabled(rule != "forward"):
            mistakes = plain_loop(model, inputs, targets, rule)
    return 1e6 * (time.perf_counter() - start) / len(index), mistakes / len(index)


def measure(threads: int, number: int, repeats: int, train_size: int | None) -> list[dict[str, Any]]:
    """The rows of the table for one number of threads."""
    torch.set_num_threads(threads)
    config = DatasetConfig(name="emnist", train_size=train_size)
    samples = load_data(config, os.environ.get("LAZYEXP_DATA", "data"), CPU).train
    machine, rows = session(CPU)["device"], []
    for situation, (model, index) in situations(samples, number).items():
        turns = [[run_case(model, samples, index, *case) for case in CASES] for _ in range(repeats + 1)]
        times = np.median([[spent for spent, _ in turn] for turn in turns[1:]], axis=0)  # the first is the warm-up
        micros = dict(zip(CASES, times.tolist(), strict=True))
        for case, (_, share) in zip(CASES, turns[0], strict=True):
            ratio = micros[case[0], "backprop"] / micros[case]
            solvable = case[1] == "lazy" and case[0] != "fast" and ratio * share < 1
            rows.append({
                "threads": threads, "situation": situation, "engine": case[0], "rule": case[1],
                "us_per_sample": round(micros[case], 3), "mistakes": round(share, 5), "ratio": round(ratio, 3),
                "cost_ratio": round(required_ratio(ratio, share), 3) if solvable else None,
                "ratio_to_plain_backprop": round(micros["plain", "backprop"] / micros[case], 3),
                "samples": len(index), "repeats": repeats, "machine": machine, "torch": torch.__version__,
                "date": date.today().isoformat(),
            })  # fmt: skip
    return rows


def draw(path: Path) -> None:
    """Predicted speedups, with those of the loops over samples that were measured with the fewest threads."""
    from lazyexp.report.prediction_figure import prediction_figure
    from lazyexp.report.style import FigureFolder

    table = pd.read_csv(path)
    loops = (table["rule"] == "lazy") & (table["engine"] != "fast")
    lazy = table[loops & (table["threads"] == table["threads"].min())]
    names = lazy["engine"] + ", " + lazy["situation"]
    prediction_figure(
        FigureFolder(path.parent, ["backprop"]),
        list(zip(names, lazy["mistakes"], lazy["ratio"], strict=True)),
        claimed=7.6,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000, help="presented per case and turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--train-size", type=int, help="use so many training samples")
    parser.add_argument("--out", type=Path, default=Path("paper_loop.csv"))
    parser.add_argument("--figure", type=Path, metavar="CSV", help="only draw the figure of this table")
    options = parser.parse_args()
    if options.figure:
        draw(options.figure)
        return
    rows = []
    for threads in options.threads:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows += pool.apply(measure, (threads, options.samples, options.repeats, options.train_size))
    table = pd.DataFrame(rows)
    table.to_csv(options.out, index=False)
    print(table.iloc[:, :9].to_string(index=False))


if __name__ == "__main__":
    main()
