"""Faults in the training set, made on purpose: wrong labels and rare classes.

Which samples are hit depends on the data and the settings alone, not on a run's seed, and a smaller fault is
contained in a larger one. Test and validation samples are left as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazyexp.utils.seeding import generator


def make_imbalanced(targets: Tensor, index: Tensor, ratio: float, classes: int) -> Tensor:
    """Those of the samples `index` (n,) that are left when class c of C keeps the share ratio^(c / (C - 1)).

    Exponential class sizes (Cui et al. 2019, arXiv 1901.05555): of balanced data the last class keeps `ratio` as many
    as the first one. `targets` (all,) are the labels of the published set. At least one sample of a class is left.
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
    """Labels of the samples `index` (n,) of which a `share`, rounded, is wrong, and (n,) bool which ones they are.

    Symmetric noise: a wrong label is any of the others with the same probability.
    """
    draws = generator(0, "label_noise")
    rank = torch.rand(len(targets), generator=draws)[index].argsort().argsort()
    step = torch.randint(1, max(classes, 2), (len(targets),), generator=draws)[index]
    wrong = rank < round(share * len(index))
    return torch.where(wrong, (targets[index] + step) % classes, targets[index]), wrong
