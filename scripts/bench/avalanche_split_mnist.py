#!/usr/bin/env python
"""Split MNIST with Avalanche, to compare with this program's streams (docs/streams.md).

    pip install avalanche-lib   # in an environment of its own
    python scripts/bench/avalanche_split_mnist.py DATA_FOLDER [SEED...]

Naive fine-tuning and GDumb (500 samples) on the 10,000 training images of dataset.train_size=10000, with the network
784-100-10, SGD at learning rate 0.05 and batches of 32. The same with this program:

    lazyexp -m dataset=mnist dataset.train_size=10000 stream=online stream.phases=5 memory=balanced \
      memory.capacity=500 memory.restart_epochs=10 rule=backprop batch_size=32 optimizer.lr=0.05 \
      optimizer.schedule=constant model.width=100 seed=0,1,2
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import transforms
from torchvision.datasets import MNIST

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lazyexp.data.loading import balanced_split

SCALED = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])


def main(root: str, *seeds: str) -> None:
    """Print the accuracies on the test samples of each phase, and on all."""
    train, test = MNIST(root, train=True), MNIST(root, train=False)
    index = balanced_split(train.targets, torch.arange(len(train)), 10000, "train_size")[0].sort().values
    train.data, train.targets = train.data[index], train.targets[index]
    for name in ("Naive", "GDumb"):
        for seed in map(int, seeds or ("0", "1", "2")):
            found = accuracies(name, train, test, seed)
            print(name, seed, " ".join(f"{value:.4f}" for value in found), flush=True)


def accuracies(name: str, train: MNIST, test: MNIST, seed: int) -> list[float]:
    """Train in five phases; (phases + 1,) accuracies at the end."""
    from avalanche import training
    from avalanche.benchmarks import nc_benchmark
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.models import SimpleMLP
    from avalanche.training.plugins import EvaluationPlugin

    torch.manual_seed(seed)
    np.random.seed(seed)
    stream = nc_benchmark(
        train, test, n_experiences=5, task_labels=False, shuffle=False, fixed_class_order=list(range(10)),
        train_transform=SCALED, eval_transform=SCALED,
    )  # fmt: skip
    model = SimpleMLP(num_classes=10, hidden_size=100, hidden_layers=1, drop_rate=0.0)
    more: dict[str, Any] = {"mem_size": 500, "train_epochs": 10} if name == "GDumb" else {"train_epochs": 1}
    strategy = getattr(training, name)(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.05), criterion=nn.CrossEntropyLoss(),
        train_mb_size=32, eval_mb_size=512, device="cpu",
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True, experience=True), loggers=[]), **more,
    )  # fmt: skip
    for experience in stream.train_stream:
        strategy.train(experience)
    found = strategy.eval(stream.test_stream)
    return [float(found[key]) for key in sorted(found) if "Acc" in key]


if __name__ == "__main__":
    main(*sys.argv[1:])
