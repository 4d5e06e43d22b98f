"""A rule's factor on the learning rate is a factor on the rate, for every optimizer and engine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

import lazyexp
from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.data import load_data
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, ScoredBatch, make_rule
from lazyexp.rules.baselines import Backprop
from lazyexp.training.selection import checked_rate_factor

EPOCHS, SAMPLES, BATCH, RATE = 4, 240, 16, 0.01
OPTIMIZERS = {
    "adam": ({"name": "adam"}, lambda p: torch.optim.Adam(p, lr=RATE)),
    "adamw": ({"name": "adamw", "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.1)),
    "momentum": ({"momentum": 0.9}, lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9)),
    "sgd": ({"weight_decay": 0.01}, lambda p: torch.optim.SGD(p, lr=RATE, weight_decay=0.01)),
}


def config(tmp_path, engine="auto", rule=None, rate=RATE, block=0, **optimizer):
    made = Config(epochs=EPOCHS, batch_size=BATCH, device="cpu", engine=engine, runs_dir=str(tmp_path))
    made.rule = rule or {"name": "kakurenbo", "confidence_threshold": 0.0}
    made.model.width, made.dataset.train_size = 12, SAMPLES
    made.optimizer.lr, made.optimizer.schedule, made.packing.block_size = rate, "constant", block
    for key, value in optimizer.items():
        setattr(made.optimizer, key, value)
    return check(made)


def authors_loop(settings, make_optimizer):
    """Their adjust_learning_rate: lr / (1 - F) in every parameter group, with F = 0.3 times 1, 0.8 and 0.6; no factor
    in the first epoch. Returns the network and the number of hidden samples."""
    data = load_data(settings.dataset, settings.data_dir, torch.device("cpu"))
    model = make_model(settings.model, (1, 8, 8), 10, 0)
    optimizer, hidden = make_optimizer(model.parameters()), 0
    rule = make_rule(settings.rule)
    rule.start(RunInfo(SAMPLES, BATCH, EPOCHS, 0, torch.device("cpu")))
    for epoch, share in enumerate((0.0, 0.3, 0.24, 0.18)):
        for group in optimizer.param_groups:
            group["lr"] = RATE / (1 - share)
        for index in rule.epoch_indices(epoch).split(BATCH):
            inputs, targets = data.train.batch(index)
            shown, logits = rule.preselect(index), model(inputs)
            if shown.any():
                optimizer.zero_grad()
                F.cross_entropy(logits[shown], targets[shown]).backward()
                optimizer.step()
            hidden += int((~shown).sum())
            rule.update(ScoredBatch(index, logits.detach(), targets, shown))
    return model, hidden


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_kakurenbo_trains_as_the_authors_arithmetic(tmp_path, name):
    options, make_optimizer = OPTIMIZERS[name]
    model, hidden = authors_loop(config(tmp_path, **options), make_optimizer)
    assert hidden > 20
    for engine in ("fast", "autograd"):
        settings = config(tmp_path / engine, engine, **options)
        folder = run(settings).folder
        trained = torch.load(folder / "model.pt")
        for mine, theirs in zip(trained.values(), model.state_dict().values(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)
        rates = lazyexp.open(folder).metrics["learning_rate"].dropna()
        assert rates.iloc[-1] == pytest.approx(RATE / (1 - 0.18), rel=1e-6)


@dataclass
class Doubled(Backprop):
    """Backprop at twice the learning rate."""

    def rate_factor(self, epoch: int) -> float:
        return 2.0


@pytest.mark.parametrize("block", [0, 64])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_factor_of_two_is_twice_the_learning_rate(tmp_path, name, block):
    weights = []
    doubled = {"name": "doubled", "_target_": f"{__name__}.Doubled"}
    for rule, rate in ((doubled, RATE), ({"name": "backprop"}, 2 * RATE)):
        settings = config(tmp_path / rule["name"], rule=rule, rate=rate, block=block, name=name)
        weights.append(torch.load(run(settings).folder / "model.pt"))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf"), None, "2"])
def test_a_factor_that_is_no_positive_number_is_refused(factor):
    rule = Doubled()
    rule.rate_factor = lambda epoch: factor
    with pytest.raises(UserError, match="rate_factor returned"):
        checked_rate_factor(rule, 0)
