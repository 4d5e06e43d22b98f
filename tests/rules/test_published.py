"""Each published rule against its authors' code, computed by hand for a few samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import only_run, rows
from test_rules import run_through, scored, started, with_mistakes

from lazyexp.config.schema import Config, OptimizerConfig
from lazyexp.config.validation import check
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.rules import RULES, Rule, ScoredBatch, make_rule
from lazyexp.training.engine import EngineSpec
from lazyexp.training.selection import Selector

# test_rules.LOGITS has the losses 0.31, 0.69, 10, 0.13 and these softmaxes of the targets: 0.73, 0.5, 5e-5, 0.88.


def losses(*values):
    """Logits of two classes with these losses for target 0, and their targets."""
    probability = torch.tensor([-float(value) for value in values]).exp()
    logits = torch.stack([probability.logit(), torch.zeros(len(values))], 1)
    return logits, torch.zeros(len(values), dtype=torch.int64)


def test_divisors_are_those_of_the_authors():
    reductions = {name: rule.reduction for name, rule in RULES.items()}
    for name in (
        "progressive",
        "top_loss",
        "composer_selective_backprop",
        "kakurenbo",
        "early_stopping",
        "smrd",
        "rho_loss",
    ):
        assert reductions[name] == "selected", name
    others = (
        "backprop",
        "lazy",
        "confidence",
        "random",
        "mistake_gated",
        "spaced",
        "infobatch",
        "order_dp",
        "srd",
        "seta",
        "bls",
        "repb",
    )
    for name in others:
        assert reductions[name] == "batch", name


@pytest.mark.parametrize("engine", ["autograd", "fast"])
@pytest.mark.parametrize("setting, divisor", [(None, 1), ("batch", 2), ("selected", 1)])
def test_a_setting_overrides_the_divisor(setting, divisor, engine, tmp_path):
    """One step of top_loss on two samples, of which one is selected, bias by bias."""
    changes = []
    for q, reduction in ((1, setting), (1, "batch")):
        config = Config(epochs=1, batch_size=2, engine=engine, device="cpu", runs_dir=str(tmp_path / str(reduction)))
        config.rule, config.optimizer = {"name": "top_loss", "q": q}, OptimizerConfig(reduction=reduction)
        config.model.width, config.dataset.train_size, config.overwrite = 5, 2, True
        report = run(check(config))
        before = make_model(config.model, (1, 8, 8), 10, 0).state_dict()
        after = torch.load(report.folder / "model.pt")
        changes.append((after["3.bias"] - before["3.bias"]).abs().sum())
    assert float(changes[0] / changes[1]) == pytest.approx(2 / divisor, rel=1e-4)


def test_random_can_divide_by_the_selected_samples():
    rule = make_rule({"name": "random"})
    spec = EngineSpec(torch.nn.Linear(1, 1), None, rule, OptimizerConfig(reduction="selected"), 4, None)
    assert spec.reduction == "selected" and rule.reduction == "batch"


@pytest.mark.parametrize(
    "threshold, expected", [(0.3, [0, 0, 1, 0]), (0.6, [0, 1, 1, 0]), (0.8, [1, 1, 1, 0]), (0.0, [0, 0, 1, 0])]
)
def test_progressive_depends_on_the_target_probability_alone(threshold, expected):
    assert started("progressive", epochs=2, threshold=threshold).select(scored()).int().tolist() == expected
    # A sample that is wrong with a target probability above the threshold is not selected.
    between = ScoredBatch(torch.tensor([0]), torch.tensor([[1.0, 1.1]]), torch.tensor([0]))
    rule = started("progressive", samples=1, epochs=2)
    assert between.wrong.all() and not rule.select(between).any()


def test_top_loss_selects_the_largest_losses():
    assert started("top_loss", q=2).select(scored()).tolist() == [False, True, True, False]
    assert started("top_loss", q=9).select(scored()).all()


def test_top_loss_schedule_never_grows():
    rule = started("top_loss", samples=100, batch_size=16, epochs=7)
    sizes = []
    for accuracy in (0.5, 0.85, 0.92, 0.85, 0.96, 0.999, 0.5):
        rule.epoch_indices(0)
        sizes.append(rule.number)
        wrong = {0: set(range(round(1000 * (1 - accuracy))))}
        rule.update(ScoredBatch(torch.arange(1000), *with_mistakes(wrong)(0, torch.arange(1000))))
    rule.epoch_indices(0)
    assert [*sizes, rule.number] == [16, 16, 8, 4, 4, 2, 1, 1]


def test_selective_backprop_follows_the_cdf_of_losses():
    rule = started("selective_backprop", samples=4000, batch_size=4, epochs=2, beta=2.0, history=4)
    assert (
        rule.select(scored()).all() and rule.count == 0
    )  # the first epoch selects all samples and leaves no history
    rule.epoch_indices(1)
    learned = torch.zeros(4)
    for index in torch.arange(4000).split(4):
        learned += rule.select(scored(index=index))
    # 1, 2, 3 and 0 of the 4 losses are smaller: probabilities (smaller / 4)^2.
    assert (learned / 1000).tolist() == pytest.approx([0.0625, 0.25, 0.5625, 0.0], abs=0.05)


def test_selective_backprop_history_is_a_ring():
    rule = started("selective_backprop", samples=4, batch_size=4, epochs=2, history=3)
    rule.epoch_indices(1)
    rule.select(scored())
    assert sorted(rule.losses.tolist()) == pytest.approx([0.12693, 0.69315, 10.00005], abs=1e-4)


def test_selective_backprop_trains_on_full_batches(tmp_path):
    config = Config(epochs=3, batch_size=16, device="cpu", runs_dir=str(tmp_path))
    config.rule = {"name": "selective_backprop"}
    config.model.width, config.dataset.train_size = 20, 320
    run(check(config))
    last = rows(only_run(tmp_path) / "metrics.csv")[-1]
    seen, learned = int(last["samples_seen"]), int(last["backward_samples"])
    assert seen == 960 and 320 < learned < 960
    # Every update has 16 samples, and each of them was forwarded twice.
    assert learned == 16 * int(last["updates"]) and int(last["forward_samples"]) == seen + learned


def test_composer_draws_by_rank_within_the_batch():
    rule = started("composer_selective_backprop", samples=4000, batch_size=4, begin=0.0, end=1.0, interrupt=0)
    learned = torch.zeros(4)
    for index in torch.arange(4000).split(4):
        chosen = rule.select(scored(index=index))
        assert chosen.sum() == 2
        learned += chosen
    # Odds of ranks 0 to 3 at keep 1/2: 1, 3, 5, 7 of 16. One of two drawn without replacement:
    # p_i + sum over j of p_j p_i / (1 - p_j); the losses have the ranks 1, 2, 3, 0.
    odds = [1 / 16, 3 / 16, 5 / 16, 7 / 16]
    drawn = [p + sum(q * p / (1 - q) for q in odds if q != p) for p in odds]
    expected = [drawn[1], drawn[2], drawn[3], drawn[0]]
    assert (learned / 1000).tolist() == pytest.approx(expected, abs=0.05)


def test_composer_selects_in_every_second_batch_from_half_to_nine_tenths():
    rule = started("composer_selective_backprop", samples=20, batch_size=4, epochs=2)
    selected = []
    for epoch in (0, 1):
        rule.epoch_indices(epoch)
        selected += [rule.select(scored(index=torch.arange(4))).sum() == 2 for _ in range(5)]
    # Batches 5 to 8 of 10 begin in that part of the run; the second and fourth of an epoch stay whole. The part ends
    # with a batch, not with an epoch.
    assert selected == [False] * 5 + [True, False, True, False, False]


def test_rules_that_decide_without_a_forward_pass():
    known = {name for name, rule in RULES.items() if rule.preselect is not Rule.preselect}
    assert known == {"infobatch", "kakurenbo", "early_stopping", "progressive", "smrd", "bls", "repb"}


def test_infobatch_drops_samples_and_rescales_the_others():
    rule = started("infobatch", samples=1000, epochs=8, ratio=0.4, anneal=0.875)
    assert len(rule.epoch_indices(0)) == 1000 and (rule.weight == 1).all()  # no loss is known yet
    hard = set(range(100))
    rule.update(ScoredBatch(torch.arange(1000), *with_mistakes([hard])(0, torch.arange(1000))))
    kept = rule.epoch_indices(1)
    assert set(kept.tolist()) >= hard and len(kept) == 100 + 540
    assert (rule.weight[kept[kept >= 100]] == torch.tensor(1 / 0.6)).all() and (rule.weight[:100] == 1).all()
    assert len(rule.epoch_indices(6)) == 640 and len(rule.epoch_indices(7)) == 1000 and (rule.weight == 1).all()


@pytest.mark.parametrize("epochs, whole", [(1, 1), (5, 1), (8, 1), (9, 2), (16, 2), (200, 25)])
def test_infobatch_ends_with_epochs_of_all_samples(epochs, whole):
    """The authors' sampler counts its construction as an epoch, so epoch e drops nothing if e + 1 > 0.875 epochs."""
    rule = started("infobatch", samples=8, epochs=epochs)
    rule.last_loss[:4] = 0.0
    sizes = [len(rule.epoch_indices(epoch)) for epoch in range(epochs)]
    assert sizes == [6] * (epochs - whole) + [8] * whole


def test_kakurenbo_hides_confident_samples_and_forwards_them_last():
    rule = started("kakurenbo", samples=10, epochs=10, fraction=0.3, confidence_threshold=0.7)
    assert len(rule.epoch_indices(0)) == 10 and rule.preselect(torch.arange(10)).all()
    margins = torch.tensor([9.0, 8.0, 0.1, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, -1.0])
    logits = torch.stack([margins, torch.zeros(10)], 1)
    rule.update(ScoredBatch(torch.arange(10), logits, torch.zeros(10, dtype=torch.int64)))
    order = rule.epoch_indices(1)
    assert set(order[-3:].tolist()) == {0, 1, 3} and len(order) == 10
    assert rule.preselect(torch.tensor([0, 1, 2, 3, 9])).tolist() == [False, False, True, False, True]
    assert rule.rate_factor(1) == pytest.approx(1 / 0.7)
    hesitant = torch.stack([torch.full((10,), 0.1), torch.zeros(10)], 1)
    rule.update(ScoredBatch(torch.arange(10), hesitant, torch.zeros(10, dtype=torch.int64)))
    rule.epoch_indices(2)  # low losses alone are not enough; the factor depends on the fraction alone
    assert rule.preselect(torch.arange(10)).all() and rule.rate_factor(2) == pytest.approx(1 / 0.7)


def test_kakurenbo_hides_fewer_samples_over_the_run():
    rule = started("kakurenbo", samples=100, epochs=10, fraction=0.5)
    easy = ScoredBatch(torch.arange(100), *losses(*[0.01] * 100))
    rule.update(easy)
    hidden = []
    for epoch in range(10):
        rule.epoch_indices(epoch)
        hidden.append(int((~rule.preselect(torch.arange(100))).sum()))
        assert rule.rate_factor(epoch) == pytest.approx(1 / (1 - hidden[-1] / 100))
    assert hidden == [0, 50, 50, 40, 40, 40, 30, 30, 20, 20]


def present(rule, epochs, values):
    """Present epochs of samples with the losses values[epoch][sample]. Returns (presented, selected) by epoch."""
    seen = []
    for epoch in range(epochs):
        index = rule.epoch_indices(epoch)
        batch = ScoredBatch(index, *losses(*[values[epoch][i] for i in index.tolist()]))
        selected = index[Selector(rule).weights(batch) != 0]
        rule.update(batch)
        seen.append((sorted(index.tolist()), sorted(selected.tolist())))
    return seen


def test_early_stopping_depends_on_second_differences():
    # Second differences at epochs 2 to 5: sample 0: 0 (its loss falls evenly), sample 1: 0, 0, 0.5, -1; at epoch 6
    # sample 0 turns: 1. Six losses are needed, so the first sample stops in epoch 6.
    values = [[9 - t, 3 - 0.5 * t] for t in range(4)] + [[5, 1.5], [4, 1.0], [4, 0.5], [4, 0.5]]
    rule = started("early_stopping", samples=2, batch_size=2, epochs=8)
    learned = [selected for _, selected in present(rule, 8, values)]
    assert learned[:7] == [[0, 1]] * 6 + [[1]]
    assert learned[7] == [0, 1]  # forwarded while stopped, its loss has moved
    assert rule.losses[:, 0].tolist() == pytest.approx([6, 5, 4, 4, 4][-5:], rel=1e-3)


def test_early_stopping_without_forwards_is_permanent():
    values = [[5.0, 1.0 + (t % 2)] for t in range(8)]
    rule = started("early_stopping", samples=2, batch_size=2, epochs=8, skip_forwards=True)
    seen = present(rule, 8, values)
    assert seen[5] == ([0, 1], [0, 1]) and seen[6] == ([1], [1]) and seen[7] == ([1], [1])
    whole = started("early_stopping", samples=2, batch_size=2, epochs=8)
    assert present(whole, 8, values)[7] == ([0, 1], [1])


def test_evolved_sampling_updates_its_scores():
    rule = started("evolved_sampling", samples=2, batch_size=2, epochs=1, anneal=0.0, beta1=0.2, beta2=0.9)
    for first, second in ((1.0, 0.0), (2.0, 0.0)):
        rule.select(ScoredBatch(torch.arange(2), *losses(first, 1e-6 + second)))
    # s: 0.5, then 0.45 + 0.1 = 0.55, then 0.495 + 0.2 = 0.695; without a loss 0.5 * 0.81.
    assert rule.score.tolist() == pytest.approx([0.695, 0.405], abs=1e-4)


def test_evolved_sampling_draws_by_its_weights():
    rule = started("evolved_sampling", samples=4000, batch_size=4, epochs=1, anneal=0.0)
    rule.score[:] = 1.0
    learned = torch.zeros(4)
    for index in torch.arange(4000).split(4):
        chosen = rule.select(ScoredBatch(index, *losses(0.01, 1.0, 2.0, 3.0)))
        assert chosen.sum() == 1
        learned += chosen
    # w = 0.2 * 1 + 0.8 * loss: 0.208, 1, 1.8, 2.6, of 5.608.
    assert (learned / 1000).tolist() == pytest.approx([0.037, 0.178, 0.321, 0.464], abs=0.05)


def test_evolved_sampling_selects_whole_batches_at_both_ends():
    rule = started("evolved_sampling", samples=40, batch_size=4, epochs=2, anneal=0.1)
    numbers = []
    for epoch in (0, 1):
        rule.epoch_indices(epoch)
        numbers += [int(rule.select(scored(index=torch.arange(4))).sum()) for _ in range(10)]
    assert numbers == [4] * 2 + [1] * 16 + [4] * 2


def test_order_dp_presents_the_largest_losses_of_a_random_part():
    rule = started("order_dp", samples=100, epochs=2, subset=0.5, top=0.4)
    assert len(rule.epoch_indices(0)) == 20
    rule.last_loss = torch.arange(100.0)
    kept = sorted(rule.epoch_indices(1).tolist())
    assert len(kept) == 20 and kept != list(range(80, 100))
    everything = started("order_dp", samples=100, epochs=2, subset=1.0, top=0.4)
    everything.last_loss = torch.arange(100.0)
    assert sorted(everything.epoch_indices(1).tolist()) == list(range(60, 100))


def test_order_dp_draws_first_and_keeps_the_largest_losses_of_the_draw():
    """With the same seed, top=1 shows which samples were drawn; the losses decide among them."""
    pool = sorted(started("order_dp", samples=100, epochs=2, subset=0.5, top=1.0).epoch_indices(1).tolist())
    rule = started("order_dp", samples=100, epochs=2, subset=0.5, top=0.4)
    rule.last_loss = torch.arange(100.0)
    assert len(pool) == 50 and sorted(rule.epoch_indices(1).tolist()) == pool[-20:]


def test_evolved_sampling_draws_with_the_previous_score():
    """w = beta1 * s + (1 - beta1) * loss: with losses 0 and 1 and scores 3 and 1, 2.4 to 0.2 + 0.8."""
    rule = started("evolved_sampling", samples=4000, batch_size=4, epochs=1, anneal=0.0, beta1=0.8, beta2=1.0)
    rule.score[:] = torch.tensor([3.0, 1.0, 1e-6, 1e-6]).repeat(1000)
    learned = torch.zeros(4)
    for index in torch.arange(4000).split(4):
        learned += rule.select(ScoredBatch(index, *losses(1e-6, 1.0, 1e-6, 1e-6)))
    assert (learned[:2] / 1000).tolist() == pytest.approx([2.4 / 3.4, 1.0 / 3.4], abs=0.05)


def test_order_dp_stores_the_losses():
    rule = started("order_dp", samples=4, epochs=2, subset=1.0, top=0.5)
    rule.update(scored(index=torch.tensor([3, 1, 0, 2])))
    assert rule.last_loss.tolist() == pytest.approx([10.00005, 0.69315, 0.12693, 0.31326], abs=1e-4)
    assert sorted(rule.epoch_indices(1).tolist()) == [0, 1]


def test_a_draw_equal_to_the_probability_does_not_select():
    rule = started("selective_backprop", epochs=2, beta=1.0, history=4)
    rule.epoch_indices(1)
    rule.draw = torch.tensor([0.25, 0.5, 0.75, 0.0])  # 1, 2, 3 and 0 of the 4 losses are smaller
    assert not rule.select(scored()).any()
    rule = started("selective_backprop", epochs=2, beta=1.0, history=4)
    rule.epoch_indices(1)
    rule.draw = torch.tensor([0.25, 0.5, 0.75, 0.0]) - 1e-6
    assert rule.select(scored()).all()


def test_a_softmax_equal_to_the_threshold_is_not_selected():
    even = ScoredBatch(torch.tensor([0, 1]), torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))
    for name in ("progressive", "confidence", "smrd"):
        assert not started(name, samples=2, epochs=2, threshold=0.5).select(even).any()


def test_kakurenbo_steps_at_60_120_and_160_of_200_epochs():
    rule = started("kakurenbo", samples=4, epochs=200, fraction=0.5)
    shares = [1 - 1 / rule.rate_factor(epoch) for epoch in (0, 1, 59, 60, 119, 120, 159, 160, 199)]
    assert shares == pytest.approx([0, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2])


def test_srd_presents_at_least_one_sample():
    rule = started("srd", samples=1000, epochs=4, decay=0.001)
    assert [len(rule.epoch_indices(epoch)) for epoch in range(3)] == [1000, 1, 1]


@pytest.mark.parametrize("name", RULES)
def test_counters_of_a_run_agree_with_the_counts_of_the_samples(tmp_path, name):
    """Times presented and selected, summed over samples, equal the counters; no sample is selected more often than
    presented."""
    config = Config(epochs=3, batch_size=16, device="cpu", runs_dir=str(tmp_path), rule={"name": name})
    config.model.width, config.dataset.train_size, config.optimizer.lr = 12, 320, 0.1
    report = run(check(config))
    with np.load(report.folder / "learned.npz") as counts:
        presented, learned = counts["presented"], counts["learned"]
    row = report.summary
    assert presented.sum() == row["samples_seen"] and learned.sum() == row["backward_samples"]
    assert (learned > 0).sum() == row["distinct_learned"] and (learned <= presented).all()
    by_hand = {"backprop": 3 * 320, "order_dp": 3 * int(0.85 * 0.75 * 320)}
    if name in by_hand:
        assert row["samples_seen"] == row["backward_samples"] == row["forward_samples"] == by_hand[name]
    assert row["forward_samples"] >= row["samples_seen"]


def test_smrd_selects_as_many_samples_as_progressive():
    rule = started("smrd", samples=4000, batch_size=4, epochs=2, threshold=0.6)
    learned = torch.zeros(4)
    for index in torch.arange(4000).split(4):
        chosen = rule.select(scored(index=index))
        assert chosen.sum() == 2  # two softmaxes of the target are below 0.6
        learned += chosen
    assert (learned / 1000).tolist() == pytest.approx([0.5] * 4, abs=0.06)
    rule = started("smrd", samples=8, epochs=2)
    assert run_through(rule, 2, with_mistakes([set(), set()])) == [[], list(range(8))]


def test_srd_presents_fewer_samples_every_epoch():
    rule = started("srd", samples=1000, epochs=4, decay=0.5)
    orders = [rule.epoch_indices(epoch) for epoch in range(4)]
    assert [len(order) for order in orders] == [1000, 500, 250, 1000]
    assert len(set(orders[1].tolist())) == 500 and type(rule).select is Rule.select
