"""Each rule against its definition, on hand-made logits."""

from __future__ import annotations

import pytest
import torch

from lazyexp.errors import UserError
from lazyexp.rules import RULES, Judged, Setting, make_rule

# Softmax of the rows: (0.73, 0.27), (0.5, 0.5), (0.99995, 5e-5), (0.12, 0.88)
LOGITS = torch.tensor([[1.0, 0.0], [0.0, 0.0], [10.0, 0.0], [0.0, 2.0]])
TARGETS = torch.tensor([0, 0, 1, 1])


def started(name, samples=4, batch_size=4, epochs=1, **options):
    rule = make_rule({"name": name, **options})
    rule.start(Setting(samples, batch_size, epochs, 0, torch.device("cpu")))
    rule.visit(0)
    return rule


def judged(logits=LOGITS, targets=TARGETS, index=None):
    return Judged(torch.arange(len(targets)) if index is None else index, logits, targets)


def test_judged_knows_errors_losses_and_confidence():
    batch = judged()
    assert batch.wrong.tolist() == [False, False, True, False]
    assert batch.loss.tolist() == pytest.approx([0.31326, 0.69315, 10.00005, 0.12693], abs=1e-4)
    assert batch.confidence.tolist() == pytest.approx([0.73106, 0.5, 0.99995, 0.88080], abs=1e-4)


def test_backprop_takes_everybody():
    assert started("backprop").weigh(judged()) is None


def test_lazy_takes_the_misclassified():
    assert started("lazy").weigh(judged()).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "threshold, expected",
    [(0.0, [0, 0, 1, 0]), (0.6, [0, 1, 1, 0]), (0.8, [1, 1, 1, 0]), (0.9, [1, 1, 1, 1]), (1.0, [1, 1, 1, 1])],
)
def test_confidence_takes_the_wrong_and_the_hesitant(threshold, expected):
    assert started("confidence", threshold=threshold).weigh(judged()).int().tolist() == expected


def test_confidence_one_is_backprop_even_for_a_certain_sample():
    certain = judged(torch.tensor([[1000.0, 0.0]]), torch.tensor([0]))
    assert started("confidence", threshold=1.0).weigh(certain).tolist() == [True]


def test_random_takes_as_many_as_lazy_but_any():
    rule = started("random", samples=1000, batch_size=100)
    wrong_and_learned = 0
    for index in torch.arange(1000).split(100):
        batch = judged(LOGITS.repeat(25, 1), TARGETS.repeat(25), index)
        chosen = rule.weigh(batch)
        assert chosen.sum() == batch.wrong.sum() == 25
        wrong_and_learned += int((chosen & batch.wrong).sum())
    assert 30 < wrong_and_learned < 100  # 62.5 expected, 250 if it were lazy


def test_random_online_answers_every_mistake_once():
    rule = started("random", samples=4000, batch_size=1, window=100)
    learned = mistakes = late = 0
    for i in range(4000):
        wrong = i % 10 == 0 and i < 3000
        mistakes += wrong
        batch = Judged(torch.tensor([i]), torch.tensor([[0.0, 1.0]]), torch.tensor([0 if wrong else 1]))
        chosen = bool(rule.weigh(batch))
        learned += chosen
        late += chosen and i >= 3200
    assert learned == mistakes == 300
    assert late == 0


def test_random_online_survives_nothing_but_mistakes():
    rule = started("random", samples=2000, batch_size=1, window=10)
    wrong = [Judged(torch.tensor([i]), torch.tensor([[0.0, 1.0]]), torch.tensor([0])) for i in range(2000)]
    assert sum(bool(rule.weigh(batch)) for batch in wrong) > 1900


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "nonsense"}, "must be one of backprop, lazy"),
        ({"name": "lazy", "threshold": 0.5}, "unknown option of rule lazy"),
        ({"name": "confidence", "threshold": 1.5}, "from 0 to 1"),
        ({"name": "confidence", "threshold": "high"}, "of type float"),
        ({"name": "random", "window": 0}, "at least 1"),
        ({"name": "random", "window": 2.5}, "of type int"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_rule(options)


def test_every_rule_has_a_config_file():
    from lazyexp.cli import CONF

    assert {path.stem for path in (CONF / "rule").glob("*.yaml")} == set(RULES)
