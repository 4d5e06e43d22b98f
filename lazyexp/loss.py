"""Lazy learning in people's own training loops: a loss that only the misclassified samples contribute to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lazy_loss(
    logits: Tensor,
    targets: Tensor,
    threshold: float = 0.0,
    reduction: str = "batch",
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Softmax cross-entropy of the samples that must learn, and how many these are; no host synchronisation.

    A sample learns if argmax(logits) is not its target (Pache & van Rossum 2023) or, with a `threshold` above 0,
    if its largest softmax is below it. logits (n, classes, ...), targets (n, ...) class indices. `reduction`:
    `batch` divides by what cross_entropy's mean divides by, the whole batch, so the others count as zero
    gradients; `selected` divides by those that learn, which makes steps larger the fewer they are; `sum`; `none`
    (n, ...). `weight` and `ignore_index` as in torch.nn.functional.cross_entropy.

    Returns (loss, number that learn), the number as a 0-dimensional tensor.
    """
    if reduction not in ("batch", "selected", "sum", "none"):
        raise ValueError(f"reduction={reduction!r}: must be batch, selected, sum or none")
    with torch.no_grad():
        learns = logits.argmax(1) != targets
        if threshold > 0:
            learns |= logits.softmax(1).amax(1) < threshold
        counted = targets != ignore_index
        learns &= counted
    each = F.cross_entropy(logits, targets, weight, ignore_index=ignore_index, reduction="none")
    each = torch.where(learns, each, 0.0)  # not a product: an overflow elsewhere must not become NaN here
    if reduction in ("none", "sum"):
        return (each if reduction == "none" else each.sum()), learns.sum()
    among = counted if reduction == "batch" else learns
    share = 1.0 if weight is None else weight[targets.clamp_min(0)]
    divisor = torch.where(among, share, 0.0).sum()
    return each.sum() / divisor.clamp_min(torch.finfo(each.dtype).tiny), learns.sum()


class LazyLoss(nn.Module):
    """Makes a criterion lazy: `criterion = LazyLoss(nn.CrossEntropyLoss())`.

    After a call `criterion.learned` is the number of samples that learn, a 0-dimensional tensor. Skip the
    step when it is 0, or momentum and weight decay move the weights all the same:

        loss = criterion(model(inputs), targets)
        if criterion.learned:
            loss.backward()
            optimizer.step()

    `if` waits for the device; code that must not wait can leave it out with plain SGD, whose step is then zero.
    The criterion's weight, ignore_index and reduction hold (`mean` is `reduction="batch"` of `lazy_loss`).
    Raises TypeError or ValueError for criteria it cannot make lazy, such as label smoothing.
    """

    learned: Tensor

    def __init__(
        self, criterion: nn.CrossEntropyLoss | None = None, threshold: float = 0.0, reduction: str | None = None
    ) -> None:
        super().__init__()
        criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        if not isinstance(criterion, nn.CrossEntropyLoss):
            raise TypeError(f"LazyLoss needs an nn.CrossEntropyLoss, not {type(criterion).__name__}")
        if criterion.label_smoothing:
            raise ValueError("LazyLoss knows no label smoothing: a smoothed target is never quite right")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: must be from 0 to 1")
        self.criterion, self.threshold = criterion, threshold
        self.reduction = reduction or {"mean": "batch"}.get(criterion.reduction, criterion.reduction)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (n, classes, ...) and class indices (n, ...)."""
        loss, self.learned = lazy_loss(
            logits,
            targets,
            self.threshold,
            self.reduction,
            self.criterion.weight,
            self.criterion.ignore_index,
        )
        return loss
