"""Measure what SpacedSampler saves in a plain PyTorch loop: torchvision images, transforms, a DataLoader, an MLP.

    LAZYEXP_DATA=data python scripts/bench/sampler.py [--epochs 12] [--seeds 3] [--out docs/results/sampler.csv]

Three arms, the same model, learning rate and schedule (cosine over the epochs):
  all      a shuffled DataLoader over all samples, in every epoch;
  spaced   the same with a SpacedSampler;
  shorter  `all`, with as many epochs as give the number of samples that `spaced` presents, and their own schedule.
All choices are made on the last 10,000 training samples, per data set, with equally many trials for each arm. The
learning rate is the best of four for `all`, and again for `shorter`. Of four settings of the sampler, the one
that loads the fewest samples is chosen among those that end at most 0.1 percentage points below `all` (two seeds).
One thread, no workers; `all` and `spaced` take turns. The choices and `shorter`, where only the accuracy matters, run
on images that were transformed before: the accuracies are the same, the seconds are not.
Prints every run and the medians, and writes them as CSV; the settings are this script's choice.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision import datasets, transforms

from lazyexp import Indexed, SpacedSampler

SETS = {"mnist": (datasets.MNIST, 0.1307, 0.3081), "fashion_mnist": (datasets.FashionMNIST, 0.2860, 0.3530)}
RATES = (0.005, 0.01, 0.02, 0.05)
SETTINGS = ((0.9, 0.99), (0.9, 0.95), (0.8, 0.95), (0.7, 0.95))  # threshold, skip_threshold
BATCH, HELD_OUT = 64, 10_000
NEAR = 0.001


def images(name: str, root: str, train: bool) -> Dataset:
    kind, mean, deviation = SETS[name]
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((mean,), (deviation,))])
    return kind(root, train=train, transform=transform)


def transformed(dataset: Dataset) -> TensorDataset:
    """All items as tensors, transformed once."""
    inputs, targets = zip(*DataLoader(dataset, 1000), strict=True)
    return TensorDataset(torch.cat(inputs), torch.cat(targets))


def train(
    dataset: Any, test: TensorDataset, lr: float, epochs: int, seed: int, spaced: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Train once, with a sampler of the thresholds in `spaced` if it is not None. Returns accuracy and cost."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    criterion = nn.CrossEntropyLoss()
    presented, wall, cpu = 0, time.perf_counter(), time.process_time()
    if spaced:
        sampler = SpacedSampler(len(dataset), threshold=spaced[0], skip_threshold=spaced[1], seed=seed)
        loader = DataLoader(Indexed(dataset), BATCH, sampler=sampler)
        for _ in range(epochs):
            for index, (x, y) in loader:
                logits = model(x)
                loss = criterion(logits, y)
                sampler.update(index, logits, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                presented += len(y)
            schedule.step()
    else:
        loader = DataLoader(dataset, BATCH, shuffle=True)
        for _ in range(epochs):
            for x, y in loader:
                loss = criterion(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                presented += len(y)
            schedule.step()
    seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    inputs, targets = test.tensors
    with torch.no_grad():
        accuracy = (model(inputs).argmax(1) == targets).float().mean().item()
    return {
        "seed": seed,
        "lr": lr,
        "epochs": epochs,
        "presented": presented,
        **{name: round(value, 2) for name, value in seconds.items()},
        "test_accuracy": round(accuracy, 5),
    }


class Choice:
    """Chooses learning rates and the setting of the sampler on held-out samples."""

    def __init__(self, whole: TensorDataset) -> None:
        border = len(whole) - HELD_OUT
        self.held_out = TensorDataset(*whole[border:])
        self.rest = Subset(whole, range(border))

    def rate(self, epochs: int) -> float:
        accuracy = {lr: train(self.rest, self.held_out, lr, epochs, 100)["test_accuracy"] for lr in RATES}
        print(f"  {epochs} epochs, validation accuracy by learning rate: {accuracy}", flush=True)
        return max(accuracy, key=accuracy.__getitem__)

    def sampler(self, lr: float, epochs: int) -> tuple[float, float]:
        def mean(spaced: tuple[float, float] | None) -> tuple[float, float]:
            runs = [train(self.rest, self.held_out, lr, epochs, seed, spaced) for seed in (100, 101)]
            found = [statistics.mean(run[name] for run in runs) for name in ("test_accuracy", "presented")]
            print(f"  sampler {spaced}: validation accuracy {found[0]:.4f}, {found[1]:.0f} loaded", flush=True)
            return found[0], found[1]

        base = mean(None)[0]
        found = {spaced: mean(spaced) for spaced in SETTINGS}
        near = [spaced for spaced in SETTINGS if found[spaced][0] >= base - NEAR]
        return min(near, key=lambda spaced: found[spaced][1]) if near else SETTINGS[0]


def compare(name: str, root: str, epochs: int, seeds: int) -> list[dict[str, Any]]:
    print(name)
    train_images = images(name, root, train=True)
    in_memory, test = transformed(train_images), transformed(images(name, root, train=False))
    choice, rows = Choice(in_memory), []
    lr = choice.rate(epochs)
    setting = choice.sampler(lr, epochs)
    rates: dict[int, float] = {}

    def note(arm: str, row: dict[str, Any]) -> dict[str, Any]:
        thresholds = dict(zip(("threshold", "skip_threshold"), setting if arm == "spaced" else ("", ""), strict=True))
        rows.append({"dataset": name, "arm": arm, **thresholds, **row})
        print("  " + ", ".join(f"{key} {value}" for key, value in rows[-1].items() if key != "dataset"), flush=True)
        return row

    for seed in range(seeds):
        presented = 0
        for arm in ("all", "spaced") if seed % 2 == 0 else ("spaced", "all"):
            row = note(arm, train(train_images, test, lr, epochs, seed, setting if arm == "spaced" else None))
            presented = row["presented"] if arm == "spaced" else presented
        fewer = max(1, round(presented / len(in_memory)))
        if fewer not in rates:
            rates[fewer] = choice.rate(fewer)
        note("shorter", {**train(in_memory, test, rates[fewer], fewer, seed), "wall_seconds": "", "cpu_seconds": ""})
    return rows


def summarise(rows: list[dict[str, Any]]) -> None:
    """Print ratios of seconds and differences of accuracy, paired by seed."""
    for name in dict.fromkeys(row["dataset"] for row in rows):
        arms = {
            arm: [r for r in rows if (r["dataset"], r["arm"]) == (name, arm)] for arm in ("all", "spaced", "shorter")
        }
        arms = {arm: sorted(found, key=lambda row: row["seed"]) for arm, found in arms.items()}
        pairs = list(zip(arms["all"], arms["spaced"], strict=True))
        for clock in ("cpu_seconds", "wall_seconds"):
            gains = sorted(one[clock] / other[clock] for one, other in pairs)
            print(f"{name}: {clock} {statistics.median(gains):.2f} times less ({gains[0]:.2f} to {gains[-1]:.2f})")
        for arm in ("spaced", "shorter"):
            points = [
                100 * (other["test_accuracy"] - one["test_accuracy"])
                for one, other in zip(arms["all"], arms[arm], strict=True)
            ]
            print(
                f"{name}: {arm} {statistics.mean(points):+.2f} percentage points "
                f"({min(points):+.2f} to {max(points):+.2f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/sampler.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = os.environ.get("LAZYEXP_DATA", "data")
    rows: list[dict[str, Any]] = []
    for name in SETS:
        rows += compare(name, root, options.epochs, options.seeds)
        with options.out.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    summarise(rows)


if __name__ == "__main__":
    main()
