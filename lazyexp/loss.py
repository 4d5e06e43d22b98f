"""Losses for custom training loops: only selected samples contribute to the gradient.

`LazyLoss` selects misclassified samples, `MistakeGatedLoss` those that were ever misclassified. Imports torch alone.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from lazyexp.rules.scores import class_dim, confidence, misclassified
from lazyexp.utils.distributed import rank_and_size

REDUCTIONS = ("batch", "selected", "sum", "none")
INDEX_TYPES = (torch.int64, torch.int32, torch.int16, torch.uint8)


def lazy_loss(
    logits: Tensor,
    targets: Tensor,
    threshold: float = 0.0,
    reduction: str = "batch",
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Softmax cross-entropy of the selected samples, and their number. Does not synchronise with the device.

    A sample is selected if argmax(logits) is not its target (Pache & van Rossum 2023, arXiv 2303.16067) or, with a
    `threshold` above 0, if its largest softmax is below it (1 selects all samples).

    Args:
        logits: (n, classes, ...) or (classes,).
        targets: Class indices (n, ...); or class probabilities of the logits' shape, where the most probable class
            is right (any of them, if there are several). Label smoothing does not change which class is right.
        reduction: `batch` divides by what cross_entropy's mean divides by, the whole batch, so that the other samples
            count as zero gradients; `selected` divides by the selected samples; `sum`; `none` gives (n, ...).
        weight: As in torch.nn.functional.cross_entropy.
        ignore_index: Likewise.
        label_smoothing: Likewise.

    Returns:
        The loss, and the number of selected targets as a 0-dimensional tensor.

    Raises:
        ValueError: The shapes do not fit, or the reduction is unknown.
    """
    _check_reduction(reduction)
    with torch.no_grad():
        selected, counted = _select(logits, targets, threshold, ignore_index)
    loss = _cross_entropy(logits, targets, selected, counted, reduction, weight, ignore_index, label_smoothing)
    return loss, selected.sum()


def lazy_bce(
    logits: Tensor,
    targets: Tensor,
    threshold: float = 0.0,
    reduction: str = "batch",
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy with logits of the selected elements, and their number.

    Every element has a target and is selected by itself; in logits of shape (n,) or (n, 1) an element is a sample. It
    is selected if its logit is not on its target's side: above 0 for a target above one half, below 0 for one below.
    A target of one half has no side and is always selected. With a `threshold` above 0 an element is also selected if
    the probability of its side is below it.

    Args:
        logits: Of any shape.
        targets: Of the same shape.
        reduction: As in `lazy_loss`.
        weight: As in torch.nn.functional.binary_cross_entropy_with_logits.
        pos_weight: Likewise.

    Returns:
        The loss, and the number of selected elements as a 0-dimensional tensor.

    Raises:
        ValueError: The shapes differ, or the reduction is unknown.
    """
    _check_reduction(reduction)
    with torch.no_grad():
        selected = _select_binary(logits, targets, threshold)
    return _binary_cross_entropy(logits, targets, selected, reduction, weight, pos_weight), selected.sum()


def is_wrong(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """Which targets are misclassified, and which are not ignored: (n, ...) bool each; shapes as in `lazy_loss`."""
    if logits.ndim == 0:
        raise ValueError("logits are a single number: pass logits, not a loss already computed")
    dim = class_dim(logits)
    if targets.is_floating_point():
        _check_shape(targets, logits, logits.shape)
        guess = logits.argmax(dim, keepdim=True)
        wrong = targets.gather(dim, guess).squeeze(dim) < targets.amax(dim)
        return wrong, torch.ones_like(wrong)
    _check_shape(targets, logits, logits.shape[:dim] + logits.shape[dim + 1 :])
    counted = targets != ignore_index
    return misclassified(logits, targets) & counted, counted


def _select(logits: Tensor, targets: Tensor, threshold: float, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The selected targets and those that count, (n, ...) bool each."""
    wrong, counted = is_wrong(logits, targets, ignore_index)
    if threshold == 1:  # a softmax can be rounded to 1, which is not below 1
        return counted, counted
    if threshold > 0:
        wrong = (wrong | ~(confidence(logits) >= threshold)) & counted
    return wrong, counted


def _select_binary(logits: Tensor, targets: Tensor, threshold: float) -> Tensor:
    """The selected elements, of the logits' shape."""
    if logits.shape != targets.shape:
        raise ValueError(f"targets of shape {tuple(targets.shape)} for logits of shape {tuple(logits.shape)}")
    if threshold == 1:
        return torch.ones_like(logits, dtype=torch.bool)
    selected = ~(logits * (targets - 0.5) > 0)
    if threshold > 0:
        selected |= ~(logits.float().abs().sigmoid() >= threshold)
    return selected


def _cross_entropy(
    logits: Tensor,
    targets: Tensor,
    selected: Tensor,
    counted: Tensor,
    reduction: str,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    each = F.cross_entropy(
        logits, targets, weight, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
    )
    share = torch.ones_like(each)
    if weight is not None and not targets.is_floating_point():
        share = weight[targets.masked_fill(~counted, 0)].to(each.dtype)
    return _reduce(each, selected, counted, share, reduction)


def _binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    selected: Tensor,
    reduction: str,
    weight: Tensor | None,
    pos_weight: Tensor | None,
) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none", pos_weight=pos_weight)
    return _reduce(each, selected, torch.ones_like(selected), torch.ones_like(each), reduction)


def _reduce(each: Tensor, selected: Tensor, counted: Tensor, share: Tensor, reduction: str) -> Tensor:
    """The reduced loss of the selected targets. `share`: what each target counts in a mean."""
    each = torch.where(selected, each, 0.0)  # not a product: an overflow elsewhere must not become NaN here
    if reduction in ("none", "sum"):
        return each if reduction == "none" else each.sum()
    divisor = torch.where(counted if reduction == "batch" else selected, share, 0.0).sum()
    return each.sum() / divisor.clamp_min(torch.finfo(each.dtype).tiny)


def _check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r}: must be batch, selected, sum or none")


def _check_shape(targets: Tensor, logits: Tensor, allowed: torch.Size) -> None:
    if targets.shape != allowed:
        raise ValueError(
            f"targets of shape {tuple(targets.shape)} for logits of shape {tuple(logits.shape)}: must be "
            "class indices without the dimension of the classes, or floating-point probabilities of the logits' shape"
        )


class _SelectiveLoss(nn.Module):
    """What `LazyLoss` and `MistakeGatedLoss` share: the wrapped criterion, and the selection in the last batch."""

    learned: Tensor
    selected: Tensor

    def __init__(
        self, criterion: nn.CrossEntropyLoss | nn.BCEWithLogitsLoss | None, threshold: float, reduction: str | None
    ) -> None:
        super().__init__()
        criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        _check_criterion(criterion, type(self).__name__)
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: must be from 0 to 1")
        self.criterion, self.threshold = criterion, threshold
        self.reduction = reduction or {"mean": "batch"}.get(criterion.reduction, criterion.reduction)
        _check_reduction(self.reduction)

    def any_learned(self) -> bool:
        """Whether any process selected a sample in its last batch; waits for the device.

        With torch.distributed all processes must call it, and all get the same answer, so that none of them skips a
        backward pass in which the others wait for its gradients. Without it, it is `bool(criterion.learned)`.
        """
        if rank_and_size()[1] == 1:
            return bool(self.learned)
        total = self.learned.clone()
        dist.all_reduce(total)
        return bool(total)

    def _mask(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The targets that are selected by themselves, and those that count: (n, ...) bool each."""
        if isinstance(self.criterion, nn.BCEWithLogitsLoss):
            selected = _select_binary(logits, targets, self.threshold)
            return selected, torch.ones_like(selected)
        return _select(logits, targets, self.threshold, self.criterion.ignore_index)

    def _loss(self, logits: Tensor, targets: Tensor, selected: Tensor, counted: Tensor) -> Tensor:
        """The loss of the `selected` targets, which are recorded."""
        self.learned = selected.sum()
        self.selected = per_sample(selected).any(1) if selected.ndim else selected
        own = self.criterion
        if isinstance(own, nn.BCEWithLogitsLoss):
            return _binary_cross_entropy(logits, targets, selected, self.reduction, own.weight, own.pos_weight)
        options = own.weight, own.ignore_index, own.label_smoothing
        return _cross_entropy(logits, targets, selected, counted, self.reduction, *options)


class LazyLoss(_SelectiveLoss):
    """A criterion of which only misclassified samples contribute: `LazyLoss(nn.CrossEntropyLoss())`.

    It wraps an nn.CrossEntropyLoss or nn.BCEWithLogitsLoss and keeps all of its options. After a call,
    `criterion.learned` is the number of selected samples (of selected targets, where a sample has several), a
    0-dimensional tensor, and `criterion.selected` (n,) bool tells which samples they are. Skip the step if there are
    none; otherwise momentum and weight decay still move the weights:

        loss = criterion(model(inputs), targets)
        if criterion.any_learned():
            loss.backward()
            optimizer.step()

    `any_learned` waits for the device, and for the other processes of torch.distributed. Leave the `if` out where
    waiting costs more than a zero step; with plain SGD the step then changes nothing.

    Args:
        threshold: Also select samples whose largest softmax is below this (1: all samples).
        reduction: As in `lazy_loss`; None: the criterion's, where `mean` is `batch`.

    Raises:
        TypeError: The criterion has no notion of wrong (regression), or is a loss already computed.
    """

    def __init__(
        self,
        criterion: nn.CrossEntropyLoss | nn.BCEWithLogitsLoss | None = None,
        threshold: float = 0.0,
        reduction: str | None = None,
    ) -> None:
        super().__init__(criterion, threshold, reduction)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits and targets, of the shapes that the criterion takes."""
        with torch.no_grad():
            selected, counted = self._mask(logits, targets)
        return self._loss(logits, targets, selected, counted)


class MistakeGatedLoss(_SelectiveLoss):
    """A criterion of which samples contribute that are misclassified now or ever were before: memorised mistake
    gating (Pache & van Rossum 2026, arXiv 2604.14336).

    Three lines of a loop change:

        loader = DataLoader(Indexed(train), batch_size=64, shuffle=True)
        criterion = MistakeGatedLoss(len(train), nn.CrossEntropyLoss())
        for index, (x, y) in loader:
            loss = criterion(model(x), y, index)

    The memory is the buffer `ever_wrong` (samples,) bool: it moves with `.to(device)` and is part of `state_dict`,
    so save and load the criterion with the model. A sample with several targets counts as misclassified if one of
    them is, and then all of its targets contribute. `learned`, `selected` and `any_learned` are as in `LazyLoss`. For
    validation call `criterion.criterion`, because every call of this loss updates the memory.

    With torch.distributed every process records what it sees; call `merge` in all of them before each epoch, since
    samples change their process from epoch to epoch.

    Args:
        samples: Size of the training set; `index` is from 0 to samples - 1.
        reduction: As in `LazyLoss`.

    Raises:
        TypeError: As `LazyLoss`.
        ValueError: `samples` is negative, or the index does not fit the batch.
    """

    ever_wrong: Tensor

    def __init__(
        self,
        samples: int,
        criterion: nn.CrossEntropyLoss | nn.BCEWithLogitsLoss | None = None,
        reduction: str | None = None,
    ) -> None:
        if not isinstance(samples, int) or samples < 0:
            raise ValueError(f"samples={samples}: must be the number of samples of the training set")
        super().__init__(criterion, 0.0, reduction)
        self.register_buffer("ever_wrong", torch.zeros(samples, dtype=torch.bool))

    def forward(self, logits: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        """The loss of logits and targets, of the shapes that the criterion takes; index (n,) int64: the samples."""
        with torch.no_grad():
            index = self._checked(torch.as_tensor(index), logits)
            if self.ever_wrong.device != logits.device:
                self.ever_wrong = self.ever_wrong.to(logits.device)
            wrong, counted = self._mask(logits, targets)
            # Accumulated, which for bool is a logical or: a sample can occur twice in a batch.
            self.ever_wrong.index_put_((index,), per_sample(wrong).any(1), accumulate=True)
            gate = self.ever_wrong[index]
            selected = gate.view(-1, *[1] * (counted.ndim - 1)) & counted
        return self._loss(logits, targets, selected, counted)

    def merge(self) -> None:
        """Merge the memories of all processes of torch.distributed; all of them must call it."""
        if rank_and_size()[1] == 1:
            return
        device = torch.device("cuda") if dist.get_backend() == "nccl" else self.ever_wrong.device
        marks = self.ever_wrong.to(device, torch.uint8)
        dist.all_reduce(marks, op=dist.ReduceOp.MAX)
        self.ever_wrong.copy_(marks)

    def _checked(self, index: Tensor, logits: Tensor) -> Tensor:
        """The index (n,) on the device of the logits. A GPU is not waited for: there PyTorch checks the range."""
        samples = len(self.ever_wrong)
        if index.ndim != 1 or logits.ndim == 0 or len(index) != len(logits) or index.dtype not in INDEX_TYPES:
            raise ValueError(
                f"index of shape {tuple(index.shape)} for logits of shape {tuple(logits.shape)}: must be (n,) whole "
                "numbers, one per sample; lazyexp.Indexed(dataset) adds it to every item"
            )
        if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < samples:
            raise ValueError(f"index from {int(index.min())} to {int(index.max())}: must be from 0 to {samples - 1}")
        return index.to(logits.device, torch.int64)


def per_sample(values: Tensor) -> Tensor:
    """(n, ...) as (n, number of targets of a sample)."""
    return values.unsqueeze(-1).flatten(1)


def _check_criterion(criterion: object, name: str) -> None:
    needed = f"{name} needs an nn.CrossEntropyLoss or nn.BCEWithLogitsLoss, which know right from wrong"
    if isinstance(criterion, Tensor):
        raise TypeError(f"{needed}, not a loss that has already been computed")
    if not isinstance(criterion, nn.Module):
        kind = getattr(criterion, "__name__", type(criterion).__name__)
        raise TypeError(f"{needed}, not {kind}, which returns a loss that is already reduced")
    kinds = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)
    if not any(isinstance(criterion, kind) and type(criterion).forward is kind.forward for kind in kinds):
        raise TypeError(f"{needed}, not {type(criterion).__name__}")
