"""SeTa, BLS, RePB and RHO-Loss against their authors' definitions, computed by hand for a few samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import only_run, rows
from test_published import losses
from test_rules import started

from lazyexp.errors import UserError
from lazyexp.rules import RunInfo, ScoredBatch, make_rule
from lazyexp.rules.seta import clusters

CPU = torch.device("cpu")


def present(rule, epoch: int, values: dict[int, float] | list[float]) -> list[int]:
    """Present an epoch in which sample i has the loss values[i]. Returns the samples presented, sorted."""
    order = rule.epoch_indices(epoch)
    rule.update(ScoredBatch(order, *losses(*[values[i] for i in order.tolist()])))
    return sorted(order.tolist())


def test_seta_slides_a_window_from_easy_to_hard():
    values = [loss + 0.01 * i for i in range(3) for loss in (1.0, 2.0, 5.0, 9.0)]  # four clear groups of three
    groups = [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    rule = started("seta", samples=12, epochs=16, ratio=0.0, groups=4, window=0.5)
    shown = [present(rule, epoch, values) for epoch in range(16)]
    everything = sorted(sum(groups, []))
    assert shown[0] == everything  # the first epoch has no window
    for epoch in range(1, 14):
        assert shown[epoch] == sorted(sum(groups[epoch % 3 : epoch % 3 + 2], [])), epoch
    assert shown[14] == shown[15] == everything  # beyond 0.875 of the epochs


def test_seta_takes_a_random_share_first():
    rule = started("seta", samples=1000, epochs=8, ratio=0.3, groups=1, window=1.0)
    shown = [rule.epoch_indices(epoch) for epoch in range(8)]
    assert [len(order) for order in shown] == [700] * 8  # also at the end, as in the authors' code
    assert set(shown[0].tolist()) != set(shown[1].tolist())


def test_groups_of_equal_or_few_losses():
    assert [len(part) for part in clusters(torch.full((10,), 3.0), 4)] == [3, 3, 3, 1]
    few = clusters(torch.tensor([1.0, 1.0, 2.0]), 3)
    assert [part.tolist() for part in few] == [[0, 1], [2]]


def test_seta_needs_more_samples_than_groups():
    with pytest.raises(UserError, match="rule.groups=5: must be fewer than the samples"):
        started("seta", samples=6)


def test_bls_scores_a_sample_by_the_mean_losses_of_its_batches():
    rule = started("bls", samples=4, batch_size=2, epochs=8, alpha=0.9, ratio=0.5)
    values = [1.0, 2.0, 3.0, 4.0]
    first = rule.epoch_indices(0).tolist()
    assert len(first) == 4 and rule.preselect(torch.arange(4)).tolist() == [1] * 4
    rule.update(ScoredBatch(torch.tensor(first), *losses(*[values[i] for i in first])))
    means = [(values[first[0]] + values[first[1]]) / 2, (values[first[2]] + values[first[3]]) / 2]
    expected = dict(zip(first, [0.1 * means[0]] * 2 + [0.1 * means[1]] * 2, strict=True))
    assert rule.state()["score"].tolist() == pytest.approx([expected[i] for i in range(4)], abs=1e-5)
    second = rule.epoch_indices(1).tolist()  # infobatch keeps one of the two below the mean, with weight 2
    easy = set(first[:2] if means[0] < means[1] else first[2:])
    (kept,) = easy & set(second)
    assert len(second) == 3
    weight = {i: 2.0 if i == kept else 1.0 for i in second}
    batches = [second[:2], second[2:]]
    wanted = {i: sum(weight[j] for j in batch) / len(batch) for batch in batches for i in batch}
    assert rule.preselect(torch.tensor(second)).tolist() == pytest.approx([wanted[i] for i in second])
    rule.update(ScoredBatch(torch.tensor(second), *losses(1.0, 3.0, 7.0)))
    assert float(rule.state()["score"][second[0]]) == pytest.approx(0.9 * expected[second[0]] + 0.1 * 2, abs=1e-5)
    assert float(rule.state()["score"][second[2]]) == pytest.approx(0.9 * expected[second[2]] + 0.1 * 7, abs=1e-5)


def test_bls_of_seta_uses_its_groups():
    rule = started("bls", samples=8, batch_size=2, epochs=16, method="seta", ratio=0.0, groups=4, window=0.5)
    order = rule.epoch_indices(0).tolist()
    rule.update(ScoredBatch(torch.tensor(order), *losses(1, 1, 2, 2, 5, 5, 9, 9)))
    assert sorted(rule.epoch_indices(1).tolist()) == sorted(order[2:6])
    assert rule.preselect(torch.arange(8)).tolist() == [1] * 8


@pytest.mark.parametrize("window", [1, 2])
def test_repb_compares_losses_within_a_window(window):
    samples, ratio, size = 12, 0.4, 3
    rule = started("repb", samples=samples, batch_size=size, epochs=6, ratio=ratio, window=window)
    rule.start(RunInfo(samples, size, 6, 0, CPU))
    values = [float((7 * i) % samples) + 0.5 for i in range(samples)]
    inside, count = set(range(samples)), [0] * samples
    for epoch in range(5):
        order = rule.epoch_indices(epoch).tolist()
        assert set(order) == inside
        count = [number + (i in inside) for i, number in enumerate(count)]
        weights = rule.preselect(torch.tensor(order)).tolist()
        assert weights == pytest.approx([(epoch + 1) / count[i] for i in order])
        rule.update(ScoredBatch(torch.tensor(order), *losses(*[values[i] for i in order])))
        draws, following = rule.draws(epoch + 1).tolist(), set()
        for start in range(0, len(order), window * size):
            part = order[start : start + window * size]
            mean = sum(values[i] for i in part) / len(part)
            following |= {i for i in part if values[i] >= mean - 1e-5 or draws[i] >= ratio}
        following |= {i for i in range(samples) if i not in inside and draws[i] < 1 - ratio}
        inside = following
    assert min(count) < 5 < samples  # some samples were dropped


def test_rho_loss_selects_the_largest_reducible_losses(tmp_path):
    np.save(tmp_path / "losses.npy", np.array([9.0, 0.1, 1.9, 0.5, 0.0]))
    rule = make_rule({"name": "rho_loss", "keep": 0.5, "irreducible": str(tmp_path / "losses.npy")})
    rule.start(RunInfo(4, 4, 1, 0, CPU, torch.tensor([1, 2, 3, 4])))
    batch = ScoredBatch(torch.arange(4), *losses(0.5, 2.0, 3.0, 0.1))  # reducible: 0.4, 0.1, 2.5, 0.1
    assert rule.select(batch).tolist() == [True, False, True, False]
    plain = started("rho_loss", keep=0.5)
    assert plain.select(batch).tolist() == [False, True, True, False]
    one = started("rho_loss", keep=0.1)
    assert one.select(batch).sum() == 1 and started("rho_loss", keep=1.0).select(batch).all()


def test_irreducible_losses_are_part_of_the_run(tmp_path):
    names = []
    for number in (0, 1):
        np.save(tmp_path / f"{number}.npy", np.full(5, float(number)))
        names.append(make_rule({"name": "rho_loss", "irreducible": str(tmp_path / f"{number}.npy")}).identity())
    assert names[0] != names[1]
    for content, message in ((np.ones((2, 2)), "one float for every"), (np.arange(3), "one float for every")):
        np.save(tmp_path / "bad.npy", content)
        with pytest.raises(UserError, match=message):
            make_rule({"name": "rho_loss", "irreducible": str(tmp_path / "bad.npy")})
    with pytest.raises(UserError, match="not a readable .npy"):
        make_rule({"name": "rho_loss", "irreducible": str(tmp_path / "none.npy")})
    short = make_rule({"name": "rho_loss", "irreducible": str(tmp_path / "1.npy")})
    with pytest.raises(UserError, match="lacks the losses of some training samples"):
        short.start(RunInfo(6, 4, 1, 0, CPU))


@pytest.mark.slow
def test_rho_loss_trains_on_the_mean_of_the_selected(call, tmp_path):
    assert call("rule=rho_loss", "batch_size=32", "epochs=2", "dataset.train_size=320").code == 0
    row = rows(only_run(tmp_path) / "summary.csv")[0]
    assert int(row["backward_samples"]) == 2 * 10 * 3 and int(row["updates"]) == 20
