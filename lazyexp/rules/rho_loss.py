"""RHO-Loss, reducible holdout loss (Mindermann et al., ICML 2022, arXiv 2206.07137)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.config.fields import setting
from lazyexp.errors import UserError
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch, mask_of


@dataclass
class RhoLoss(Rule):
    """Select the share `keep` of a batch with the largest reducible losses: cross-entropy minus the irreducible loss.

    `irreducible` is an .npy file with the irreducible loss of every training sample of the data set, (n,): its loss
    under a network that was trained on other samples (`examples/irreducible_loss.py` makes one). Without it the
    irreducible loss is 0, which is selection by the loss alone. `keep` 1 is backprop. The authors select 32 of 320
    samples. Difference: a network with BatchNorm is scored in training mode, theirs in evaluation mode.
    """

    reduction: ClassVar[str] = "selected"
    keep: float = setting(0.1, "share of a batch that is selected", above=0, at_most=1)
    irreducible: str = setting("", "path of an .npy file with the irreducible losses of all training samples")

    def check(self) -> None:
        if self.irreducible:
            self._read()

    def _read(self) -> np.ndarray[Any, Any]:
        try:
            losses = np.load(Path(self.irreducible).expanduser(), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"rule.irreducible={self.irreducible}: not a readable .npy file ({error})") from None
        if not isinstance(losses, np.ndarray) or losses.ndim != 1 or losses.dtype.kind != "f":
            raise UserError(f"rule.irreducible={self.irreducible}: must hold one float for every training sample")
        return losses

    def identity(self) -> dict[str, Any]:
        options = super().identity()
        if self.irreducible:  # the losses identify the run, not the file's location
            options["irreducible"] = hashlib.sha256(self._read().tobytes()).hexdigest()
        return options

    def start(self, info: RunInfo) -> None:
        super().start(info)
        losses = torch.zeros(info.samples)
        if self.irreducible:
            positions = torch.arange(info.samples) if info.positions is None else info.positions
            read = torch.from_numpy(self._read().astype(np.float32))
            if len(read) <= int(positions.max()) or not bool(torch.isfinite(read[positions]).all()):
                raise UserError(f"rule.irreducible={self.irreducible}: lacks the losses of some training samples")
            losses = read[positions]
        self.losses = losses.to(info.device)

    def select(self, batch: ScoredBatch) -> Tensor:
        if self.keep == 1:
            return torch.ones_like(batch.wrong)
        loss = F.cross_entropy(batch.logits, batch.targets, reduction="none").float()
        number = max(int(self.keep * len(loss)), 1)
        return mask_of((loss - self.losses[batch.index]).topk(number).indices, batch.wrong)
