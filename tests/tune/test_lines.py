"""The choice of finals on made-up trials with known answers: lines, credited trials, seeds, borrowed settings."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("optuna")

from test_tune import outcome, tune

from lazyexp import experiment
from lazyexp.config.compose import register
from lazyexp.config.registry import RULES
from lazyexp.errors import UserError
from lazyexp.rules.early_stopping import EarlyStopping
from lazyexp.rules.infobatch import InfoBatch
from lazyexp.rules.progressive import MatchedDropout
from lazyexp.settings import settings_of
from lazyexp.tune import cli, finals, study
from lazyexp.tune.degenerate import TESTS, as_backprop, is_backprop, selects_all
from lazyexp.tune.lines import choose_by_lines, read_searches
from lazyexp.tune.seeds import fresh_seeds, record_seeds
from lazyexp.tune.space import Space
from lazyexp.tune.study import Search

TINY = ["dataset.train_size=200", "model.width=8", "energy=false", "batch_size=32", "device=cpu"]


def write(folder: Path, rule: str, *trials, seed=0):
    """A search with trials of (validation accuracy, seconds, selects all samples); its epochs are its number + 1."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"trial": n, "state": "complete", "status": "finished", "val_accuracy": accuracy, "train_seconds": seconds}
        | {"samples_seen": 9, "backward_samples": 9 if every else 3, "selects_all": every, "rule": rule, "seed": seed}
        | {"run_id": f"{folder.name}{n}", "overrides": f"rule={rule} seed={seed} dataset.val_size=9 epochs={n + 1}"}
        for n, (accuracy, seconds, every) in enumerate(trials)
    ]
    pd.DataFrame(rows).to_csv(folder / "trials.csv", index=False)
    return folder


def chosen(table, margin):
    """{search: the chosen trial at this margin}"""
    rows = table[table["margin"] == margin]
    return {row["search"]: None if pd.isna(row["trial"]) else row["trial"] for _, row in rows.iterrows()}


@pytest.fixture
def two(tmp_path):
    baseline = write(tmp_path / "backprop", "backprop", (0.990, 9.0, True), (0.9889, 4.0, True), (0.987, 2.0, True))
    rule = write(tmp_path / "lazy", "lazy", (0.9895, 3.0, False), (0.984, 1.0, False), (0.995, 8.0, False))
    return [baseline, rule]


def test_lines_are_measured_from_the_best_of_backprop_for_all(two):
    """The rule's own best, 99.5 %, plays no part; backprop has a point at every line."""
    table = choose_by_lines(read_searches(two), (0.1, 0, 0.3, 0.6))
    assert table.drop_duplicates("margin")["line"].round(6).tolist() == [0.989, 0.99, 0.987, 0.984]
    assert chosen(table, 0) == {"backprop": "0", "lazy": "2"}
    assert chosen(table, 0.1) == {"backprop": "0", "lazy": "0"}  # 98.89 % misses 98.9 %
    assert chosen(table, 0.3) == {"backprop": "2", "lazy": "0"}  # 98.7 % reaches 98.7 %
    assert chosen(table, 0.6) == {"backprop": "2", "lazy": "1"}
    assert table["point"].nunique() == 5  # every setting is trained once


def test_a_search_without_a_trial_at_a_line(tmp_path, two):
    """A rule's is marked. One of backprop gives its best trial; the line is of the median search."""
    poor = write(tmp_path / "poor", "lazy", (0.9, 1.0, False))
    better = write(tmp_path / "better", "backprop", (0.992, 5.0, True))
    weak = write(tmp_path / "weak", "backprop", (0.95, 1.0, True), (0.96, 2.0, True))
    table = choose_by_lines(read_searches([*two, poor, better, weak]), (0.1,))
    assert table["line"].unique().round(6).tolist() == [0.989]
    assert chosen(table, 0.1) == {"backprop": "0", "lazy": "0", "poor": None, "better": "0", "weak": "1"}
    assert table.set_index("search")["reaches"].to_dict() == {
        "backprop": True, "lazy": True, "poor": False, "better": True, "weak": False
    }  # fmt: skip


@pytest.mark.slow
def test_a_trial_that_selects_all_samples_is_one_of_backprop(tmp_path, two, monkeypatch, capsys):
    """The audit's case: the fastest trial of smrd was backprop. It speeds up backprop and sets backprop's best."""
    smrd = write(tmp_path / "smrd", "smrd", (0.991, 1.5, True), (0.9902, 3.0, False))
    table = choose_by_lines(read_searches([*two, smrd]), (0.1,))
    assert table["line"].unique().round(6).tolist() == [0.99]
    assert chosen(table, 0.1) == {"backprop": "smrd/0", "lazy": "2", "smrd": "1"}
    assert table.set_index("search")["words"]["backprop"] == ["rule=backprop", "epochs=1"]
    monkeypatch.setattr(finals, "settings_of", lambda words: None)
    monkeypatch.setattr(finals, "attempt", lambda words: outcome())
    words = ["--finals", *two, smrd, "--seeds", 1, "--folder", tmp_path / "finals"]
    out = tune(monkeypatch, capsys, *words)[1]
    assert "smrd: 1 of 2 trials selected all samples and count as backprop's" in out
    assert "validation accuracy 99.00% (primary)" in out and "99.10% (exploratory)" in out
    assert "speedup at 0.1 percentage points below backprop's best validation accuracy (fixed in advance)" in out


@pytest.mark.slow
def test_backprop_of_another_rules_setting():
    register()
    assert as_backprop(["rule=smrd", "rule.threshold=0.2", "rule_label=x", "epochs=2", "++packing.block_size=9"]) == [
        "rule=backprop", "epochs=2"
    ]  # fmt: skip
    preset = settings_of(as_backprop(["rule=fast_lazy", "epochs=3"]))
    assert (preset.rule["name"], preset.batch_size, preset.optimizer.lr) == ("backprop", 32, 0.2)
    assert preset.epochs == 3 and preset.packing.block_size == 0 and not preset.rule_label


def test_rules_are_backprop_at_few_epochs():
    """Without a run: the published smrd trial of two epochs, early_stopping of three, and their neighbours."""
    smrd = MatchedDropout(revision_epochs=2)
    assert [TESTS["smrd"](smrd, epochs, 32) for epochs in (1, 2, 3)] == [True, True, False]
    stopping = EarlyStopping(average=1)
    assert [TESTS["early_stopping"](stopping, epochs, 32) for epochs in (4, 5)] == [True, False]
    assert [TESTS["early_stopping"](EarlyStopping(), epochs, 32) for epochs in (3, 6, 7)] == [True, True, False]
    assert [TESTS["infobatch"](InfoBatch(anneal=0.5), epochs, 32) for epochs in (3, 4)] == [True, False]
    assert set(TESTS) <= set(RULES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, expected",
    [
        (["rule=smrd", "rule.revision_epochs=2", "epochs=2"], True),
        (["rule=smrd", "rule.revision_epochs=0", "rule.threshold=0.05", "epochs=2"], False),
        (["rule=srd", "epochs=2", "rule.decay=0.5"], True),
        (["rule=srd", "epochs=3", "rule.decay=0.5"], False),
        (["rule=early_stopping", "epochs=6", "rule.threshold=9"], True),
        (["rule=early_stopping", "epochs=7", "rule.threshold=9"], False),
        (["rule=infobatch", "epochs=2"], True),
        (["rule=infobatch", "epochs=3"], False),
        (["rule=top_loss", "rule.q=32", "epochs=1"], True),
        (["rule=top_loss", "rule.q=31", "epochs=1"], False),
        (["rule=kakurenbo", "rule.confidence_threshold=0", "epochs=1"], True),
        (["rule=kakurenbo", "rule.confidence_threshold=0", "epochs=2"], False),
        (["rule=order_dp", "rule.subset=1", "rule.top=1", "epochs=2"], True),
        (["rule=order_dp", "rule.subset=1", "rule.top=0.9", "epochs=2"], False),
        (["rule=repb", "epochs=1"], True),
        (["rule=repb", "epochs=3"], False),
        (["rule=evolved_sampling", "rule.anneal=0.5", "epochs=2"], True),
        (["rule=bls", "epochs=2"], True),
        (["rule=composer_selective_backprop", "rule.keep=1", "epochs=2"], True),
        (["rule=rho_loss", "epochs=1"], False),
        (["rule=selective_backprop", "epochs=2"], False),
    ],
    ids=str,
)
def test_what_is_backprop_by_construction_selects_all_samples_and_little_more_does_not(tmp_path, words, expected):
    register()
    settings = settings_of([*words, *TINY, f"runs_dir={tmp_path}"])
    assert is_backprop(settings.rule, settings.epochs, settings.batch_size) is expected
    assert selects_all(experiment.run(settings).summary) is expected


def test_rules_that_do_not_present_what_they_drop_are_not_degenerate():
    """Their backward_samples equal their samples_seen, which counts presented samples."""
    dropped = {"epoch": 3.0, "train_size": 200, "samples_seen": 545, "backward_samples": 545}
    assert not selects_all(dropped)
    assert selects_all({**dropped, "samples_seen": 600, "backward_samples": 600})
    assert not selects_all({**dropped, "samples_seen": 600, "backward_samples": 599})


@pytest.mark.slow
def test_searches_draw_no_setting_in_which_the_rule_is_backprop(tmp_path, monkeypatch):
    register()
    search = Search(tmp_path, ["rule=early_stopping"], Space("methods", "early_stopping"), 0)
    epochs = []
    for _ in range(2):
        row = search.next_trial(lambda overrides: outcome())
        epochs.append(row["epochs"])
    assert min(epochs) >= 7 and len(search.counted()) == 2 and search.failed() == []
    monkeypatch.setattr(study, "MOST_DRAWS", 2)
    (tmp_path / "b").mkdir()
    other = Search(tmp_path / "b", ["rule=infobatch", "epochs=2"], Space("methods", "infobatch", {"epochs": 2}), 0)
    with pytest.raises(UserError, match="the rule is backprop there"):
        other.next_trial(lambda overrides: outcome())


def test_seeds_are_fresh(tmp_path, two):
    """None that a trial or other finals used, also those of searches from which settings were borrowed."""
    baseline, rule = two
    write(rule, "lazy", (0.9, 1.0, False), seed=101)
    assert fresh_seeds(two, tmp_path / "f", 3) == ([100, 102, 103], [101])
    record_seeds(two, tmp_path / "f", [100, 102, 103])
    assert fresh_seeds(two, tmp_path / "f", 2) == ([100, 102], [])  # continues
    assert fresh_seeds(two, tmp_path / "f", 4)[0] == [100, 102, 103, 104]
    assert fresh_seeds(two, tmp_path / "g", 2) == ([104, 105], [100, 101, 102, 103])
    borrower = write(tmp_path / "borrower", "backprop", (0.9, 1.0, True))
    assert fresh_seeds([borrower], tmp_path / "h", 1)[0] == [100]
    (borrower / "about.json").write_text(json.dumps({"borrowed_from": ["../lazy"]}))
    assert fresh_seeds([borrower], tmp_path / "h", 1)[0] == [104]
    write(baseline, "backprop", (0.9, 1.0, True), seed=102)
    with pytest.raises(UserError, match="its seed 102 was used by a trial or by other finals, too; set --folder"):
        fresh_seeds(two, tmp_path / "f", 2)


@pytest.mark.slow
def test_borrowed_values_are_compared_as_they_were_trained_with(tmp_path, monkeypatch, capsys):
    """Optuna keeps a float with all of its digits, the trial has four of them."""
    space = tmp_path / "space.yaml"
    space.write_text("all:\n  - {key: optimizer.lr, low: 0.01, high: 1.0, log: true}\n")
    done = []

    def train(overrides, folder):
        done.append(overrides[-1])
        return outcome(accuracy=0.9 + len(done) / 1000)

    monkeypatch.setattr(cli, "train", train)
    words = ["rule=backprop", "dataset.val_size=100", "--space", space]
    assert tune(monkeypatch, capsys, *words, "--trials", 3, "--folder", tmp_path / "a")[0] == 0
    assert (
        tune(monkeypatch, capsys, *words, "--trials", 3, "--folder", tmp_path / "a", "--borrow", tmp_path / "a")[0]
        == 0
    )
    assert len(done) == 3
    again = [*words, "--folder", tmp_path / "a", "--borrow", tmp_path / "a", "--trials", 5]
    assert tune(monkeypatch, capsys, *again)[0] == 0
    assert len(done) == len(set(done)) == 5  # none of its own trials is repeated
    assert json.loads((tmp_path / "a" / "about.json").read_text())["borrowed_from"] == ["."]
    other = [*words, "--folder", tmp_path / "b", "--borrow", tmp_path / "a", "--trials", 2, "--seed", 1]
    assert tune(monkeypatch, capsys, *other)[0] == 0
    assert done[5] in done[:5] and json.loads((tmp_path / "b" / "about.json").read_text())["borrowed_from"] == [
        "../a"
    ]
