"""Irreducible losses for rule=rho_loss: two networks, each trained on half of the samples, score the other half.

    python examples/irreducible_loss.py losses.npy dataset=mnist epochs=4 batch_size=64
    lazyexp rule=rho_loss rule.irreducible=losses.npy dataset=mnist batch_size=320

The words after the file are the settings of the two networks. Use those of the data set and the network that the file is
for; with dataset.val_size, train_size or label_noise the same ones as in that run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import lazyexp
from lazyexp.config.imports import resolve  # noqa: F401  the package is installed
from lazyexp.data import load_data
from lazyexp.settings import settings_of


def main() -> None:
    output, *words = sys.argv[1:]
    settings = settings_of(words)
    data = load_data(settings.dataset, settings.data_dir, torch.device("cpu"))
    losses = np.full(data.counts["train"], np.nan, np.float32)
    halves = data.index[torch.randperm(len(data.index), generator=torch.Generator().manual_seed(0))].chunk(2)
    with tempfile.TemporaryDirectory() as folder:
        for number, half in enumerate(halves):
            subset = Path(folder) / f"{number}.npz"
            np.savez(subset, index=half.numpy(), learned=np.ones(len(half), int), data_sha256=np.array(data.sha256))
            run = lazyexp.run(
                *words, rule="backprop", dataset__subset=str(subset), dataset__augment=[], runs_dir=f"{folder}/runs"
            )
            other = halves[1 - number]
            plain = load_data(settings.dataset, settings.data_dir, torch.device("cpu"), index=other)
            plain.train.augmentation = type(plain.train.augmentation)()
            model = run.model()
            with torch.no_grad():
                for start in range(0, len(other), 512):
                    rows = torch.arange(start, min(start + 512, len(other)))
                    inputs, targets = plain.train.batch(rows)
                    losses[other[rows].numpy()] = F.cross_entropy(model(inputs), targets, reduction="none").numpy()
    np.save(output, losses)
    print(f"{output}: {np.isfinite(losses).sum():,} irreducible losses, mean {np.nanmean(losses):.3f}")


if __name__ == "__main__":
    main()
