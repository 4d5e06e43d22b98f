"""Lazy learning in one file: train only on the samples that the network misclassifies.

    python examples/lazy_learning.py

Plain PyTorch without lazyexp: scikit-learn's digits, one hidden layer, online SGD (batch size 1), some 10 seconds.
All rules start from the same weights and see the same samples in the same order; they differ in `selected` alone.
`lazy`: Pache & van Rossum 2023, arXiv 2303.16067. `mistake_gated`: Pache & van Rossum 2026, arXiv 2604.14336.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

EPOCHS, LEARNING_RATE, TRAINING_SAMPLES = 6, 0.05, 1400


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 64) float32 in [0, 1] and labels (n,) int64."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)


def train(rule: str, seed: int = 0) -> tuple[float, int, float]:
    """Train with a rule. Returns test accuracy, number of weight updates and seconds."""
    images, labels = digits()
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    ever_wrong = torch.zeros(TRAINING_SAMPLES, dtype=torch.bool)
    updates, start = 0, time.perf_counter()
    for epoch in range(EPOCHS):  # the learning rate falls linearly
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - epoch / EPOCHS)
        for i in torch.randperm(TRAINING_SAMPLES).tolist():
            with torch.set_grad_enabled(rule == "backprop"):
                logits = model(images[i])
            wrong = bool(logits.argmax() != labels[i])
            ever_wrong[i] |= wrong
            selected = {"backprop": True, "lazy": wrong, "mistake_gated": bool(ever_wrong[i])}[rule]
            if selected:
                if rule != "backprop":  # scored without a graph, because most samples need none
                    logits = model(images[i])
                optimizer.zero_grad()
                F.cross_entropy(logits, labels[i]).backward()
                optimizer.step()
                updates += 1
    seconds = time.perf_counter() - start
    with torch.no_grad():
        right = model(images[TRAINING_SAMPLES:]).argmax(1) == labels[TRAINING_SAMPLES:]
    return float(right.float().mean()), updates, seconds


if __name__ == "__main__":
    torch.set_num_threads(1)  # at batch size 1 more threads only wait for each other
    print(f"{'rule':<14}{'test accuracy':>14}{'updates':>9}{'seconds':>9}")
    for name in ("backprop", "lazy", "mistake_gated"):
        accuracy, number, elapsed = train(name)
        print(f"{name:<14}{accuracy:>14.1%}{number:>9,}{elapsed:>9.2f}")
