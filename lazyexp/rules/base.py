"""The interface of a rule: which samples an epoch presents, and which of them update the weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.rules.scores import confidence, misclassified
from lazyexp.utils.seeding import generator


@dataclass(frozen=True)
class RunInfo:
    """What a rule may know about its run.

    `samples`: size of the training set. `positions` (samples,): of the training samples in the data set as it was
    read; None: 0, 1, ...
    """

    samples: int
    batch_size: int
    epochs: int
    seed: int
    device: torch.device
    positions: Tensor | None = None


class ScoredBatch:
    """A batch after its forward pass.

    `index` (b,) int64: positions in the training set. `logits` (b, classes). `targets` (b,) int64. `selected` (b,)
    bool: the samples that updated the weights; None until the rule has decided. `label_smoothing`: that of the loss.
    """

    def __init__(
        self,
        index: Tensor,
        logits: Tensor,
        targets: Tensor,
        selected: Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.index, self.logits, self.targets, self.selected = index, logits, targets, selected
        self.label_smoothing = label_smoothing

    @cached_property
    def wrong(self) -> Tensor:
        """(b,) bool: argmax(logits) is not the target."""
        return misclassified(self.logits, self.targets)

    @cached_property
    def loss(self) -> Tensor:
        """(b,) softmax cross-entropy, the loss that is minimised."""
        return F.cross_entropy(self.logits, self.targets, reduction="none", label_smoothing=self.label_smoothing)

    @cached_property
    def confidence(self) -> Tensor:
        """(b,) largest softmax probability."""
        return confidence(self.logits)

    @cached_property
    def target_probability(self) -> Tensor:
        """(b,) softmax probability of the target."""
        return self.logits.softmax(1).gather(1, self.targets.unsqueeze(1)).squeeze(1)


@dataclass
class Rule:
    """A sample-selection rule. By default every epoch presents all samples, shuffled, and all of them are selected.

    Override `epoch_indices` (which samples an epoch presents), `select` (which of the scored samples update the
    weights) or `preselect` (the same decision without a forward pass). A rule's options are its dataclass fields; see
    `lazyexp.config.fields.setting` for their bounds. Whatever a rule keeps between calls must be returned by `state`.
    """

    # Divisor of a batch's summed gradient unless optimizer.reduction is set: "batch" (all presented samples),
    # "selected", or "full_batch" (selected samples queue until a full batch of them is complete, then their mean).
    reduction: ClassVar[str] = "batch"
    # True if `select` depends on nothing but a sample's own logits, target and state, so that samples may be scored
    # in any grouping.
    pointwise: ClassVar[bool] = False
    # True if `select` may be captured in a CUDA graph: it reads the batch and tensors that are changed in place only,
    # changes nothing and needs no number on the host.
    capturable: ClassVar[bool] = False

    def check(self) -> None:
        """Raise UserError if options contradict each other. Bounds of single options are already checked."""

    def identity(self) -> dict[str, Any]:
        """The options that differ from their defaults; part of the run's identity."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def start(self, info: RunInfo) -> None:
        """Prepare for a run. Called once, before training."""
        self.info = info

    def epoch_indices(self, epoch: int) -> Tensor:
        """Training samples to present in this epoch, in order: (m,) int64, m >= 1.

        The default order depends on seed and epoch alone. A rule that drops samples keeps the order of the others, so
        that runs stay matched.
        """
        return torch.randperm(self.info.samples, generator=generator(self.info.seed, "order", epoch))

    def rate_factor(self, epoch: int) -> float:
        """Factor on the learning rate of the schedule in this epoch, for every optimizer; greater than 0.

        A weight of a gradient is not the same: Adam divides it out, and momentum and weight decay do not follow it.
        Called after `epoch_indices`.
        """
        return 1.0

    def preselect(self, index: Tensor) -> Tensor | None:
        """The decision of `select` for the samples `index` (b,) if it needs no forward pass, else None."""
        return None

    def select(self, batch: ScoredBatch) -> Tensor | None:
        """Decide which samples update the weights: (b,) bool, (b,) float weights of their gradients (0: not
        selected), or None: all samples, with weight 1."""
        return None

    def update(self, batch: ScoredBatch) -> None:
        """Update the rule's state after training on a chunk. `batch` holds each presented sample once, with the
        logits by which it was scored, and `batch.selected`."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that a resumed run needs, by attribute name."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for name, value in state.items():
            setattr(self, name, value.to(getattr(self, name).device))

    # Helpers for subclasses.

    def draws(self, epoch: int) -> Tensor:
        """(samples,) uniform random numbers in [0, 1) of this epoch, on the run's device."""
        numbers = torch.rand(self.info.samples, generator=generator(self.info.seed, "rule", epoch))
        return numbers.to(self.info.device)

    def elapsed(self, epoch: int, batch: int) -> float:
        """Share of the run that has passed before batch number `batch` of `epoch`."""
        return (epoch + batch * self.info.batch_size / self.info.samples) / self.info.epochs


def mask_of(positions: Tensor, like: Tensor) -> Tensor:
    """Boolean mask of the shape of `like` (b,) that is True at `positions` (k,) int64."""
    return torch.zeros_like(like, dtype=torch.bool).index_fill_(0, positions, True)


def random_members(draws: Tensor, number: Tensor) -> Tensor:
    """(b,) bool: the `number` members with the smallest `draws` (b,); needs no number on the host."""
    return draws.argsort().argsort() < number


def weighted_sample(uniform: Tensor, odds: Tensor, number: int) -> Tensor:
    """(b,) bool: `number` members drawn without replacement with `odds` (b,), given `uniform` draws (b,) in [0, 1).

    The members with the largest u^(1 / odds) (Efraimidis & Spirakis 2006).
    """
    keys = uniform.log() / odds.clamp_min(torch.finfo(odds.dtype).tiny)
    return mask_of(keys.topk(number).indices, uniform)
