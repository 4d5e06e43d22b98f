"""Training mode and evaluation mode of a model, and the layers for which they differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode inside the block and restore its mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The batch-normalisation layers of a model."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
