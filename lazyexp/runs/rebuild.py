"""The network and the data of a finished run, rebuilt from its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from lazyexp.config.imports import resolve, source
from lazyexp.config.schema import DatasetConfig, ModelConfig
from lazyexp.data import Data, load_data
from lazyexp.data.torchvision_sets import SOURCES, is_there
from lazyexp.errors import UserError
from lazyexp.models.builtin import make_model
from lazyexp.models.features import Affine, Features, file_sha256, torchvision_features, without_last_layer
from lazyexp.runs.inputs import Inputs
from lazyexp.runs.reader import read_json
from lazyexp.utils.terminal import log

CPU = torch.device("cpu")
Part = TypeVar("Part", DatasetConfig, ModelConfig)


@dataclass
class Rebuilt:
    """The trained network of a run, on the CPU in evaluation mode, and its data without augmentation."""

    model: nn.Module
    data: Data


def rebuild(folder: Path, download: bool = True) -> Rebuilt:
    """The network and the data of the finished run in `folder`.

    The training samples are those in learned.npz, so that a subset (`dataset.subset=matched`, `random` or a path)
    needs no other run. Data are looked for in the run's data_dir, then in $LAZYEXP_DATA; only with `download` are
    missing published ones downloaded. Raises UserError.
    """
    facts = read_json(folder / "run.json")
    settings = facts.get("settings")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(key), dict) for key in ("dataset", "model")):
        raise UserError(f"{folder}/run.json has no settings")
    index, sha256 = _trained_on(folder)
    dataset = _part(DatasetConfig, settings["dataset"], augment=[], subset=None)
    _note_edits(facts.get("sources"))
    data = load_data(
        dataset, _data_dir(dataset.name, str(settings.get("data_dir") or ""), download), CPU, index=index
    )
    if data.sha256 != sha256:
        raise UserError(f"{folder}: its data set has changed since the run")
    return Rebuilt(_network(folder, facts, Inputs.of(data), download), data)


def rebuild_model(folder: Path) -> nn.Module:
    """The trained network of the run in `folder`, on the CPU in evaluation mode.

    Runs of version 0.2 record the shape of their samples; for older ones the data set is loaded. Raises UserError.
    """
    facts = read_json(folder / "run.json")
    inputs = Inputs.read(facts)
    if inputs is None or not isinstance(facts.get("settings", {}).get("model"), dict):
        return rebuild(folder).model
    _note_edits(facts.get("sources"))
    return _network(folder, facts, inputs, download=True)


def _network(folder: Path, facts: dict[str, Any], inputs: Inputs, download: bool) -> nn.Module:
    """The network of a run with the weights in model.pt, behind its frozen features, if any. Raises UserError."""
    settings, features, shape = facts["settings"], facts.get("features"), inputs.shape
    trunk = _trunk(folder, features, inputs, download) if features else None
    if trunk is not None:
        with torch.no_grad():
            shape = tuple(trunk(torch.zeros(1, *shape)).shape[1:])
    seed = settings.get("seed")
    config = _part(ModelConfig, settings["model"])
    model = make_model(config, shape, inputs.classes, seed if isinstance(seed, int) else 0)
    try:
        model.load_state_dict(torch.load(folder / "model.pt", map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load meets damaged files with many types of exceptions
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"{folder}/model.pt does not fit the run's network ({reason})") from None
    return (model if trunk is None else nn.Sequential(trunk, model)).eval()


def load_features(source: str, download: bool = True) -> Features:
    """The network of a finished run (a folder) or of torchvision's weights (a file) without its last layer.

    Raises UserError.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return torchvision_features(path)
    if not (path / "run.json").is_file():
        raise UserError(f"model.features={source}: neither the folder of a run nor a file of torchvision's weights")
    rebuilt = rebuild(path, download)
    samples = rebuilt.data.train
    trunk = without_last_layer(rebuilt.model, source)
    channels = (-1, *[1] * (len(rebuilt.data.shape) - 1))
    scale, offset = (numbers.float().view(channels) for numbers in samples.factors)
    extract = nn.Sequential(Affine(scale, offset), trunk)
    return Features(extract.eval(), file_sha256(path / "model.pt"))


def _trunk(folder: Path, recorded: dict[str, Any], inputs: Inputs, download: bool) -> nn.Module:
    """From the inputs of the run in `folder` to the scaled features on which it was trained. Raises UserError."""
    features = load_features(recorded["source"], download)
    if features.sha256 != recorded["sha256"]:
        raise UserError(f"{folder}: the network in {recorded['source']} has changed since the run")
    return nn.Sequential(inputs.unscale(), features.extract, Affine(recorded["scale"], recorded["offset"])).eval()


def _trained_on(folder: Path) -> tuple[torch.Tensor, str]:
    """Positions (n,) of the training samples of a run, and the fingerprint of its data set. Raises UserError."""
    try:
        with np.load(folder / "learned.npz", allow_pickle=False) as archive:
            return torch.from_numpy(archive["index"].astype(np.int64)), str(archive["data_sha256"])
    except Exception:  # NumPy and zipfile meet damaged files with many types of exceptions
        raise UserError(f"{folder}/learned.npz cannot be read: the run has not ended, or it is damaged") from None


def _data_dir(name: str, recorded: str, download: bool) -> str:
    """The first of the run's data_dir and $LAZYEXP_DATA that holds the data set. Raises UserError."""
    if name not in SOURCES:
        return recorded
    for directory in (recorded, os.environ.get("LAZYEXP_DATA", "")):
        if directory and is_there(name, Path(directory).expanduser()):
            return directory
    if not download:
        raise UserError(f"the files of {name} are not in {recorded}; set LAZYEXP_DATA to their folder")
    return recorded


def _part(schema: type[Part], given: dict[str, Any], **changes: Any) -> Part:
    """Settings of a group; keys of another version are left out. Raises UserError."""
    known = {entry.name for entry in fields(schema)}
    try:
        return schema(**{**{key: value for key, value in given.items() if key in known}, **changes})
    except TypeError as error:
        raise UserError(f"run.json: {error}") from None


def _note_edits(sources: Any) -> None:
    """A note if the source file of a custom model or data set has changed since the run."""
    for group in ("dataset", "model"):
        recorded = sources.get(group) if isinstance(sources, dict) else None
        if isinstance(recorded, dict) and isinstance(recorded.get("target"), str):
            now = source(resolve(recorded["target"], f"{group}._target_"), recorded["target"])
            if now["sha256"] != recorded.get("sha256"):
                log(f"note: {now['file']} of the custom {group} has changed since the run")
