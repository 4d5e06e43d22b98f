"""Training mode and evaluation mode of a network, and layers for which the difference matters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """The network as it is tested, and afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The layers that normalise a sample by its companions."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
