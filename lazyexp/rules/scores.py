"""What "wrong" and "confident" mean, for rules, losses and samplers alike. Imports torch alone."""

from __future__ import annotations

import torch
from torch import Tensor


def class_dim(logits: Tensor) -> int:
    """The dimension of the classes in logits (n, classes, ...) or (classes,)."""
    return min(logits.ndim - 1, 1)


def misclassified(logits: Tensor, targets: Tensor) -> Tensor:
    """(n, ...) bool: argmax(logits) is not the target, a class index."""
    return logits.argmax(class_dim(logits)) != targets


def confidence(logits: Tensor) -> Tensor:
    """(n, ...) largest softmax probability, in at least 32 bits (also under autocast)."""
    dim = class_dim(logits)
    return logits.softmax(dim, dtype=torch.promote_types(logits.dtype, torch.float32)).amax(dim)
