"""Coresets: training samples chosen by the scores that other runs wrote to learned.npz."""

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

# The arrays of learned.npz that a score needs.
SCORES = {
    "learned": ("learned",),
    "forgetting": ("forgotten", "presented", "misclassified"),
    "el2n": ("el2n",),
}


STRATA = 50


def scorers(subset: str) -> list[Path]:
    """The files learned.npz of `dataset.subset`: one path, or several by wildcards. Raises UserError if none exists.

    A file of exactly that name is read even if the name has brackets.
    """
    name = os.path.expanduser(subset)
    pattern = glob.has_magic(name) and not Path(name).is_file()
    found = [Path(path) for path in sorted(glob.glob(name))] if pattern else [Path(name)]
    if not found:
        raise UserError(f"dataset.subset={subset}: no such files")
    return found


def choose(
    paths: list[Path],
    index: Tensor,
    available: int,
    sha256: str,
    score: str,
    size: int | None,
    cutoff: float | None = None,
) -> Tensor:
    """The samples of `index` with the highest scores, averaged over the runs that wrote `paths` (learned.npz).

    With a `cutoff` the share with the highest scores is left out and the others are chosen by `stratified`.
    `size` None: as many as the run selected, for a single run. Ties are broken at random, equally in every run.
    Forgetting: a sample that was never classified correctly ranks first (Toneva et al. 2019). `available` and
    `sha256` are those of the whole data set. Raises UserError.
    """
    shown = "+".join(map(str, paths)) if len(paths) < 3 else f"{paths[0]} and {len(paths) - 1} more"
    if size is None and len(paths) > 1:
        raise UserError(f"dataset.subset={shown}: several runs score; set dataset.subset_size")
    scores, counts = zip(*(_scores(path, available, sha256, score) for path in paths), strict=True)
    values = torch.stack(scores).mean(0)
    candidates = index[values[index] > (0 if score == "learned" else -torch.inf)]
    wanted = int((counts[0][index] > 0).sum()) if size is None else size
    if not 0 < wanted <= len(candidates):
        raise UserError(
            f"dataset.subset={shown}: {wanted} of the training samples are wanted, {len(candidates)} were "
            f"{'selected' if score == 'learned' else 'scored'} there"
        )
    shuffled = candidates[torch.randperm(len(candidates), generator=generator(0, "subset_score"))]
    ranked = values[shuffled].argsort(descending=True, stable=True)
    if cutoff is not None:
        kept = shuffled[ranked[int(cutoff * len(ranked)) :]]
        if wanted > len(kept):
            raise UserError(f"dataset.subset_size={wanted}: larger than the {len(kept)} samples after subset_cutoff")
        return kept[stratified(values[kept], wanted)].sort().values
    return shuffled[ranked[:wanted]].sort().values


def stratified(scores: Tensor, size: int) -> Tensor:
    """Positions (size,) of samples spread evenly over 50 intervals of the scores (n,), at random within each.

    Coverage-centric coreset selection (Zheng et al., ICLR 2023, arXiv 2210.15809) as in the authors' code: the
    intervals share the size evenly, and what a small one cannot use is left to the larger ones. An infinite score
    counts as the highest finite one plus 1.
    """
    finite = scores[scores.isfinite()]
    highest = finite.max() if len(finite) else scores.new_zeros(())
    scores = scores.nan_to_num(posinf=float(highest) + 1)
    low, high = scores.min(), scores.max()
    strata = ((scores - low) / (high - low) * STRATA).nan_to_num().long().clamp_max(STRATA - 1)
    shuffled = torch.randperm(len(scores), generator=generator(0, "ccs"))
    groups = [shuffled[strata[shuffled] == stratum] for stratum in range(STRATA)]
    chosen = []
    for number, group in enumerate(sorted(groups, key=len)):
        chosen.append(group[: size // (STRATA - number)])
        size -= len(chosen[-1])
    return torch.cat(chosen)


def _scores(path: Path, available: int, sha256: str, score: str) -> tuple[Tensor, Tensor]:
    """(available,) scores of one run, -inf for samples that it did not train on, and how often it selected each."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            positions, learned, origin = archive["index"], archive["learned"], str(archive["data_sha256"])
            _check(path, positions, learned, available)
            arrays = {name: archive[name] for name in SCORES[score]}
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"dataset.subset={path}: not a readable learned.npz ({reason})") from None
    if origin != sha256:
        raise UserError(f"dataset.subset={path}: was written by a run on another data set")
    for name, array in arrays.items():
        if array.shape != learned.shape or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise UserError(f"dataset.subset={path}: `{name}` is not one number per sample")
    values, counts = torch.full((available,), -torch.inf, dtype=torch.float64), torch.zeros(available)
    where = torch.from_numpy(positions.astype(np.int64))
    values[where] = torch.from_numpy(arrays[SCORES[score][0]].astype(np.float64))
    counts[where] = torch.from_numpy(learned.astype(np.float32))
    if score == "forgetting":
        never = (arrays["presented"] > 0) & (arrays["presented"] == arrays["misclassified"])
        values[where[torch.from_numpy(never)]] = torch.inf
    return values, counts


def _check(path: Path, positions: np.ndarray, learned: np.ndarray, available: int) -> None:
    """Refuse arrays that no run writes: `index` must be positions, each at most once. Raises UserError."""
    for name, array in (("index", positions), ("learned", learned)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise UserError(f"dataset.subset={path}: `{name}` is not one-dimensional whole numbers")
        if len(array) and array.min() < 0:
            raise UserError(f"dataset.subset={path}: `{name}` has negative entries")
    if len(positions) != len(learned) or len(np.unique(positions)) != len(positions):
        raise UserError(f"dataset.subset={path}: `index` and `learned` do not belong to one set of samples")
    if len(positions) and positions.max() >= available:
        raise UserError(f"dataset.subset={path}: `index` goes beyond the {available} training samples")
