"""Fronts, times to an accuracy along them, and their intervals, on made-up points with known answers."""

import math

import numpy as np
import pytest

from lazyexp.report.intervals import resampled_interval
from lazyexp.report.pareto import ParetoFront, Point, non_dominated, speedup


def front(*points):
    """Points (seconds, accuracies), each a number or one value per run."""
    return ParetoFront([Point(np.atleast_1d(s).astype(float), np.atleast_1d(a).astype(float)) for s, a in points])


STEPS = ((1.0, 0.90), (2.0, 0.95), (3.0, 0.94), (4.0, 0.99), (5.0, 0.99))


def test_the_front_leaves_out_what_is_beaten():
    seconds, accuracy = np.array(STEPS).T
    assert non_dominated(seconds, accuracy) == [0, 1, 3] == front(*STEPS).steps()
    assert non_dominated(np.array([2.0, 1.0, 1.0]), np.array([0.9, 0.9, 0.9])) == [1]
    assert non_dominated(np.array([3.0, 1.0, 1.0]), np.array([0.5, 0.7, 0.8])) == [2]


@pytest.mark.parametrize(
    "target, seconds",
    [(0.5, 1.0), (0.90, 1.0), (0.9001, 2.0), (0.945, 2.0), (0.96, 4.0), (0.99, 4.0), (0.991, math.inf)],
)
def test_time_to_an_accuracy_goes_by_steps(target, seconds):
    assert front(*STEPS).time_to(target)[0] == seconds
    position = front(*STEPS).fastest(target)
    assert position is None if math.isinf(seconds) else STEPS[position][0] == seconds


def test_rounding_is_no_miss():
    assert front((1.0, 0.979)).time_to(0.98 - 0.001)[0] == 1.0


@pytest.mark.parametrize("limit, best", [(0.5, math.nan), (1, 0.90), (3.9, 0.95), (4, 0.99), (64, 0.99)])
def test_best_within_some_seconds(limit, best):
    np.testing.assert_equal(front(*STEPS).best_within(limit)[0], best)


def test_the_best_point_is_the_faster_of_equals():
    assert front(*STEPS).best() == 3


def test_medians_are_over_the_runs_of_a_configuration():
    f = front(([1.0, 2.0, 9.0], [0.9, 0.8, 0.99]))
    assert f.seconds[0] == 2.0 and f.accuracy[0] == 0.9


def test_speedups_along_two_fronts():
    baseline, rule = front((10.0, 0.95), (20.0, 0.99)), front((2.0, 0.95), (4.0, 0.98))
    assert speedup(rule, baseline, 0.95)[0] == 5.0
    assert speedup(rule, baseline, 0.97)[0] == 5.0
    assert speedup(rule, baseline, 0.99)[0] == 0.0  # the rule never gets there
    assert speedup(baseline, rule, 0.99)[0] == math.inf
    assert math.isnan(speedup(rule, baseline, 0.999)[0])


def test_without_two_runs_there_is_no_interval():
    single = front((2.0, 0.9))
    assert not single.resampled
    known = resampled_interval(single.time_to(0.9), single.resampled)
    assert known.median == 2.0 and math.isnan(known.low) and math.isnan(known.high)


def test_runs_that_agree_have_an_interval_of_no_width():
    baseline, rule = front(([9.0] * 5, [0.95] * 5)), front(([3.0] * 5, [0.95] * 5))
    known = resampled_interval(speedup(rule, baseline, 0.95))
    assert (known.median, known.low, known.high) == (3.0, 3.0, 3.0)


def test_the_interval_of_a_median_of_three():
    """The medians of all 27 draws of (1, 2, 3): 7 are 1, 13 are 2, 7 are 3, so the 95 % interval is 1 to 3."""
    known = resampled_interval(front(([1.0, 2.0, 3.0], [0.9] * 3)).time_to(0.9))
    assert (known.median, known.low, known.high) == (2.0, 1.0, 3.0)
    medians = front(([1.0, 2.0, 3.0], [0.9] * 3)).time_to(0.9)[1:]
    assert [(medians == value).mean() for value in (1, 2, 3)] == pytest.approx([7 / 27, 13 / 27, 7 / 27], abs=0.03)


@pytest.mark.slow
def test_the_interval_covers_the_truth():
    """Of 200 experiments of 15 runs whose true ratio of medians is 4, the 95 % intervals hold it about 190 times."""
    draws, held = np.random.default_rng(1), 0
    for seed in range(200):
        baseline = ParetoFront([Point(20 * draws.lognormal(0, 0.2, 15), np.full(15, 0.9))], seed)
        rule = ParetoFront([Point(5 * draws.lognormal(0, 0.2, 15), np.full(15, 0.9))], seed + 1000)
        known = resampled_interval(speedup(rule, baseline, 0.9))
        held += known.low <= 4 <= known.high
    assert 180 <= held <= 200


def test_a_target_that_half_of_the_draws_miss_has_an_infinite_end():
    """At the median accuracy itself many draws fall below it, and there the rule never arrives."""
    f = front(([2.0] * 4, [0.89, 0.90, 0.90, 0.91]))
    known = resampled_interval(f.time_to(0.90))
    assert known.median == 2.0 and known.low == 2.0 and known.high == math.inf


def test_seconds_and_accuracy_of_a_run_stay_together():
    """Two runs: the slow one is the good one. A draw of the good one alone is slow."""
    f = front(([1.0, 3.0], [0.8, 1.0]))
    assert set(zip(f.seconds[:, 0], f.accuracy[:, 0], strict=True)) == {(1.0, 0.8), (2.0, 0.9), (3.0, 1.0)}


def test_a_target_that_moves_with_the_baseline():
    baseline = front(([10.0] * 5, [0.95, 0.951, 0.952, 0.953, 0.954]))
    rule = front(([2.0] * 5, [0.99] * 5))
    known = resampled_interval(speedup(rule, baseline, baseline.best_within() - 0.0005))
    assert (known.median, known.low, known.high) == (5.0, 5.0, 5.0)  # it always reaches what is its own


def test_the_same_points_give_the_same_interval():
    once, again = (resampled_interval(front(([1.0, 2.0, 3.0, 4.0], [0.9] * 4)).time_to(0.9)) for _ in range(2))
    assert once == again
