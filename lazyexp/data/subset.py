"""Training samples chosen by what another run wrote about them: a coreset."""

from __future__ import annotations

import glob
import os
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.utils.seeding import generator

# Which arrays of learned.npz a score needs.
SCORES = {
    "learned": ("learned",),
    "forgetting": ("forgotten", "presented", "misclassified"),
    "el2n": ("el2n",),
}


def scorers(subset: str) -> list[Path]:
    """The learned.npz that `dataset.subset` names, several with wildcards. Raises UserError if there are none."""
    name = os.path.expanduser(subset)
    found = [Path(path) for path in sorted(glob.glob(name))] if glob.has_magic(name) else [Path(name)]
    if not found:
        raise UserError(f"dataset.subset={subset}: no such files")
    return found


def choose(paths: list[Path], index: Tensor, available: int, sha256: str, score: str, size: int | None) -> Tensor:
    """Those of the samples `index` that the runs which wrote `paths` (learned.npz) have scored highest, in the mean.

    `size` None: as many as the run learned from, if it is one. Equal scores: at random, the same in every run.
    Forgetting: a sample that was never right counts as forgotten most (Toneva et al. 2019). `available` and `sha256`
    are those of the published set. Raises UserError.
    """
    told = "+".join(map(str, paths)) if len(paths) < 3 else f"{paths[0]} and {len(paths) - 1} more"
    if size is None and len(paths) > 1:
        raise UserError(f"dataset.subset={told}: several runs score; set dataset.subset_size")
    scores, counts = zip(*(_scores(path, available, sha256, score) for path in paths), strict=True)
    values = torch.stack(scores).mean(0)
    candidates = index[values[index] > (0 if score == "learned" else -torch.inf)]
    wanted = int((counts[0][index] > 0).sum()) if size is None else size
    if not 0 < wanted <= len(candidates):
        raise UserError(
            f"dataset.subset={told}: {wanted} of the training samples are wanted, {len(candidates)} were "
            f"{'learned from' if score == 'learned' else 'scored'} there"
        )
    shuffled = candidates[torch.randperm(len(candidates), generator=generator(0, "subset_score"))]
    ranked = values[shuffled].argsort(descending=True, stable=True)
    return shuffled[ranked[:wanted]].sort().values


def _scores(path: Path, available: int, sha256: str, score: str) -> tuple[Tensor, Tensor]:
    """(available,) scores by one run, -inf of samples that it has not seen, and how often it learned from each."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            places, learned, origin = archive["index"], archive["learned"], str(archive["data_sha256"])
            _check(path, places, learned, available)
            arrays = {name: archive[name] for name in SCORES[score]}
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"dataset.subset={path}: not a readable learned.npz ({reason})") from None
    if origin != sha256:
        raise UserError(f"dataset.subset={path}: was written by a run on other data")
    for name, array in arrays.items():
        if array.shape != learned.shape or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise UserError(f"dataset.subset={path}: `{name}` is not a row of numbers, one per sample")
    values, counts = torch.full((available,), -torch.inf, dtype=torch.float64), torch.zeros(available)
    where = torch.from_numpy(places.astype(np.int64))
    values[where] = torch.from_numpy(arrays[SCORES[score][0]].astype(np.float64))
    counts[where] = torch.from_numpy(learned.astype(np.float32))
    if score == "forgetting":
        never = (arrays["presented"] > 0) & (arrays["presented"] == arrays["misclassified"])
        values[where[torch.from_numpy(never)]] = torch.inf
    return values, counts


def _check(path: Path, places: np.ndarray, learned: np.ndarray, available: int) -> None:
    """Refuses arrays that no run has written: an index must be one, and name every sample at most once."""
    for name, array in (("index", places), ("learned", learned)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise UserError(f"dataset.subset={path}: `{name}` is not a row of whole numbers")
        if len(array) and array.min() < 0:
            raise UserError(f"dataset.subset={path}: `{name}` has negative entries")
    if len(places) != len(learned) or len(np.unique(places)) != len(places):
        raise UserError(f"dataset.subset={path}: `index` and `learned` do not belong to one set of samples")
    if len(places) and places.max() >= available:
        raise UserError(f"dataset.subset={path}: `index` goes beyond the {available} training samples")
