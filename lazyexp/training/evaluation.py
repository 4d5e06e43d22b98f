"""How good a network is: accuracy, its worst class, and whether its confidence can be believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lazyexp.data import Samples
from lazyexp.training.fast.layers import Layers
from lazyexp.training.modes import eval_mode

BINS = 15


@dataclass(frozen=True)
class Quality:
    """`worst_class_accuracy` is that of the class with the lowest one, of those that occur; `calibration_error` the
    expected calibration error: samples are sorted into 15 bins of equal width by their largest softmax, and the
    distances between a bin's accuracy and its mean confidence averaged, weighted by samples (Guo et al. 2017, arXiv
    1706.04599, equation 3).
    """

    accuracy: float
    worst_class_accuracy: float
    calibration_error: float


@torch.inference_mode()
def evaluate(model: nn.Module, images: Samples) -> Quality:
    """The quality of `model` on `images`, in one pass and one transfer."""
    classes: Tensor | None = None
    bins = torch.zeros(3, BINS, dtype=torch.float64, device=images.targets.device)
    for logits, targets in _outputs(model, images):
        if classes is None:
            classes = bins.new_zeros(2, logits.shape[1])
        right = (logits.argmax(1) == targets).double()
        classes.index_add_(1, targets, torch.stack([torch.ones_like(right), right]))
        confidence = logits.softmax(1).amax(1).double().nan_to_num(0.0)
        place = (confidence * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
        bins.index_add_(1, place, torch.stack([torch.ones_like(right), right, confidence]))
    assert classes is not None
    (counts, correct), (size, hits, confidences) = classes.tolist(), bins.tolist()
    total = sum(counts)
    return Quality(
        accuracy=int(sum(correct)) / int(total),
        worst_class_accuracy=min(hit / count for count, hit in zip(counts, correct, strict=True) if count),
        calibration_error=sum(abs(hit - sure) for hit, sure in zip(hits, confidences, strict=True)) / sum(size),
    )


@torch.inference_mode()
def accuracy(model: nn.Module, images: Samples) -> float:
    """Share of `images` that the model classifies correctly."""
    correct = torch.zeros((), dtype=torch.int64, device=images.targets.device)
    for logits, targets in _outputs(model, images):
        correct += (logits.argmax(1) == targets).sum()
    return int(correct) / len(images)


def _outputs(model: nn.Module, images: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and targets of all images, part by part, of the network in evaluation mode."""
    size = 4096 if Layers.fit(model) else 512  # what a deep network keeps of a sample can be megabytes
    with eval_mode(model):
        for start in range(0, len(images), size):
            inputs, targets = images.part(start, start + size)
            yield model(inputs), targets
