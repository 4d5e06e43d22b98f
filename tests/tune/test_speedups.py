"""Speedups over searches and seeds: known answers, and intervals against a simulation with known coverage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lazyexp.report.intervals import NESTED, RANGE, interval, nested_interval, nested_resamples
from lazyexp.tune.speedups import speedup_lines, speedups


def ratio(first, second):
    return first / second


def made(searches, seeds=3, margins=(0.1,)):
    """chosen.csv and finals.csv of {rule: [seconds of each search, None where it misses the line]}."""
    chosen, finals, point = [], [], 0
    for margin in margins:
        for rule, times in searches.items():
            for number, seconds in enumerate(times):
                reaches = seconds is not None
                row = {"margin": margin, "rule": rule, "search": f"{rule}-{number}", "reaches": reaches}
                chosen.append(row | {"point": point if reaches else pd.NA})
                for seed in range(seeds if reaches else 0):
                    run = {"point": point, "seed": 100 + seed, "rule": rule, "status": "finished"}
                    run |= {"test_accuracy": 0.99 - 0.001 * (rule != "backprop"), "selects_all": rule == "backprop"}
                    finals.append(run | {"train_seconds": seconds + 0.1 * seed - 0.1})
                point += 1
    return pd.DataFrame(chosen).astype({"point": "Int64"}), pd.DataFrame(finals)


def test_the_speedup_is_that_of_the_median_searches():
    chosen, finals = made({"backprop": [8.0, 4.0, 6.0], "lazy": [3.0, 1.0, 2.0], "slow": [9.0, None, None]})
    table = speedups(chosen, finals).set_index("rule")
    assert table["seconds"].tolist() == [6, 2, math.inf]
    assert table["speedup"].tolist()[1:] == [3, 0]
    assert table["reached"].tolist() == [3, 3, 1] and set(table["kind"]) == {"primary"}
    lazy = table.loc["lazy"]
    assert lazy["interval"] == RANGE
    assert lazy["speedup_low"] == pytest.approx(3.9 / 3.1) and lazy["speedup_high"] == pytest.approx(8.1 / 0.9)
    assert lazy["behind"] == pytest.approx(0.1)
    text = "\n".join(speedup_lines(table.reset_index()))
    assert "3.00 (1.26 to 9.00)" in text and "0.00 (0.00 to 0.91)" in text
    assert "1 of 3" in text and "the range over all pairs of runs, not 95 %" in text


def test_runs_that_diverged_and_selections_of_all_samples_are_not_a_rules_time():
    chosen, finals = made({"backprop": [4.0], "lazy": [1.0], "smrd": [1.0]})
    finals.loc[finals["rule"] == "lazy", "status"] = "diverged"
    finals.loc[finals["rule"] == "smrd", "selects_all"] = True
    table = speedups(chosen, finals).set_index("rule")
    assert table["seconds"].tolist() == pytest.approx([4, math.inf, math.inf]) and table["speedup"].tolist()[1:] == [
        0,
        0,
    ]
    assert table.loc["lazy", "test_accuracy"] == 0
    assert "line not reached" in "\n".join(speedup_lines(table.reset_index()))


def test_lines_without_finals_of_backprop_are_dropped():
    chosen, finals = made({"backprop": [4.0], "lazy": [1.0]}, margins=(0.5, 0.1))
    assert speedups(chosen, finals)["margin"].tolist() == [0.1, 0.1, 0.5, 0.5]  # the primary one first
    lost = chosen[(chosen["rule"] == "backprop") & (chosen["margin"] == 0.5)]["point"]
    assert set(speedups(chosen, finals[~finals["point"].isin(lost)])["margin"]) == {0.1}


def test_five_searches_and_seeds_have_a_95_percent_interval():
    for searches, seeds, kind in ((5, 5, NESTED), (4, 5, RANGE), (5, 4, RANGE)):
        chosen, finals = made({"backprop": [4.0] * searches, "lazy": [2.0] * searches}, seeds)
        assert speedups(chosen, finals)["interval"].tolist()[1:] == [kind]


def test_a_nested_resample_is_the_median_of_medians():
    constant = [np.full(5, value) for value in (1.0, 2.0, 30.0)]
    found = nested_resamples(constant, np.random.default_rng(0))
    assert found[0] == 2 and set(found) == {1, 2, 30}
    # 2 of 3 draws are the largest group: (3 * 2 + 1) / 27.
    assert (found[1:] == 30).mean() == pytest.approx(7 / 27, abs=0.03)
    one = nested_resamples([np.arange(5.0)], np.random.default_rng(0))
    assert one[0] == 2 and 0 < one[1:].std() < np.arange(5.0).std()
    assert np.isinf(nested_resamples([np.array([math.inf])], np.random.default_rng(0))).all()


@pytest.mark.slow
def test_the_nested_interval_covers_what_it_says_and_one_over_seeds_alone_does_not():
    """Seconds of 10 searches with 5 seeds each, log-normal in both levels; the true speedup is 2."""
    generator = np.random.default_rng(1)

    def draw(middle):
        searches = generator.normal(math.log(middle), 0.3, (10, 1))
        return list(np.exp(searches + generator.normal(0, 0.1, (10, 5))))

    nested = naive = 0
    repetitions = 60
    for _ in range(repetitions):
        baseline, rule = draw(4.0), draw(2.0)
        found, kind = nested_interval(baseline, rule, ratio)
        assert kind == NESTED
        nested += found.low <= 2 <= found.high
        # As if the searches were fixed: the seeds of one chosen setting for each rule.
        alone = interval(baseline[0] / rule[0])
        naive += alone.low <= 2 <= alone.high
    assert 0.9 <= nested / repetitions <= 1
    assert naive / repetitions < 0.6
