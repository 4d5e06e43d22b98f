"""Properties that hold for any numbers: look-ahead, crossings, pairs and subsets, on generated cases.

The cases are the same in every run (derandomized), and few: more of them with HYPOTHESIS_EXAMPLES=1000.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyexp.config.schema import ModelConfig, OptimizerConfig
from lazyexp.data import Samples
from lazyexp.data.loading import balanced_split
from lazyexp.models.builtin import make_model
from lazyexp.report.groups import Group
from lazyexp.report.pareto import TOLERANCE
from lazyexp.report.read import MEASURES, Run
from lazyexp.report.speedups import Target, compare, crossing, speedups
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.lookahead import LookAhead

CPU = torch.device("cpu")


def cases(number: int):
    number = int(os.environ.get("HYPOTHESIS_EXAMPLES", number))
    return settings(max_examples=number, derandomize=True, deadline=None, database=None)


RULES = st.one_of(
    st.just({"name": "lazy"}),
    st.builds(lambda t: {"name": "confidence", "threshold": t}, st.floats(0, 1)),
    st.builds(lambda t: {"name": "progressive", "threshold": t, "revision_epochs": 0}, st.floats(0, 1)),
)
NETWORKS = st.builds(
    ModelConfig,
    width=st.integers(1, 24),
    depth=st.integers(1, 3),
    activation=st.sampled_from(["relu", "leaky_relu", "gelu", "tanh"]),
    init=st.sampled_from(["uniform", "lecun_normal", "kaiming"]),
)


@pytest.mark.slow
@cases(20)
@given(
    rule=RULES,
    network=NETWORKS,
    reduction=st.sampled_from(["batch", "selected"]),
    batch_size=st.integers(1, 40),
    samples=st.integers(1, 700),
    side=st.integers(1, 6),
    classes=st.integers(2, 12),
    rate=st.floats(1e-4, 0.1),
    seed=st.integers(0, 1000),
)
def test_look_ahead_equals_autograd(rule, network, reduction, batch_size, samples, side, classes, rate, seed):
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.rand(samples, 1, side, side, dtype=torch.float64, generator=draw)
    teacher = torch.randn(side * side, classes, dtype=torch.float64, generator=draw)
    targets = ((pixels - 0.5).flatten(1) @ teacher).argmax(1)
    rates = (rate * (0.5 + torch.rand(-(-samples // batch_size), generator=draw))).tolist()
    ends = []
    for kind in (AutogradEngine, LookAhead):
        model = make_model(network, (1, side, side), classes, seed).double()
        made = make_rule(rule)
        made.start(RunInfo(samples, batch_size, 1, seed, CPU))
        order, energy = made.epoch_indices(0), Energy(model, Clock(CPU))
        images = Samples(pixels, targets, 2.0, -1.0, 0, torch.float64)
        engine = kind(EngineSpec(model, images, made, OptimizerConfig(reduction=reduction), batch_size, energy))
        ends.append((engine.train(order, rates), energy, list(model.parameters())))
    (plain, spent, weights), (ahead, also_spent, as_well) = ends
    assert torch.equal(ahead.trained, plain.trained) and torch.equal(ahead.selected, plain.selected)
    assert ahead.updates == plain.updates and plain.forwards == samples <= ahead.forwards
    torch.testing.assert_close(ahead.logits, plain.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(as_well, weights, rtol=1e-9, atol=1e-9)
    assert float(also_spent.l1) == pytest.approx(float(spent.l1), rel=1e-6)


OPTIONS = {"lazy": '{"max_interval": 8}', "backprop": "{}"}


def run(accuracies: list[float], seed: int = 0, rule: str = "lazy", cost: float = 1.0, status="finished") -> Run:
    """A run that was evaluated after 1, 2, … times `cost`, in every measure."""
    rows = pd.DataFrame({"test_accuracy": accuracies})
    for measure in (*MEASURES, "samples_seen"):
        rows[measure] = [cost * (position + 1) for position in range(len(accuracies))]
    return Run(Path("nowhere"), f"{rule}-{seed}", rule, OPTIONS[rule], seed, status, {}, (), rows, {})


ACCURACIES = st.lists(st.integers(0, 20).map(lambda twentieths: twentieths / 20), min_size=1, max_size=12)
STATUSES = st.sampled_from(["finished", "diverged", "stopped", "interrupted", "running"])
TARGETS = st.integers(0, 20).map(lambda twentieths: twentieths / 20)


@pytest.mark.slow
@cases(100)
@given(accuracies=ACCURACIES, target=TARGETS)
def test_a_crossing_is_the_first_row_that_is_not_below(accuracies, target):
    found = crossing(run(accuracies), target)
    assert all(accuracy < target for accuracy in accuracies[:found])
    assert found is None or accuracies[found] >= target - TOLERANCE
    assert (found is None) == (max(accuracies) < target)


@pytest.mark.slow
@cases(100)
@given(
    one=ACCURACIES, other=ACCURACIES, cost=st.floats(0.01, 100), target=TARGETS, ends=st.tuples(STATUSES, STATUSES)
)
def test_a_pair_seen_from_the_other_side_is_its_inverse(one, other, cost, target, ends):
    rule, control = run(one, cost=cost, status=ends[0]), run(other, rule="backprop", status=ends[1])
    pair, back = (
        compare(rule, control, Target("", target), "updates"),
        compare(control, rule, Target("", target), "updates"),
    )
    assert (pair.undecided, pair.rule_missed, pair.baseline_missed) == (
        back.undecided, back.baseline_missed, back.rule_missed
    )  # fmt: skip
    never = [max(accuracies) < target for accuracies in (one, other)]
    open_end = [end not in ("finished", "diverged") for end in ends]
    assert pair.undecided == any(miss and still for miss, still in zip(never, open_end, strict=True))
    if pair.undecided or all(never):
        assert math.isnan(pair.ratio) and math.isnan(back.ratio)
    elif any(never):
        assert pair.ratio == (0 if never[0] else math.inf)
        assert back.ratio == (0 if never[1] else math.inf)
    else:
        places = [next(i for i, a in enumerate(found) if a >= target) + 1 for found in (one, other)]
        assert pair.ratio == pytest.approx(places[1] / (places[0] * cost))
        assert pair.ratio * back.ratio == pytest.approx(1)


@pytest.mark.slow
@cases(20)
@given(
    rules=st.dictionaries(st.integers(0, 5), ACCURACIES, min_size=1, max_size=5),
    controls=st.dictionaries(st.integers(0, 5), ACCURACIES, min_size=1, max_size=5),
    cost=st.floats(0.1, 10),
)
def test_runs_are_paired_by_their_seeds(rules, controls, cost):
    group = Group("matched", {}, {
        "backprop": [run(accuracies, seed, "backprop") for seed, accuracies in controls.items()],
        "lazy": [run(accuracies, seed, cost=cost) for seed, accuracies in rules.items()],
    })  # fmt: skip
    common = set(rules) & set(controls)
    table = speedups(group)
    assert {row.measure for row in table} == set(MEASURES)
    for row in table:
        assert row.paired is bool(common)
        assert (row.rule, row.rule_options) == ("lazy", OPTIONS["lazy"])
        assert row.n_unpaired == len(set(rules) - common)
        assert row.n_pairs + row.n_undecided == (len(common) or len(rules) * len(controls))
        assert row.n_rule_missed <= row.n_pairs
        margin = float(row.target.removeprefix("backprop-")) / 100
        pairs = [(rules[seed], controls[seed]) for seed in common]
        pairs = pairs or [(one, other) for one in rules.values() for other in controls.values()]
        missed = sum(max(one) < other[-1] - margin - TOLERANCE for one, other in pairs)
        assert row.n_rule_missed == missed


@pytest.mark.slow
@cases(100)
@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    sizes=st.tuples(st.integers(0, 80), st.integers(0, 80)),
    purpose=st.sampled_from(["val", "train_size"]),
)
def test_subsets_are_balanced_nested_and_disjoint_from_the_rest(labels, sizes, purpose):
    targets = torch.tensor(labels)
    everything = torch.arange(len(labels))
    small, large = sorted(min(size, len(labels)) for size in sizes)
    (few, _), (many, rest) = (balanced_split(targets, everything, size, purpose) for size in (small, large))
    assert len(few) == small and len(many) == large
    assert set(few.tolist()) <= set(many.tolist())
    assert sorted([*many.tolist(), *rest.tolist()]) == everything.tolist()
    assert rest.tolist() == sorted(rest.tolist())
    counts, available = (torch.bincount(which, minlength=6) for which in (targets[many], targets))
    for label in range(6):  # a class may have less than another only if there is no more of it
        assert counts[label] == available[label] or counts[label] >= counts.max() - 1
