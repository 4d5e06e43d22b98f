"""CCS's stratified choice of a subset, on scores for which the numbers per interval are known."""

from __future__ import annotations

import numpy as np
import torch

from lazyexp.config.schema import DatasetConfig
from lazyexp.data import load_data
from lazyexp.data.subset import stratified

SCORES = torch.tensor([0.0] * 10 + [25.0] * 3 + [50.0])


def counts(chosen: torch.Tensor) -> list[int]:
    return [int((SCORES[chosen] == value).sum()) for value in (0, 25, 50)]


def test_intervals_share_the_size_and_the_smallest_are_filled_first():
    """A third of 8 is 2, of which the interval of one sample uses 1; half of the other 7 is 3; the rest is 4."""
    chosen = stratified(SCORES, 8)
    assert counts(chosen) == [4, 3, 1] and len(set(chosen.tolist())) == 8
    assert counts(stratified(SCORES, 14)) == [10, 3, 1]
    assert torch.equal(chosen, stratified(SCORES, 8))  # the same in every run


def test_equal_and_infinite_scores():
    assert len(stratified(torch.ones(20), 7)) == 7
    mixed = torch.tensor([0.0] * 50 + [torch.inf])
    assert 50 in stratified(mixed, 2).tolist()


def test_a_data_set_of_a_stratified_choice(tmp_path):
    everything = load_data(DatasetConfig(), "", torch.device("cpu"))
    scores = np.zeros(1437, np.int32)
    scores[:100], scores[100:110] = 5, 10
    path = tmp_path / "learned.npz"
    np.savez(path, index=everything.index.numpy(), learned=scores, data_sha256=np.array(everything.sha256))
    chosen = DatasetConfig(subset=str(path), subset_size=20, subset_choice="ccs")
    assert sum(scores[load_data(chosen, "", torch.device("cpu")).index.numpy()] == 10) == 10
    chosen.subset_cutoff = 0.1  # 11 of the 110 samples with a score
    assert not any(scores[load_data(chosen, "", torch.device("cpu")).index.numpy()] == 10)


def test_the_keys_need_a_subset(call):
    assert "dataset.subset_choice=ccs: must be top without" in call("dataset.subset_choice=ccs").err
    assert "dataset.subset_cutoff=0.1: must be 0 unless" in call("dataset.subset_cutoff=0.1").err
