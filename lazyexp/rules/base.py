"""What a rule is: an object that says who is visited and who learns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lazyexp.seeding import generator


def drawn(uniform: Tensor, odds: Tensor, number: int) -> Tensor:
    """(b,) bool: `number` members drawn without replacement with `odds` (b,), given `uniform` draws (b,) from 0 to 1.

    They have the largest u^(1 / odds) (Efraimidis & Spirakis 2006).
    """
    keys = uniform.log() / odds.clamp_min(torch.finfo(odds.dtype).tiny)
    chosen = keys.topk(number).indices
    return torch.zeros_like(uniform, dtype=torch.bool).index_fill_(0, chosen, True)


@dataclass(frozen=True)
class RunInfo:
    """What a rule may know of the run it serves."""

    samples: int
    batch_size: int
    epochs: int
    seed: int
    device: torch.device


class Judged:
    """A batch after its forward pass: `index` (b,), `logits` (b, classes), `targets` (b,).

    `learns` (b,) bool tells `Rule.remember` who was chosen to learn; before that it is None.
    """

    def __init__(self, index: Tensor, logits: Tensor, targets: Tensor, learns: Tensor | None = None) -> None:
        self.index, self.logits, self.targets, self.learns = index, logits, targets, learns

    @cached_property
    def wrong(self) -> Tensor:
        """(b,) bool: argmax(logits) is not the target."""
        return self.logits.argmax(1) != self.targets

    @cached_property
    def loss(self) -> Tensor:
        """(b,) softmax cross-entropy."""
        return F.cross_entropy(self.logits, self.targets, reduction="none")

    @cached_property
    def confidence(self) -> Tensor:
        """(b,) the largest softmax probability."""
        return self.logits.softmax(1).amax(1)


@dataclass
class Rule:
    """Everybody is visited and everybody learns, unless a subclass overrides one answer or both.

    A rule's options are its dataclass fields, with their bounds on them (see `lazyexp.schema.setting`). It is asked
    nothing else: batches, clocks and counters are not its business.
    """

    # False if `weigh` always says None: nobody needs to be asked.
    selects: ClassVar[bool] = True
    # True if a sample's own logits and target decide, so that samples may be judged in any grouping.
    pointwise: ClassVar[bool] = False
    # True if `weigh` reads nothing but `judged.index`: who learns is known before the forward pass.
    prior: ClassVar[bool] = False
    # True if `weigh` may be part of a CUDA graph, which repeats its calls on the same memory without Python: it reads
    # `judged` and tensors that are only ever changed in place, changes nothing and asks for no number.
    capturable: ClassVar[bool] = False
    # If not 0, those who are to learn wait until a full batch of them has come together, for at most a block of this
    # many samples; a subclass may make it an option.
    block: ClassVar[int] = 0
    # The precision in which a packed block is judged: float32 is the model's own, others see training/fast.
    judge: ClassVar[str] = "float32"
    # What the gradient of a batch is divided by unless optimizer.reduction says otherwise: `batch`, all presented,
    # or `selected`, those who learn; a published rule's is its authors'.
    reduction: ClassVar[str] = "batch"

    def check(self) -> None:
        """Raises UserError if options do not go together; each one's own bounds are held already."""

    def identity(self) -> dict[str, Any]:
        """What makes this rule another one than with its defaults: the options that differ from them."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    def start(self, info: RunInfo) -> None:
        """Called once before training."""
        self.info = info

    def visit(self, epoch: int) -> Tensor:
        """Training samples to present in this epoch, in order. Also the place to draw this epoch's chances.

        By default all of them, in an order that depends on seed and epoch alone; a rule that leaves some out
        keeps the others in this order, so that runs stay matched.
        """
        return torch.randperm(self.info.samples, generator=generator(self.info.seed, "order", epoch))

    def weigh(self, judged: Judged) -> Tensor | None:
        """(b,) bool or weights: who learns (not 0) and how much of its gradient counts; None: all, with 1."""
        return None

    def asked(self, judged: Judged) -> Tensor:
        """What `weigh` says, where the rule selects and must say something."""
        weight = self.weigh(judged)
        assert weight is not None
        return weight

    def remember(self, judged: Judged) -> None:
        """Told once, soon after, how every presented sample was judged when its turn came, and who learned."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run must be given back, by name."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes back what `state` gave."""
        for name, value in state.items():
            setattr(self, name, value.to(getattr(self, name).device))


@dataclass
class Backprop(Rule):
    """Everybody learns: the control."""

    selects: ClassVar[bool] = False
