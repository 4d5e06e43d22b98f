"""The store: inclusion probabilities, balance, capacity, forgetting, and when it is replayed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_streams import presented, settings

from lazyexp.config.streams import MemoryConfig
from lazyexp.experiment import run
from lazyexp.streams import Replay, Store, make_phases
from lazyexp.training.course import Course


def filled(kind, capacity, targets, seed=0, chunk=7, wrong=None) -> Store:
    """A store that was offered all samples in order, in chunks."""
    targets = torch.as_tensor(targets)
    store = Store(kind, capacity, targets, int(targets.max()) + 1, seed)
    mistakes = torch.ones(len(targets), dtype=torch.bool) if wrong is None else wrong
    for index in torch.arange(len(targets)).split(chunk):
        store.offer(index, mistakes[index])
        assert capacity is None or len(store) <= capacity
    return store


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reservoir", "mistakes"])
def test_every_sample_is_stored_with_probability_capacity_over_offered(kind):
    """6 of 24 samples, 2,000 seeds: a count is binomial with mean 500 and deviation 19; 4.5 deviations allowed."""
    wrong = torch.arange(30) % 5 != 0  # 24 mistakes of 30 samples
    offered = wrong if kind == "mistakes" else torch.arange(30) < 24
    counts, pairs = torch.zeros(30), torch.zeros(30, 30)
    for seed in range(2000):
        length = 30 if kind == "mistakes" else 24
        stored = filled(kind, 6, torch.zeros(length, dtype=torch.int64), seed, 15, wrong[:length]).stored.float()
        counts[:length] += stored
        pairs[:length, :length] += stored[:, None] * stored
    assert bool((counts[~offered] == 0).all())
    deviation = (2000 * 0.25 * 0.75) ** 0.5
    assert float((counts[offered] - 500).abs().max()) < 4.5 * deviation
    both = pairs[offered][:, offered][~torch.eye(24, dtype=torch.bool)]  # two given samples: 6/24 * 5/23
    expected = 2000 * 6 * 5 / (24 * 23)
    assert float((both - expected).abs().max()) < 5.5 * expected**0.5


@pytest.mark.slow
def test_a_balanced_store_takes_turns():
    """Classes of 50, 30 and 4 samples, capacity 20: 4 of the rare class, 8 of each other; uniform within a class."""
    targets = torch.cat([torch.zeros(50), torch.ones(30), torch.full((4,), 2)]).long()
    counts = torch.zeros(84)
    for seed in range(600):
        order = torch.randperm(84, generator=torch.Generator().manual_seed(seed))
        store = filled("balanced", 20, targets[order], seed, 42)
        assert torch.bincount(targets[order][store.stored]).tolist() == [8, 8, 4]
        counts[order] += store.stored.float()
    assert bool((counts[80:] == 600).all())
    for part, size in ((slice(0, 50), 50), (slice(50, 80), 30)):
        share = 8 / size
        assert float((counts[part] - 600 * share).abs().max()) < 4.5 * (600 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("kind", ["reservoir", "mistakes", "balanced"])
def test_the_store_does_not_depend_on_the_chunks_and_keeps_no_sample_twice(kind):
    targets = torch.arange(60) % 3
    one, other = filled(kind, 10, targets, chunk=1), filled(kind, 10, targets, chunk=23)
    assert torch.equal(one.stored, other.stored) and len(one) == 10
    one.offer(torch.arange(60), torch.ones(60, dtype=torch.bool))  # a second pass changes nothing
    assert torch.equal(one.stored, other.stored)
    unlimited = filled(kind, None, targets)
    assert len(unlimited) == 60


def test_mistakes_alone_are_stored_and_forgotten_once_right():
    wrong = torch.tensor([True, False, True, True])
    store = filled("mistakes", None, [0, 0, 1, 1], wrong=wrong)
    assert store.index.tolist() == [0, 2, 3] and store.added == 3
    store.mark()
    store.forget(torch.tensor([0, 2]), torch.tensor([True, False]))
    assert store.index.tolist() == [2, 3] and (store.added, store.size_at_mark) == (0, 3)
    store.offer(torch.tensor([0]), torch.tensor([True]))  # misclassified again
    assert store.index.tolist() == [0, 2, 3] and store.added == 1


def replays(config: MemoryConfig, samples: int, step: int) -> list[tuple[int, int]]:
    """(samples of the stream, stored samples) at the start of every pass of a replay."""
    store = Store("reservoir", config.capacity, torch.zeros(samples, dtype=torch.int64), 1, 0)
    replay, found, start = Replay(config, store, 0), [], 0
    while start < samples:
        size = min(step, replay.limit() or step, samples - start)
        replay.offer(torch.arange(start, start + size), torch.ones(size, dtype=torch.bool))
        start += size
        while replay.order is not None:
            if replay.position == 0:
                found.append((start, len(replay.order)))
                assert sorted(replay.order.tolist()) == store.index.tolist()
            index = replay.next(100)
            replay.replayed(index, torch.zeros(len(index), dtype=torch.bool))
    return found


def test_replay_after_every_n_samples():
    config = MemoryConfig(name="reservoir", capacity=300, replay_every=250, replay_epochs=2)
    assert replays(config, 1100, 64) == [
        (250, 250), (250, 250), (500, 300), (500, 300), (750, 300), (750, 300), (1000, 300), (1000, 300)
    ]  # fmt: skip


def test_replay_after_growth():
    """Checked after every 512 samples: at 512; then once half as many again have been stored."""
    config = MemoryConfig(name="reservoir", growth=0.5)
    assert replays(config, 4000, 2048) == [(512, 512), (1024, 1024), (1536, 1536), (2560, 2560)]


def test_replayed_samples_count_in_every_counter(tmp_path):
    """50 stored of 600, replayed after 300 and 600 samples, twice each: 600 + 2 * 2 * 50 samples at batch 8."""
    memory = {"name": "reservoir", "capacity": 50, "replay_every": 300, "replay_epochs": 2}
    result = run(settings(tmp_path, rule="backprop", stream={"name": "online"}, memory=memory, epochs=None))
    row, times = result.summary, presented(result)
    assert row["samples_seen"] == row["forward_samples"] == row["backward_samples"] == times.sum()
    batches = [-(-304 // 8), 2 * -(-50 // 8), -(-296 // 8), 2 * -(-50 // 8)]  # the border of a batch behind 300
    assert times.sum() == 800 and row["updates"] == row["updates_possible"] == sum(batches)
    assert row["memory_samples"] == 50
    store = Store("reservoir", 50, torch.zeros(600, dtype=torch.int64), 1, 0)
    course = Course(make_phases(None, "new", 1, 1), Replay(MemoryConfig(**memory), store, 0))
    assert course.planned(store.targets, 1) == 800  # the end of the progress bar
    with np.load(result.folder / "learned.npz") as archive:
        assert archive["stored"].sum() == 50 and archive["stored"].dtype == bool
    assert set(times[~np.load(result.folder / "learned.npz")["stored"]]) <= {1, 3}


@pytest.mark.slow
def test_a_store_without_replays_changes_nothing(tmp_path):
    from conftest import timeless

    plain = timeless(run(settings(tmp_path, "plain")).folder / "metrics.csv")
    stored = timeless(run(settings(tmp_path, "stored", memory={"name": "mistakes"})).folder / "metrics.csv")
    for row, other in zip(plain, stored, strict=True):
        assert {**row, "run_id": "", "memory_samples": ""} == {**other, "run_id": "", "memory_samples": ""}
    sizes = [int(row["memory_samples"]) for row in stored]
    assert sizes == sorted(sizes) and sizes[-1] == int(stored[-1]["distinct_learned"])


def test_restart_trains_a_new_network_on_the_store_alone(tmp_path):
    """GDumb: the network of the last phase does not depend on what was trained before."""
    memory = {"name": "balanced", "capacity": 60, "restart_epochs": 3}
    made = []
    for base in ("backprop", "lazy"):
        stream = {"name": "online", "phases": 5, "base_rule": base}
        options = {"rule": "backprop", "memory": memory, "epochs": None}
        made.append(run(settings(tmp_path, base, stream=stream, **options)))
    row = made[0].summary
    assert row["phase"] == 6 and row["samples_seen"] == 600 + 3 * 60 and row["new_class_accuracy"] is None
    assert row["old_class_accuracy"] == row["test_accuracy"]
    with np.load(made[0].folder / "learned.npz") as archive:
        assert np.array_equal(archive["presented"], 1 + 3 * archive["stored"])
    one, other = (torch.load(result.folder / "model.pt") for result in made)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert row["backward_samples"] > made[1].summary["backward_samples"]  # the streams before differ
