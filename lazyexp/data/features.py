"""Data as a frozen network sees them: samples are replaced by their features, once, before training."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from lazyexp.config.imports import attribute_errors
from lazyexp.data.loading import Data
from lazyexp.data.samples import Samples
from lazyexp.errors import UserError

PART = 256  # samples forwarded at once


def with_features(data: Data, extract: nn.Module, sha256: str, scale: str, what: str) -> Data:
    """`data` with features (n, d) instead of samples.

    Args:
        extract: from pixels as stored (b, ...) to features (b, d).
        sha256: fingerprint of `extract`.
        scale: `standard`: zero mean and unit variance over all features of the training samples, as `channel`;
            `unit`: unchanged.
        what: name of the source, for errors.

    Raises:
        UserError: the network does not fit the data.
    """
    extract = extract.to(data.train.targets.device)
    with attribute_errors(f"model.features={what}, called with samples of shape {data.shape}"):
        values = {name: _features(part, extract) for name, part in _parts(data).items()}
    train = values["train"]
    if train.dim() != 2 or not train.is_floating_point():
        raise UserError(
            f"model.features={what}: the features are {tuple(train.shape)}, must be two-dimensional floats"
        )
    factor, offset = 1.0, 0.0
    if scale != "unit":
        mean, std = float(train.double().mean()), float(train.double().std(unbiased=False)) or 1.0
        factor, offset = 1.0 / std, -mean / std
    made = {name: Samples(values[name], part.targets, factor, offset) for name, part in _parts(data).items()}
    return replace(
        data,
        train=made["train"],
        test=made["test"],
        val=made.get("val"),
        shape=tuple(train.shape[1:]),
        features={"source": what, "sha256": sha256, "scale": factor, "offset": offset},
        origin=replace(data, train=data.train.head(0), test=data.test.head(0), val=None),
    )


def _parts(data: Data) -> dict[str, Samples]:
    parts = {"train": data.train, "test": data.test}
    return parts if data.val is None else {**parts, "val": data.val}


@torch.no_grad()
def _features(samples: Samples, extract: nn.Module) -> Tensor:
    index = torch.arange(len(samples), device=samples.targets.device)
    return torch.cat([extract(samples.bytes(part)[0].view(-1, *samples.shape)) for part in index.split(PART)])
