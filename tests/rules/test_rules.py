"""Each rule against its definition, on logits made by hand."""

from __future__ import annotations

import pytest
import torch

from lazyexp.config.compose import compose_settings, hydra_session, register
from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.rules import RULES, RunInfo, ScoredBatch, make_rule
from lazyexp.settings import checked
from lazyexp.training.selection import Selector

# Softmax of the rows: (0.73, 0.27), (0.5, 0.5), (0.99995, 5e-5), (0.12, 0.88)
LOGITS = torch.tensor([[1.0, 0.0], [0.0, 0.0], [10.0, 0.0], [0.0, 2.0]])
TARGETS = torch.tensor([0, 0, 1, 1])


def started(name, samples=4, batch_size=4, epochs=1, **options):
    rule = make_rule({"name": name, **options})
    rule.start(RunInfo(samples, batch_size, epochs, 0, torch.device("cpu")))
    rule.epoch_indices(0)
    return rule


def scored(logits=LOGITS, targets=TARGETS, index=None):
    return ScoredBatch(torch.arange(len(targets)) if index is None else index, logits, targets)


def test_scored_batch_computes_errors_losses_and_confidence():
    batch = scored()
    assert batch.wrong.tolist() == [False, False, True, False]
    assert batch.loss.tolist() == pytest.approx([0.31326, 0.69315, 10.00005, 0.12693], abs=1e-4)
    assert batch.confidence.tolist() == pytest.approx([0.73106, 0.5, 0.99995, 0.88080], abs=1e-4)


def test_backprop_selects_all_samples():
    assert started("backprop").select(scored()) is None


def test_lazy_selects_misclassified_samples():
    assert started("lazy").select(scored()).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "threshold, expected",
    [(0.0, [0, 0, 1, 0]), (0.6, [0, 1, 1, 0]), (0.8, [1, 1, 1, 0]), (0.9, [1, 1, 1, 1]), (1.0, [1, 1, 1, 1])],
)
def test_confidence_selects_wrong_and_unconfident_samples(threshold, expected):
    assert started("confidence", threshold=threshold).select(scored()).int().tolist() == expected


def test_confidence_threshold_1_selects_a_sample_with_softmax_1():
    certain = scored(torch.tensor([[1000.0, 0.0]]), torch.tensor([0]))
    assert started("confidence", threshold=1.0).select(certain).tolist() == [True]


def test_random_selects_as_many_samples_as_lazy():
    rule = started("random", samples=1000, batch_size=100)
    wrong_and_selected = 0
    for index in torch.arange(1000).split(100):
        batch = scored(LOGITS.repeat(25, 1), TARGETS.repeat(25), index)
        chosen = rule.select(batch)
        assert chosen.sum() == batch.wrong.sum() == 25
        wrong_and_selected += int((chosen & batch.wrong).sum())
    assert 30 < wrong_and_selected < 100  # 62.5 expected, 250 if it were lazy


def test_random_at_batch_size_1_selects_one_sample_per_mistake():
    rule = started("random", samples=4000, batch_size=1, window=100)
    selected = mistakes = late = 0
    for i in range(4000):
        wrong = i % 10 == 0 and i < 3000
        mistakes += wrong
        batch = ScoredBatch(torch.tensor([i]), torch.tensor([[0.0, 1.0]]), torch.tensor([0 if wrong else 1]))
        chosen = bool(rule.select(batch))
        selected += chosen
        late += chosen and i >= 3200
    assert selected == mistakes == 300
    assert late == 0


@pytest.mark.slow
def test_random_at_batch_size_1_copes_with_mistakes_only():
    rule = started("random", samples=2000, batch_size=1, window=10)
    wrong = [ScoredBatch(torch.tensor([i]), torch.tensor([[0.0, 1.0]]), torch.tensor([0])) for i in range(2000)]
    assert sum(bool(rule.select(batch)) for batch in wrong) > 1900


def run_through(rule, epochs, score, samples=8, batch_size=4):
    """Present epochs to a rule. `score(epoch, index)` -> (logits, targets). Returns the selected samples by epoch."""
    selected = []
    for epoch in range(epochs):
        this_epoch = []
        for index in rule.epoch_indices(epoch).split(batch_size):
            batch = ScoredBatch(index, *score(epoch, index))
            batch.selected = Selector(rule).weights(batch) != 0
            this_epoch += index[batch.selected].tolist()
            rule.update(batch)
        selected.append(sorted(this_epoch))
    return selected


def with_mistakes(wrong):
    """Logits that make the samples of `wrong[epoch]` wrong, and all others right with high confidence."""

    def score(epoch, index):
        bad = torch.tensor([i in wrong[epoch] for i in index.tolist()])
        logits = torch.where(bad[:, None], torch.tensor([0.0, 9.0]), torch.tensor([9.0, 0.0]))
        return logits, torch.zeros(len(index), dtype=torch.int64)

    return score


def test_mistake_gated_selects_samples_that_were_ever_wrong():
    rule = started("mistake_gated", samples=8, epochs=3)
    assert run_through(rule, 3, with_mistakes([{1, 2}, {3}, set()])) == [[1, 2], [1, 2, 3], [1, 2, 3]]


def test_progressive_ends_with_all_samples():
    rule = started("progressive", samples=8, epochs=3, threshold=0.0, revision_epochs=1)
    everything = list(range(8))
    assert run_through(rule, 3, with_mistakes([{1, 2}, {3}, {5}])) == [[1, 2], [3], everything]
    rule = started("progressive", samples=8, epochs=3, revision_epochs=3)
    assert run_through(rule, 3, with_mistakes([set()] * 3)) == [everything] * 3


def test_spaced_review_skips_1_2_4_epochs():
    rule = started("spaced", samples=2, epochs=20, max_interval=4)
    presented = {0: [], 1: []}
    for epoch in range(20):
        for i in rule.epoch_indices(epoch).tolist():
            presented[i].append(epoch)
            wrong = i == 1 and epoch in (0, 6)
            logits = torch.tensor([[0.0, 9.0] if wrong else [9.0, 0.0]])
            batch = ScoredBatch(torch.tensor([i]), logits, torch.tensor([0]))
            batch.selected = rule.select(batch)
            rule.update(batch)
    assert presented[0] == [0, 2, 5, 10, 15]  # skips 1, 2, 4, 4 epochs
    assert presented[1] == [0, 1, 3, 6, 7, 9, 12, 17]  # the interval starts again after the mistakes at 0 and 6


def test_confident_samples_skip_max_interval_epochs_at_once():
    rule = started("spaced", samples=3, epochs=20, max_interval=6, skip_threshold=0.99)
    presented = {0: [], 1: [], 2: []}
    for epoch in range(20):
        for i in rule.epoch_indices(epoch).tolist():
            presented[i].append(epoch)
            # Softmax of the right class: 0.9999, 0.95, and once 0.9999 for the wrong one.
            logits = torch.tensor(
                [[9.0, 0.0]] if i == 0 else [[3.0, 0.0]] if i == 1 else [[0.0 if epoch == 0 else 9.0, 8.0]]
            )
            batch = ScoredBatch(torch.tensor([i]), logits, torch.tensor([0]))
            batch.selected = rule.select(batch)
            rule.update(batch)
    assert presented[0] == [0, 7, 14]  # skips 6
    assert presented[1] == [0, 2, 5, 10, 17]  # skips 1, 2, 4, 6
    assert presented[2][:2] == [0, 1]  # confident and wrong: not skipped


def test_any_mistake_rule_can_be_spaced():
    rule = started("lazy", samples=8, epochs=4, max_interval=8)
    run_through(rule, 1, with_mistakes([{1, 2}]))
    assert sorted(rule.epoch_indices(1).tolist()) == [1, 2]


def test_rules_keep_the_matched_order():
    order = started("backprop", samples=50).epoch_indices(3)
    for name in ("infobatch", "spaced", "kakurenbo"):
        rule = started(name, samples=50)
        wrong = {*range(25)}
        rule.update(ScoredBatch(torch.arange(50), *with_mistakes([wrong])(0, torch.arange(50)), torch.ones(50) == 0))
        presented = rule.epoch_indices(3)[:20].tolist()
        positions = [order.tolist().index(i) for i in presented]
        assert positions == sorted(positions), name


def test_random_replays_the_counts_of_a_run(tmp_path):
    (tmp_path / "metrics.csv").write_text("samples_seen,backward_samples\n100,40\n300,50\n")
    (tmp_path / "summary.csv").write_text("status\nfinished\n")
    rule = started("random", samples=400, batch_size=10, replay=str(tmp_path))
    wrong = with_mistakes([set()])
    chosen = torch.cat([rule.select(ScoredBatch(i, *wrong(0, i))) for i in torch.arange(400).split(10)])
    assert chosen[:100].sum() == 40 and chosen[100:300].sum() == 10 and chosen[300:].sum() == 0
    with pytest.raises(UserError, match="not the folder of a finished run"):
        make_rule({"name": "random", "replay": str(tmp_path / "nowhere")})


def test_replayed_counts_are_part_of_the_identity_and_their_folder_is_not(tmp_path):
    def replay(name, lines, status="finished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("samples_seen,backward_samples\n" + lines)
        (tmp_path / name / "summary.csv").write_text(f"status\n{status}\n")
        return make_rule({"name": "random", "replay": str(tmp_path / name)}).identity()

    assert replay("one", "100,40\n") == replay("copy", "100,40\n") != replay("other", "100,41\n")
    for name, lines, status in (
        ("a", "100,40\n", "interrupted"),
        ("b", "100,140\n", "finished"),
        ("c", "", "finished"),
    ):
        with pytest.raises(UserError):
            replay(name, lines, status)


def test_options_at_their_defaults_are_not_part_of_the_identity():
    assert (
        make_rule({"name": "confidence"}).identity()
        == {}
        == make_rule({"name": "confidence", "threshold": 0.9}).identity()
    )
    assert make_rule({"name": "confidence", "threshold": 0.8}).identity() == {"threshold": 0.8}


NEUTRAL = {
    "confidence": {"threshold": 1.0},
    "progressive": {"revision_epochs": 9},
    "spaced": {"threshold": 1.0, "max_interval": 0},
    "top_loss": {"q": 99},
    "selective_backprop": {"beta": 0.0},
    "infobatch": {"ratio": 0.0},
    "composer_selective_backprop": {"keep": 1.0},
    "kakurenbo": {"fraction": 0.0},
    "early_stopping": {"threshold": 0.0},
    "evolved_sampling": {"keep": 1.0},
    "order_dp": {"subset": 1.0, "top": 1.0},
    "smrd": {"revision_epochs": 9},
    "srd": {"decay": 1.0},
}


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    """The folder of the backprop runs that rules are compared with; each is trained once."""
    return tmp_path_factory.mktemp("baselines")


@pytest.mark.slow
@pytest.mark.parametrize("name", NEUTRAL)
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("engine", ["auto", "autograd"])
def test_with_its_neutral_setting_a_rule_is_backprop(tmp_path, baselines, name, batch_size, engine):
    """The same weights after two epochs, and counters of a run that selects all samples."""
    runs = []
    for rule, folder in (({"name": name, **NEUTRAL[name]}, tmp_path), ({"name": "backprop"}, baselines)):
        settings = Config(
            epochs=2, batch_size=batch_size, engine=engine, rule=rule, device="cpu", runs_dir=str(folder)
        )
        settings.model.width, settings.dataset.train_size = (
            20,
            304,
        )  # whole batches: a part of one would wait for ever
        runs.append(run(check(settings)))
    one, other = (torch.load(report.folder / "model.pt") for report in runs)
    for key in one:
        assert torch.allclose(one[key], other[key], atol=1e-5), key
    for column in ("samples_seen", "backward_samples", "updates", "updates_possible", "distinct_learned"):
        assert runs[0].summary[column] == runs[1].summary[column], column


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "nonsense"}, "must be one of backprop, lazy"),
        ({"name": "lazy", "threshold": 0.5}, "unknown option of rule lazy"),
        ({"name": "confidence", "threshold": 1.5}, "at least 0, at most 1"),
        ({"name": "confidence", "threshold": "high"}, "of type float"),
        ({"name": "random", "window": 0}, "at least 1"),
        ({"name": "random", "window": 2.5}, "of type int"),
        ({"name": "lazy", "max_interval": -2}, "from 0"),
        ({"name": "spaced", "max_interval": -1}, "from 0"),
        ({"name": "spaced", "max_interval": 10**20}, r"2\^30"),
        ({"name": "lazy", "skip_threshold": 1.5}, "at least 0, at most 1"),
        ({"name": "progressive", "revision_epochs": -1}, "at least 0"),
        ({"name": "top_loss", "q": -1}, "at least 0"),
        ({"name": "selective_backprop", "beta": -1.0}, "at least 0"),
        ({"name": "composer_selective_backprop", "keep": 0.0}, "greater than 0"),
        ({"name": "early_stopping", "threshold": -1.0}, "at least 0"),
        ({"name": "early_stopping", "average": 0}, "at least 1"),
        ({"name": "evolved_sampling", "keep": 0.0}, "greater than 0"),
        ({"name": "evolved_sampling", "beta2": 1.5}, "at least 0, at most 1"),
        ({"name": "order_dp", "top": 0.0}, "greater than 0"),
        ({"name": "smrd", "threshold": 2.0}, "at least 0, at most 1"),
        ({"name": "srd", "decay": 0.0}, "greater than 0"),
        ({"name": "infobatch", "ratio": 1.0}, "at most 0.9"),
        ({"name": "kakurenbo", "fraction": 1.0}, "less than 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_rule(options)


@pytest.mark.slow
def test_every_rule_can_be_composed():
    register()
    with hydra_session():
        for name in RULES:
            assert checked(compose_settings([f"rule={name}"])).rule["name"] == name
