"""A stream with replays against a plain loop that knows nothing of this program's trainer, store and engines."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_streams import settings

from lazyexp.data import load_data
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.utils.seeding import generator

PHASES = [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
CAPACITY, EVERY = 24, 40


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("kind", ["reservoir", "mistakes"])
def test_phases_and_replays_are_those_of_a_plain_loop(tmp_path, kind, engine):
    """Batch 1, lazy after a first phase of backprop: the same weights, counts, energy, store and accuracies."""
    config = settings(
        tmp_path, rule="lazy", batch_size=1, epochs=None, engine=engine, optimizer__schedule="constant",
        stream={"name": "online", "phases": PHASES, "base_rule": "backprop"},
        memory={"name": kind, "capacity": CAPACITY, "replay_every": EVERY},
    )  # fmt: skip
    result = run(config)

    data = load_data(config.dataset, "", torch.device("cpu"))
    model = make_model(config.model, data.shape, 10, 0)
    x, y = data.train.batch(torch.arange(600))
    keys = torch.rand(600, generator=generator(0, "memory"), dtype=torch.float64).tolist()
    store: list[int] = []
    counts = {"samples_seen": 0, "updates": 0, "energy_l1": 0.0}
    ends, stream, passes = [], 0, 0

    def present(i: int, everything: bool) -> bool:
        """Present sample i. Returns whether it was misclassified."""
        logits = model(x[i : i + 1])
        wrong = int(logits.argmax()) != int(y[i])
        counts["samples_seen"] += 1
        if wrong or everything:
            model.zero_grad()
            F.cross_entropy(logits, y[i : i + 1]).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    step = 0.01 * parameter.grad
                    counts["energy_l1"] += float(step.double().abs().sum())
                    parameter -= step
            counts["updates"] += 1
        return wrong

    def accuracies() -> list[float]:
        inputs, targets = data.test.part(0, len(data.test))
        right = model(inputs).argmax(1) == targets
        return [float(right[torch.isin(targets, torch.tensor(part))].float().mean()) for part in PHASES]

    for phase, classes in enumerate(PHASES):
        order = torch.randperm(600, generator=generator(0, "order", phase)).tolist()
        for i in (i for i in order if int(y[i]) in classes):
            wrong = present(i, phase == 0)
            stream += 1
            if wrong or kind == "reservoir":
                store = sorted([*store, i], key=lambda j: keys[j])[:CAPACITY]
            if stream % EVERY == 0 and store:
                passes += 1
                shuffled = torch.randperm(len(store), generator=generator(0, "replay", passes)).tolist()
                for j in [sorted(store)[position] for position in shuffled]:
                    present(j, phase == 0)
        ends.append(accuracies())

    row = result.summary
    assert {name: row[name] for name in ("samples_seen", "updates")} == {
        k: counts[k] for k in ("samples_seen", "updates")
    }
    assert row["energy_l1"] == pytest.approx(counts["energy_l1"], rel=1e-3)
    assert row["memory_samples"] == len(store) == CAPACITY
    for name, value in torch.load(result.folder / "model.pt").items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-4)
    assert [float(part) for part in row["phase_accuracies"].split()] == pytest.approx(ends[2], abs=1e-5)
    transfer = sum(ends[2][k] - ends[k][k] for k in (0, 1)) / 2
    assert row["backward_transfer"] == pytest.approx(transfer, abs=1e-5)
