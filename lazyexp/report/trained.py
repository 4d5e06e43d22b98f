"""The final network and the data of finished runs. The one module of the report that imports torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lazyexp.config.schema import DatasetConfig, ModelConfig
from lazyexp.data import Data, load_data
from lazyexp.data.torchvision_sets import SOURCES, is_there
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.report.read import Run
from lazyexp.runs.reader import read_json

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
    """Rebuild the runs; data that several share are loaded once. Nothing is downloaded. Raises Unavailable."""
    loaded: dict[str, Data] = {}
    for run in runs:
        yield run, _rebuild(run.folder, loaded)


def _rebuild(folder: Path, loaded: dict[str, Data]) -> Trained:
    settings = read_json(folder / "run.json").get("settings") or {}
    try:
        dataset = replace(_part(DatasetConfig, settings["dataset"]), augment=[])
        model = _part(ModelConfig, settings["model"])
        if repr(dataset) not in loaded:
            loaded[repr(dataset)] = _load(dataset, settings)
        data = loaded[repr(dataset)]
        network = make_model(model, data.shape, data.classes, 0)
        network.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
        with np.load(folder / "learned.npz", allow_pickle=False) as archive:
            if str(archive["data_sha256"]) != data.sha256 or not np.array_equal(archive["index"], data.index.numpy()):
                raise Unavailable("the data found are not those of the run")
    except (UserError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(" ".join(str(error).split())[:150]) from None
    return Trained(network.eval(), data)


def _load(dataset: DatasetConfig, settings: dict[str, Any]) -> Data:
    folders = (str(settings.get("data_dir") or ""), os.environ.get("LAZYEXP_DATA", ""))
    folder = next((folder for folder in folders if _has(dataset, folder)), None)
    if folder is None:
        raise Unavailable(f"its files are not in {settings.get('data_dir')}; set LAZYEXP_DATA to their folder")
    return load_data(dataset, folder, torch.device("cpu"))


def _part(schema: type, given: dict[str, Any]) -> Any:
    known = {entry.name for entry in fields(schema)}
    return schema(**{key: value for key, value in given.items() if key in known})


def _has(dataset: DatasetConfig, data_dir: str) -> bool:
    """Whether the data can be read without a download."""
    return dataset.name not in SOURCES or (bool(data_dir) and is_there(dataset.name, Path(data_dir).expanduser()))
