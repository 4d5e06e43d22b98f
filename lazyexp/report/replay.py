"""A finished run's network and data, put together again from its files. The one module here that imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lazyexp.data import Data
from lazyexp.errors import UserError
from lazyexp.runs.rebuild import rebuild

CHUNK = 2048


class Unavailable(Exception):
    """The data or the network cannot be had; the message says why."""


@dataclass
class Seen:
    """The network of a run at its end, and what it was trained on. Arrays are NumPy's."""

    model: nn.Module
    data: Data

    @property
    def index(self) -> np.ndarray:
        return self.data.index.numpy()

    @property
    def labels(self) -> np.ndarray:
        return self.data.train.targets.numpy()

    @torch.inference_mode()
    def predict(self, places: np.ndarray) -> np.ndarray:
        """(n,) the answers to the training samples at `places`, without augmentation."""
        return self.model(self.data.train.batch(torch.from_numpy(places))[0]).argmax(1).numpy()

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """(n, height, width, 1 or 3) from 0 to 1."""
        raw = self.data.train.pixels[torch.from_numpy(places)].float().view(-1, *self.data.shape)
        shown = raw.permute(0, 2, 3, 1).numpy()
        shown = shown if shown.shape[-1] in (1, 3) else shown[..., :1]
        low, high = float(shown.min()), float(shown.max())
        return (shown - low) / max(high - low, 1e-12)

    @property
    @torch.inference_mode()
    def confusion(self) -> np.ndarray:
        """(classes, classes) counts on the test set: rows are labels, columns answers."""
        counts = np.zeros((self.data.classes, self.data.classes), dtype=int)
        for start in range(0, len(self.data.test), CHUNK):
            inputs, targets = self.data.test.part(start, start + CHUNK)
            np.add.at(counts, (targets.numpy(), self.model(inputs).argmax(1).numpy()), 1)
        return counts


def replay(folder: Path) -> Seen:
    """What the run in `folder` ended with. Nothing is downloaded. Raises Unavailable."""
    try:
        rebuilt = rebuild(folder, download=False)
    except (UserError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(" ".join(str(error).split())[:150]) from None
    return Seen(rebuilt.model, rebuilt.data)
