"""A plain PyTorch loop that skips confidently correct samples; the lines marked >>> are the change.

    python examples/loops/plain.py

scikit-learn's digits, offline, a few seconds. Prints test accuracy and the number of samples loaded. With mixed
precision, gradient accumulation, and a checkpoint from which the loop resumes in the middle of an epoch.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lazyexp import Indexed, LazyLoss, SpacedSampler

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
train, test = TensorDataset(images[:1400], labels[:1400]), (images[1400:], labels[1400:])

EPOCHS, ACCUMULATE = 20, 2


def fit(checkpoint: dict | None = None, stop_after: int | None = None) -> tuple[nn.Module, int, dict]:
    """Train from the start or from a checkpoint, for at most `stop_after` batches.

    Returns the model, the number of samples loaded, and a checkpoint.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    criterion = LazyLoss(nn.CrossEntropyLoss(label_smoothing=0.05), threshold=0.9)
    loader = DataLoader(Indexed(train), batch_size=16, sampler=SpacedSampler(len(train)))  # >>> was shuffle=True
    loaded, first_epoch = 0, 0
    if checkpoint:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        loader.sampler.load_state_dict(checkpoint["sampler"])
        first_epoch = checkpoint["epoch"]

    def now(epoch: int) -> dict:
        return {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "sampler": loader.sampler.state_dict(),
            "epoch": epoch,
        }

    for epoch in range(first_epoch, EPOCHS):
        for step, (index, (x, y)) in enumerate(loader):  # >>> was (x, y)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(x)
                loss = criterion(logits, y) / ACCUMULATE
            loss.backward()
            loader.sampler.update(index, logits, y)  # >>> new
            loaded += len(index)
            if (step + 1) % ACCUMULATE == 0 or step + 1 == len(loader):
                optimizer.step()
                optimizer.zero_grad()
                if stop_after is not None and loaded >= 16 * stop_after:
                    return model, loaded, now(epoch)
    return model, loaded, now(EPOCHS)


def accuracy(model: nn.Module) -> float:
    with torch.no_grad():
        return float((model(test[0]).argmax(1) == test[1]).float().mean())


if __name__ == "__main__":
    model, loaded, _ = fit()
    print(f"{accuracy(model):.1%} with {loaded:,} samples loaded, of {EPOCHS * len(train):,}")
