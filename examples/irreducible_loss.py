"""Irreducible losses for rule=rho_loss: two networks, each trained on half of the samples, score the other half.

    python examples/irreducible_loss.py losses.npy dataset=mnist epochs=4 batch_size=64
    lazyexp rule=rho_loss rule.irreducible=losses.npy dataset=mnist batch_size=320

The words after the file are the settings of the two networks. Repeat those of the data set in the run that uses the
file.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import lazyexp
from lazyexp.data import load_data
from lazyexp.settings import settings_of


def main(output: str, words: list[str]) -> None:
    settings = settings_of(words)
    dataset = replace(settings.dataset, augment=[])
    data = load_data(dataset, settings.data_dir, torch.device("cpu"))
    losses = np.full(data.counts["train"], np.nan, np.float32)
    halves = data.index[torch.randperm(len(data.index), generator=torch.Generator().manual_seed(0))].chunk(2)
    with tempfile.TemporaryDirectory() as folder:
        for number, half in enumerate(halves):
            subset = Path(folder) / f"{number}.npz"
            np.savez(subset, index=half.numpy(), learned=np.ones(len(half), int), data_sha256=np.array(data.sha256))
            run = lazyexp.run(*words, rule="backprop", dataset__subset=str(subset), runs_dir=f"{folder}/runs")
            model, other = run.model(), halves[1 - number]
            samples = load_data(dataset, settings.data_dir, torch.device("cpu"), index=other).train
            for rows in torch.arange(len(other)).split(512):
                inputs, targets = samples.batch(rows)
                with torch.no_grad():
                    loss = F.cross_entropy(model(inputs), targets, reduction="none")
                losses[other[rows].numpy()] = loss.numpy()
    np.save(output, losses)
    print(f"{output}: {np.isfinite(losses).sum():,} irreducible losses, mean {np.nanmean(losses):.3f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
