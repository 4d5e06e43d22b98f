"""The final network and the data of finished runs. The one module of the report that imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lazyexp.data import Data
from lazyexp.errors import UserError
from lazyexp.report.read import Run
from lazyexp.runs.rebuild import rebuild

CHUNK = 2048


class Unavailable(Exception):
    """The data or the network is not available; the message gives the reason."""


@dataclass
class Trained:
    """The network of a run at its end and the data it was trained on. Arrays are NumPy's."""

    model: nn.Module
    data: Data

    @property
    def index(self) -> np.ndarray:
        index: np.ndarray = self.data.index.numpy()
        return index

    @property
    def labels(self) -> np.ndarray:
        labels: np.ndarray = self.data.train.targets.numpy()
        return labels

    @torch.inference_mode()
    def predict(self, positions: np.ndarray) -> np.ndarray:
        """(n,) predictions for the training samples at `positions`, without augmentation."""
        inputs, _ = self.data.train.batch(torch.from_numpy(positions))
        predicted: np.ndarray = self.model(inputs).argmax(1).numpy()
        return predicted

    def pixels(self, positions: np.ndarray) -> np.ndarray:
        """(n, height, width, 1 or 3) from 0 to 1."""
        raw = self.data.train.pixels[torch.from_numpy(positions)].float().view(-1, *self.data.shape)
        shown: np.ndarray = raw.permute(0, 2, 3, 1).numpy()
        shown = shown if shown.shape[-1] in (1, 3) else shown[..., :1]
        low, high = float(shown.min()), float(shown.max())
        scaled: np.ndarray = (shown - low) / max(high - low, 1e-12)
        return scaled

    @property
    @torch.inference_mode()
    def confusion(self) -> np.ndarray:
        """(classes, classes) counts on the test set: rows are labels, columns predictions."""
        counts = np.zeros((self.data.classes, self.data.classes), dtype=int)
        for start in range(0, len(self.data.test), CHUNK):
            inputs, targets = self.data.test.part(start, start + CHUNK)
            np.add.at(counts, (targets.numpy(), self.model(inputs).argmax(1).numpy()), 1)
        return counts


def predictions(runs: list[Run]) -> Iterator[tuple[Run, Trained]]:
    """Rebuild the runs. Nothing is downloaded. Raises Unavailable."""
    for run in runs:
        try:
            rebuilt = rebuild(run.folder, download=False)
        except (UserError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(" ".join(str(error).split())[:150]) from None
        yield run, Trained(rebuilt.model, rebuilt.data)
