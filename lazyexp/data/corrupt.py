"""Faults in the training set for experiments: wrong labels and rare classes.

The affected samples depend on the data and the settings alone, not on a run's seed; those of a smaller share are
among those of a larger one. Test and validation samples are not changed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyexp.utils.seeding import generator


def make_imbalanced(targets: Tensor, index: Tensor, ratio: float, classes: int) -> Tensor:
    """The samples `index` (n,), reduced so that class c of C keeps the share ratio^(c / (C - 1)).

    Exponential class sizes (Cui et al. 2019, arXiv 1901.05555): of balanced data the last class keeps `ratio` times
    as many samples as the first one. `targets` (all,) are the labels of the whole data set. Every class keeps at
    least one sample.
    """
    if ratio == 1:
        return index
    shuffled = index[torch.randperm(len(index), generator=generator(0, "imbalance"))]
    kept = []
    for label in range(classes):
        members = shuffled[targets[shuffled] == label]
        kept.append(members[: max(round(len(members) * ratio ** (label / max(classes - 1, 1))), 1)])
    return torch.cat(kept).sort().values


def add_label_noise(targets: Tensor, index: Tensor, share: float, classes: int) -> tuple[Tensor, Tensor]:
    """Labels of the samples `index` (n,) with a `share` (rounded) of wrong ones, and (n,) bool: which are wrong.

    Symmetric noise: a wrong label is any of the others with equal probability.
    """
    draws = generator(0, "label_noise")
    rank = torch.rand(len(targets), generator=draws)[index].argsort().argsort()
    step = torch.randint(1, max(classes, 2), (len(targets),), generator=draws)[index]
    wrong = rank < round(share * len(index))
    return torch.where(wrong, (targets[index] + step) % classes, targets[index]), wrong
