"""What SpacedSampler saves in a plain PyTorch loop: torchvision images, transforms, a DataLoader, an MLP.

    LAZYEXP_DATA=data python scripts/bench_sampler.py [--epochs 12] [--seeds 3] [--out docs/results/sampler.csv]

Three arms, the same model, learning rate and schedule (cosine over the epochs):
  all      a shuffled DataLoader over every sample, in every epoch;
  spaced   the same with a SpacedSampler;
  shorter  all, but for only as many epochs as `spaced` has presented samples for, with a schedule of its own.
The learning rate is the best of `all`'s on the last 10,000 training samples, for every data set; the sampler has its
default threshold and interval, and sure=0.99. One thread, no workers, so the seconds of the process are those of the
work whatever else the machine does; `all` and `spaced` take turns. Choosing the rate and `shorter`, of which only
the accuracy is asked, run on images that were transformed beforehand: the same numbers, not the same seconds.
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
RATES = (0.01, 0.02, 0.05)
BATCH, HELD_OUT = 64, 10_000


def images(name: str, root: str, train: bool) -> Dataset:
    kind, mean, deviation = SETS[name]
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((mean,), (deviation,))])
    return kind(root, train=train, transform=transform)


def transformed(dataset: Dataset) -> TensorDataset:
    """All items as tensors: what the transform gives, made once."""
    inputs, targets = zip(*DataLoader(dataset, 1000), strict=True)
    return TensorDataset(torch.cat(inputs), torch.cat(targets))


def train(dataset: Any, test: TensorDataset, spaced: bool, lr: float, epochs: int, seed: int) -> dict[str, Any]:
    """One training, and what it took."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    criterion = nn.CrossEntropyLoss()
    presented, wall, cpu = 0, time.perf_counter(), time.process_time()
    if spaced:
        sampler = SpacedSampler(len(dataset), sure=0.99, seed=seed)
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


def best_rate(whole: TensorDataset, epochs: int) -> float:
    """Of `all`, by the accuracy on the samples held out."""
    border = len(whole) - HELD_OUT
    held_out = TensorDataset(*whole[border:])
    accuracy = {}
    for lr in RATES:
        accuracy[lr] = train(Subset(whole, range(border)), held_out, False, lr, epochs, seed=100)["test_accuracy"]
        print(f"  lr {lr}: validation accuracy {accuracy[lr]:.4f}", flush=True)
    return max(accuracy, key=accuracy.__getitem__)


def compare(name: str, root: str, epochs: int, seeds: int) -> list[dict[str, Any]]:
    print(name)
    train_images = images(name, root, train=True)
    in_memory, test = transformed(train_images), transformed(images(name, root, train=False))
    lr, rows = best_rate(in_memory, epochs), []

    def note(arm: str, row: dict[str, Any]) -> dict[str, Any]:
        rows.append({"dataset": name, "arm": arm, **row})
        print("  " + ", ".join(f"{key} {value}" for key, value in rows[-1].items() if key != "dataset"), flush=True)
        return row

    for seed in range(seeds):
        presented = 0
        for arm in ("all", "spaced") if seed % 2 == 0 else ("spaced", "all"):
            row = note(arm, train(train_images, test, arm == "spaced", lr, epochs, seed))
            presented = row["presented"] if arm == "spaced" else presented
        fewer = max(1, round(presented / len(in_memory)))
        note("shorter", {**train(in_memory, test, False, lr, fewer, seed), "wall_seconds": "", "cpu_seconds": ""})
    return rows


def tell(rows: list[dict[str, Any]]) -> None:
    """Pair by pair: how many times as fast, how many points more."""
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
            print(f"{name}: {arm} {statistics.mean(points):+.2f} points ({min(points):+.2f} to {max(points):+.2f})")


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
    tell(rows)


if __name__ == "__main__":
    main()
