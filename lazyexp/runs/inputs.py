"""From images to the inputs of a finished run's network, without its data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lazyexp.data import Data
from lazyexp.errors import UserError
from lazyexp.models.features import Unscale


@dataclass(frozen=True)
class Inputs:
    """What a network was trained on.

    Attributes:
        shape: of a sample, channels first.
        classes: number of classes.
        kind: type of the samples as read: `uint8`, `float32`, or `int64` for tokens, which are not scaled.
        scale: with `offset`, input = scale * value + offset; one number, or one per channel.
    """

    shape: tuple[int, ...]
    classes: int
    kind: str
    scale: list[float]
    offset: list[float]

    @classmethod
    def of(cls, data: Data) -> Inputs:
        """The inputs of a data set."""
        kind = str(data.test.pixels.dtype).removeprefix("torch.")
        scale, offset = (numbers.tolist() for numbers in data.test.factors)
        return cls(data.shape, data.classes, kind, scale, offset)

    @classmethod
    def read(cls, facts: dict[str, Any]) -> Inputs | None:
        """From the content of run.json; None if an older version wrote it."""
        try:
            known = facts["data"]["inputs"]
            return cls(
                tuple(map(int, known["shape"])),
                int(known["classes"]),
                str(known["kind"]),
                [float(value) for value in known["scale"]],
                [float(value) for value in known["offset"]],
            )
        except (KeyError, TypeError, ValueError):
            return None

    def preprocess(self, samples: Any) -> Tensor:
        """Samples (n, *shape) as inputs of the network.

        Args:
            samples: an array, tensor or list with values as in the data set's files. Images may lack a channel axis
                of length 1, or have it last.

        Raises:
            UserError: Shape or values do not fit.
        """
        try:
            given = torch.as_tensor(np.asarray(samples) if not isinstance(samples, Tensor) else samples)
        except (TypeError, ValueError) as error:
            raise UserError(f"samples: not an array of numbers ({error})") from None
        values = self._shaped(given)
        if self.kind == "int64":
            return values.long()
        if self.kind == "uint8" and values.is_floating_point() and 0 < float(values.max()) <= 1:
            raise UserError("samples: values are at most 1, those of the training samples were from 0 to 255")
        channels = (-1, *[1] * (len(self.shape) - 1))
        scale, offset = (torch.tensor(numbers).view(channels) for numbers in (self.scale, self.offset))
        return values.float() * scale + offset

    def unscale(self) -> Unscale:
        """From inputs of the network back to samples as stored."""
        channels = (-1, *[1] * (len(self.shape) - 1))
        scale, offset = (torch.tensor(numbers).view(channels) for numbers in (self.scale, self.offset))
        return Unscale(scale, offset, getattr(torch, self.kind))

    def _shaped(self, values: Tensor) -> Tensor:
        wanted = self.shape
        if len(wanted) == 3 and wanted[0] == 1 and values.shape[1:] == wanted[1:]:
            values = values.unsqueeze(1)
        elif len(wanted) == 3 and values.shape[1:] == (*wanted[1:], wanted[0]) != wanted:
            values = values.permute(0, 3, 1, 2)
        if values.shape[1:] != wanted:
            raise UserError(f"samples of shape {tuple(values.shape)}: must be (n, {', '.join(map(str, wanted))})")
        return values


@torch.inference_mode()
def predict(model: nn.Module, inputs: Tensor) -> np.ndarray:
    """The predicted classes (n,) of inputs (n, ...)."""
    parts = [model(part).argmax(1) for part in torch.split(inputs, 1024)]
    found: np.ndarray = torch.cat(parts).numpy() if parts else np.zeros(0, np.int64)
    return found
