"""Evaluation of a model: accuracy, worst class and calibration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lazyexp.data import Samples
from lazyexp.data.pieces import rows_at_once
from lazyexp.rules import scores
from lazyexp.training.fast.layers import Layers
from lazyexp.training.guards import forward
from lazyexp.training.modes import eval_mode

BINS = 15


@dataclass(frozen=True)
class Quality:
    """Quality of a model on labelled samples.

    `worst_class_accuracy`: the lowest accuracy of the classes that occur. `calibration_error`: expected calibration
    error; samples are sorted into 15 bins of equal width by their largest softmax, and the distances between a bin's
    accuracy and its mean confidence are averaged, weighted by samples (Guo et al. 2017, arXiv 1706.04599, equation
    3). `counts` and `correct`: samples, and samples classified correctly, of every class. `loss`: mean cross-entropy.
    `predictions` (n,) and `confidences` (n,) float32, the largest softmax, of every sample.
    """

    accuracy: float
    worst_class_accuracy: float
    calibration_error: float
    loss: float
    predictions: Tensor
    confidences: Tensor
    counts: list[float]
    correct: list[float]


@torch.inference_mode()
def evaluate(model: nn.Module, samples: Samples) -> Quality:
    """Evaluate `model` on `samples`, in one pass and one transfer from the device.

    Raises UserError if the model changes its inputs in place.
    """
    classes: Tensor | None = None
    bins = torch.zeros(4, BINS, dtype=torch.float64, device=samples.targets.device)
    predictions, confidences = [], []
    for logits, targets in _outputs(model, samples):
        if classes is None:
            classes = bins.new_zeros(2, logits.shape[1])
        predictions.append(logits.argmax(1))
        right = (~scores.misclassified(logits, targets)).double()
        classes.index_add_(1, targets, torch.stack([torch.ones_like(right), right]))
        confidence = scores.confidence(logits).double().nan_to_num(0.0)
        bins[3, 0] += cross_entropy(logits.double(), targets, reduction="sum")
        confidences.append(confidence.float())
        which = (confidence * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
        bins[:3].index_add_(1, which, torch.stack([torch.ones_like(right), right, confidence]))
    assert classes is not None
    (counts, correct), (sizes, hits, sums, losses) = classes.tolist(), bins.tolist()
    total = sum(counts)
    gaps = (abs(hit - confidence) for hit, confidence in zip(hits, sums, strict=True))
    return Quality(
        accuracy=int(sum(correct)) / int(total),
        worst_class_accuracy=min(hit / count for count, hit in zip(counts, correct, strict=True) if count),
        calibration_error=sum(gaps) / sum(sizes),
        loss=losses[0] / total,
        predictions=torch.cat(predictions),
        confidences=torch.cat(confidences),
        counts=counts,
        correct=correct,
    )


@torch.inference_mode()
def accuracy(model: nn.Module, samples: Samples) -> float:
    """Share of `samples` that the model classifies correctly.

    Raises UserError if the model changes its inputs in place.
    """
    correct = torch.zeros((), dtype=torch.int64, device=samples.targets.device)
    for logits, targets in _outputs(model, samples):
        correct += (~scores.misclassified(logits, targets)).sum()
    return int(correct) / len(samples)


def _outputs(model: nn.Module, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and targets of all samples, part by part, of the model in evaluation mode."""
    plain = Layers(model) if Layers.fit(model) else None
    # A deep network keeps several times the size of its inputs.
    size = min(4096 if plain else 512, rows_at_once(samples.shape, 2**25 if plain else 2**22))
    with eval_mode(model):
        for start in range(0, len(samples), size):
            # Tensors of inference mode do not count changes, and a custom model may keep them for its training.
            with torch.inference_mode(False), torch.no_grad():
                inputs, targets = samples.part(start, start + size)
                if inputs.untyped_storage().data_ptr() == samples.pixels.untyped_storage().data_ptr():
                    inputs = inputs.clone()  # a view of the data, which a model must not be able to change
                logits = forward(model, inputs) if plain is None else plain.logits(inputs)
            yield logits, targets
