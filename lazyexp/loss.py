"""Lazy learning in people's own training loops: a loss that only the misclassified samples contribute to."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REDUCTIONS = ("batch", "selected", "sum", "none")


def lazy_loss(
    logits: Tensor,
    targets: Tensor,
    threshold: float = 0.0,
    reduction: str = "batch",
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Softmax cross-entropy of the samples that must learn, and how many these are; no host synchronisation.

    A sample learns if argmax(logits) is not its target (Pache & van Rossum 2023) or, with a `threshold` above 0,
    if its largest softmax is below it (1: everybody). logits (n, classes, ...) or (classes,); targets: class indices
    (n, ...), or class probabilities of the logits' shape, of which the most probable class is the right one (any of
    them, if there are several); label smoothing does not change which one is. `reduction`: `batch` divides by what
    cross_entropy's mean divides by, the whole batch, so the others count as zero gradients; `selected` divides by
    those that learn, which makes steps larger the fewer they are; `sum`; `none` (n, ...). `weight`, `ignore_index`
    and `label_smoothing` as in torch.nn.functional.cross_entropy.

    Returns (loss, number that learn), the number as a 0-dimensional tensor. Raises ValueError if the shapes do not
    fit.
    """
    _check_reduction(reduction)
    with torch.no_grad():
        wrong, counted = is_wrong(logits, targets, ignore_index)
        learns = wrong if threshold == 0 else ~(confidence(logits) >= threshold) | wrong
        learns = counted if threshold == 1 else learns & counted  # a softmax can be rounded to 1
    each = F.cross_entropy(
        logits, targets, weight, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
    )
    share = torch.ones_like(each)
    if weight is not None and not targets.is_floating_point():
        share = weight[targets.masked_fill(~counted, 0)].to(each.dtype)
    return _reduced(each, learns, counted, share, reduction), learns.sum()


def lazy_bce(
    logits: Tensor,
    targets: Tensor,
    threshold: float = 0.0,
    reduction: str = "batch",
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy with logits of the elements that must learn, and how many these are.

    Every element decides by itself, as it has a target of its own; of (n,) or (n, 1) it is a sample. It learns if its
    logit is not on its target's side: above 0 for a target above one half, below 0 for one below; a target of one
    half has no side and always learns. With a `threshold` above 0 it also learns if the probability of its side is
    below it. logits and targets of one shape; `reduction` and what is returned as in `lazy_loss`; `weight` and
    `pos_weight` as in torch.nn.functional.binary_cross_entropy_with_logits.
    """
    _check_reduction(reduction)
    if logits.shape != targets.shape:
        raise ValueError(f"targets of shape {tuple(targets.shape)} for logits of shape {tuple(logits.shape)}")
    with torch.no_grad():
        learns = ~(logits * (targets - 0.5) > 0)
        if threshold > 0:
            learns |= ~(logits.float().abs().sigmoid() >= threshold)
        if threshold == 1:
            learns = torch.ones_like(learns)
    each = F.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none", pos_weight=pos_weight)
    return _reduced(each, learns, torch.ones_like(learns), torch.ones_like(each), reduction), learns.sum()


def is_wrong(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """Which argmax(logits) is not its target, and which targets count: (n, ...) bool; shapes as in `lazy_loss`."""
    if logits.ndim == 0:
        raise ValueError("these logits are a single number: lazy_loss takes logits, not a loss already computed")
    classes = min(logits.ndim - 1, 1)
    guess = logits.argmax(classes)
    if targets.is_floating_point():
        _check_shape(targets, logits, logits.shape)
        own = targets.gather(classes, guess.unsqueeze(classes)).squeeze(classes)
        return own < targets.amax(classes), torch.ones_like(guess, dtype=torch.bool)
    _check_shape(targets, logits, guess.shape)
    counted = targets != ignore_index
    return (guess != targets) & counted, counted


def confidence(logits: Tensor) -> Tensor:
    """The largest softmax (n, ...), in 32 bits also under autocast."""
    classes = min(logits.ndim - 1, 1)
    return logits.float().softmax(classes).amax(classes)


def _reduced(each: Tensor, learns: Tensor, counted: Tensor, share: Tensor, reduction: str) -> Tensor:
    """The loss of those that learn; `share` is what each counts in a mean."""
    each = torch.where(learns, each, 0.0)  # not a product: an overflow elsewhere must not become NaN here
    if reduction in ("none", "sum"):
        return each if reduction == "none" else each.sum()
    divisor = torch.where(counted if reduction == "batch" else learns, share, 0.0).sum()
    return each.sum() / divisor.clamp_min(torch.finfo(each.dtype).tiny)


def _check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: must be batch, selected, sum or none")


def _check_shape(targets: Tensor, logits: Tensor, wanted: torch.Size) -> None:
    if targets.shape != wanted:
        raise ValueError(
            f"targets of shape {tuple(targets.shape)} for logits of shape {tuple(logits.shape)}: must be "
            "class indices without the dimension of the classes, or floating-point probabilities of the logits' shape"
        )


class LazyLoss(nn.Module):
    """Makes a criterion lazy: `criterion = LazyLoss(nn.CrossEntropyLoss())`, or an nn.BCEWithLogitsLoss.

    After a call `criterion.learned` is the number of samples (of elements, where each has its own target) that
    learn, a 0-dimensional tensor. Skip the step when it is 0, or momentum and weight decay move the weights all the
    same:

        loss = criterion(model(inputs), targets)
        if criterion.learned:
            loss.backward()
            optimizer.step()

    `if` waits for the device; code that must not wait can leave it out with plain SGD, whose step is then zero.
    All that the criterion was given holds (`mean` is `reduction="batch"` of `lazy_loss`); who is wrong is said by
    `lazy_loss` and `lazy_bce`. Raises TypeError for anything else, above all where nothing is right or wrong
    (regression) and for a loss that has already been computed.
    """

    learned: Tensor

    def __init__(
        self,
        criterion: nn.CrossEntropyLoss | nn.BCEWithLogitsLoss | None = None,
        threshold: float = 0.0,
        reduction: str | None = None,
    ) -> None:
        super().__init__()
        criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        _check_criterion(criterion)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: must be from 0 to 1")
        self.criterion, self.threshold = criterion, threshold
        self.reduction = reduction or {"mean": "batch"}.get(criterion.reduction, criterion.reduction)
        _check_reduction(self.reduction)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits and targets, of the shapes that the criterion takes."""
        own = self.criterion
        if isinstance(own, nn.BCEWithLogitsLoss):
            loss, self.learned = lazy_bce(logits, targets, self.threshold, self.reduction, own.weight, own.pos_weight)
        else:
            loss, self.learned = lazy_loss(
                logits, targets, self.threshold, self.reduction, own.weight, own.ignore_index, own.label_smoothing
            )
        return loss


def _check_criterion(criterion: object) -> None:
    wanted = "LazyLoss needs an nn.CrossEntropyLoss or nn.BCEWithLogitsLoss, whose answers are right or wrong"
    if isinstance(criterion, Tensor):
        raise TypeError(f"{wanted}, not a loss that has already been computed")
    if not isinstance(criterion, nn.Module):
        name = getattr(criterion, "__name__", type(criterion).__name__)
        raise TypeError(f"{wanted}, not {name}, of which only a reduced result is seen")
    kinds = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)
    if not any(isinstance(criterion, kind) and type(criterion).forward is kind.forward for kind in kinds):
        raise TypeError(f"{wanted}, not {type(criterion).__name__}")
