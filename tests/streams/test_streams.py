"""Streams: phases of classes, online streams, their counters and measures, against runs and numbers by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from conftest import rows, timeless

from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.errors import UserError
from lazyexp.experiment import run
from lazyexp.runs.folder import RunFolder
from lazyexp.streams import make_phases, progress
from lazyexp.training import Trainer
from lazyexp.training.course import Cursor


def settings(tmp_path, folder="runs", rule="lazy", stream=None, memory=None, **keys):
    """600 digits, 20 hidden units."""
    config = Config(epochs=2, eval_every=250, batch_size=8, device="cpu", runs_dir=str(tmp_path / folder))
    config.model.width, config.dataset.train_size, config.rule = 20, 600, {"name": rule}
    for group, values in (("stream", stream or {}), ("memory", memory or {})):
        for key, value in values.items():
            setattr(getattr(config, group), key, value)
    for key, value in keys.items():
        group, _, name = key.rpartition("__")
        setattr(getattr(config, group) if group else config, name, value)
    return check(config)


def presented(result) -> np.ndarray:
    with np.load(result.folder / "learned.npz") as archive:
        return archive["presented"]


def labels(config) -> np.ndarray:
    from lazyexp.data import load_data

    return load_data(config.dataset, config.data_dir, torch.device("cpu")).train.targets.numpy()


ONE_PHASE = [
    {"name": "classes", "phases": 1},
    {"name": "classes", "phases": [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]], "present": "all"},
    {"name": "classes", "phases": [[3, 1, 2, 0, 4, 9, 6, 7, 8, 5]]},
]


@pytest.mark.slow
@pytest.mark.parametrize("stream", ONE_PHASE, ids=str)
@pytest.mark.parametrize(
    "rule, batch_size",
    [
        ("lazy", 1),
        pytest.param("infobatch", 8, marks=pytest.mark.slow),
        ("mistake_gated", 8),
        pytest.param("spaced", 1, marks=pytest.mark.slow),
    ],
)
def test_one_phase_equals_iid_row_for_row(tmp_path, stream, rule, batch_size):
    options = {"rule": rule, "batch_size": batch_size}
    plain = run(settings(tmp_path, "iid", **options)).folder
    phased = run(settings(tmp_path, "phased", stream=stream, **options)).folder
    named = "run_id"
    one, other = ([{**row, named: ""} for row in timeless(folder / "metrics.csv")] for folder in (plain, phased))
    assert one == other and len(one) >= 4
    assert one[-1]["phase"] == "1" and one[-1]["new_class_accuracy"] == one[-1]["test_accuracy"]
    assert one[-1]["memory_samples"] == one[-1]["old_class_accuracy"] == one[-1]["backward_transfer"] == ""
    for name in ("presented", "misclassified", "learned"):
        assert np.array_equal(np.load(plain / "learned.npz")[name], np.load(phased / "learned.npz")[name])


def test_an_online_stream_equals_one_epoch_of_iid(tmp_path):
    plain = run(settings(tmp_path, "iid", epochs=1)).folder
    online = run(settings(tmp_path, "online", stream={"name": "online"}, epochs=None)).folder
    one, other = ([{**row, "run_id": ""} for row in timeless(folder / "metrics.csv")] for folder in (plain, online))
    assert one == other


@pytest.mark.parametrize("present, passes", [("new", [2, 2, 2]), ("all", [6, 4, 2])])
def test_phases_present_their_classes(tmp_path, present, passes):
    phases = [[0, 1, 2, 3], [7], [9, 8]]
    config = settings(tmp_path, stream={"name": "classes", "phases": phases, "present": present})
    result = run(config)
    counts, targets = presented(result), labels(config)
    for part, times in zip(phases, passes, strict=True):
        assert set(counts[np.isin(targets, part)]) == {times}
    assert set(counts[np.isin(targets, [4, 5, 6])]) == {0}  # in no phase
    table = rows(result.folder / "metrics.csv")
    sizes = [int(np.isin(targets, part).sum()) for part in phases]
    if present == "all":
        sizes = list(np.cumsum(sizes))
    borders = list(2 * np.cumsum(sizes))
    ends = [[row for row in table if row["phase"] == str(number)][-1] for number in (1, 2, 3)]
    assert [int(row["samples_seen"]) for row in ends] == borders  # an evaluation at every border
    steps = np.cumsum([2 * -(-size // 8) for size in sizes])  # batches of 8, two passes
    assert [int(row["updates_possible"]) for row in ends] == list(steps)
    assert [float(row["epoch"]) for row in ends] == [2, 4, 6]


def test_the_measures_in_the_rows_are_those_of_the_matrix(tmp_path):
    """Old, new and backward transfer, from the accuracies per phase and the test samples per class."""
    phases = [[0, 1, 2, 3], [7], [9, 8]]
    result = run(settings(tmp_path, stream={"name": "classes", "phases": phases, "present": "all"}))
    table = rows(result.folder / "metrics.csv")
    ends: list[list[float]] = []
    for number in (1, 2, 3):
        ends.append(
            [float(x) for x in [r for r in table if r["phase"] == str(number)][-1]["phase_accuracies"].split()]
        )
    assert [len(row) for row in ends] == [1, 2, 3]
    last = table[-1]
    transfer = ((ends[2][0] - ends[0][0]) + (ends[2][1] - ends[1][1])) / 2
    assert float(last["backward_transfer"]) == pytest.approx(transfer, abs=1e-5)
    assert float(last["average_accuracy"]) == pytest.approx(sum(ends[2]) / 3, abs=1e-5)
    assert float(last["new_class_accuracy"]) == pytest.approx(ends[2][2], abs=1e-5)
    assert min(ends[2][:2]) <= float(last["old_class_accuracy"]) <= max(ends[2][:2])


def test_measures_by_hand():
    """Phase 3 of {0, 1}, {2}, {3}; test samples 10, 30, 20, 0 with 9, 21, 5, 0 correct."""
    phases = make_phases([[0, 1], [2], [3]], "new", 4, 1)
    found = progress(phases, 2, [10, 30, 20, 0], [9, 21, 5, 0], [0.95, 0.5])
    assert found.phase == 3 and found.new is None
    assert found.old == 35 / 60
    assert found.by_phase == (30 / 40, 5 / 20, None)
    assert found.average == (0.75 + 0.25) / 2
    assert found.backward_transfer == pytest.approx(((0.75 - 0.95) + (0.25 - 0.5)) / 2)
    first = progress(phases, 0, [10, 30, 20, 0], [9, 21, 5, 0], [])
    assert first.old is None and first.backward_transfer is None and first.by_phase == (0.75,)


def test_equal_phases():
    assert [phase.classes for phase in make_phases(3, "new", 7, 1)] == [(0, 1, 2), (3, 4), (5, 6)]
    assert [phase.presented for phase in make_phases(2, "all", 4, 1)] == [(0, 1), (0, 1, 2, 3)]


def test_the_base_rule_is_the_rule_of_the_first_phase(tmp_path):
    stream = {"name": "classes", "phases": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], "base_rule": "backprop"}
    result = run(settings(tmp_path, "based", rule="mistake_gated", stream=stream))
    both = {**stream, "base_rule": None}
    plain = run(settings(tmp_path, "plain", rule="backprop", stream=both))
    table, reference = timeless(result.folder / "metrics.csv"), timeless(plain.folder / "metrics.csv")
    differ = ("run_id", "rule")
    first = [{k: v for k, v in row.items() if k not in differ} for row in table if row["phase"] == "1"]
    assert first == [{k: v for k, v in row.items() if k not in differ} for row in reference if row["phase"] == "1"]
    assert all(row["rule"] == "mistake_gated" for row in table)
    border, end = int(first[-1]["backward_samples"]), int(table[-1]["backward_samples"])
    assert border == int(first[-1]["samples_seen"])
    assert 0 < end - border < int(table[-1]["samples_seen"]) - border  # gated from the second phase on


def test_unseen_classes_are_outputs_from_the_start_and_not_masked(tmp_path):
    """The biases of unseen classes fall; a prediction of an unseen class counts as a mistake."""
    stream = {"name": "classes", "phases": [[0, 1]]}
    result = run(settings(tmp_path, rule="backprop", stream=stream, model__init="lecun_normal"))
    bias = torch.load(result.folder / "model.pt")["3.bias"]
    assert len(bias) == 10 and bool((bias[2:] < 0).all())  # they start at 0
    row = rows(result.folder / "metrics.csv")[0]
    assert float(row["test_accuracy"]) < float(row["new_class_accuracy"]) <= 1


ENGINES = [
    {"batch_size": 1}, {"batch_size": 8, "optimizer__momentum": 0.9}, {"engine": "autograd"},
    {"packing__block_size": 64}, {"optimizer__name": "adam"},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("options", ENGINES, ids=str)
@pytest.mark.parametrize("memory", [None, {"name": "mistakes", "capacity": 20, "replay_every": 70}], ids=str)
def test_every_engine_trains_in_phases(tmp_path, options, memory):
    stream = {"name": "classes", "phases": 2, "present": "all"}
    row = run(settings(tmp_path, stream=stream, memory=memory, **options)).summary
    assert row["status"] == "finished" and row["phase"] == 2
    assert row["samples_seen"] > 600 and row["updates_possible"] >= row["updates"] > 0


PHASED = {"name": "classes", "phases": [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]], "base_rule": "backprop"}
STORES = [
    None,
    {"name": "mistakes", "capacity": 15, "replay_every": 50, "replay_epochs": 3, "forget": True},
    {"name": "reservoir", "capacity": 40, "growth": 0.2},
    {"name": "balanced", "capacity": 33, "replay_every": 64, "restart_epochs": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("memory", STORES, ids=str)
@pytest.mark.parametrize("rule", ["mistake_gated", pytest.param("spaced", marks=pytest.mark.slow)])
def test_a_run_stopped_anywhere_resumes_to_the_same_rows(monkeypatch, tmp_path, rule, memory):
    """Stopped at every 7th check: within phases, replays, behind evictions, and while training from the store."""
    from lazyexp.runs.recorder import Recorder

    options = {"rule": rule, "stream": PHASED, "memory": memory, "batch_size": 1, "checkpoint_every": 0}
    whole = run(settings(tmp_path, "whole", **options))
    calls, found = 0, []

    def stop(self):
        nonlocal calls
        calls += 1
        return calls % 7 == 0

    save = RunFolder.save_checkpoint

    def seen(self, state):
        cursor = state["cursor"]
        replay = cursor["replay"]
        found.append((cursor["phase"], bool(replay and replay["order"] is not None)))
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "stop", stop)
        patch.setattr(RunFolder, "save_checkpoint", seen)
        for _ in range(60):
            result = run(settings(tmp_path, "broken", **options))
            if result.status == "finished":
                break
    assert result.status == "finished" and len(found) > 1
    assert len({phase for phase, _ in found}) > 1
    if memory and "replay_every" in memory:
        assert any(replaying for _, replaying in found)
    for name in ("metrics.csv", "summary.csv"):
        assert timeless(result.folder / name) == timeless(whole.folder / name)
    one, other = (torch.load(folder / "model.pt") for folder in (result.folder, whole.folder))
    assert all(torch.equal(one[key], other[key]) for key in one)
    one, other = (np.load(folder / "learned.npz") for folder in (result.folder, whole.folder))
    assert all(np.array_equal(one[key], other[key]) for key in one)


BAD = [
    ({"name": "classes"}, {}, "stream.phases=null: must be set for stream=classes"),
    ({"name": "iid", "phases": 2}, {}, "stream.phases=2: must be null for stream=iid"),
    ({"name": "classes", "phases": 0}, {}, "stream.phases=0: must be a number of phases from 1"),
    ({"name": "classes", "phases": "two"}, {}, "stream.phases=two: must be"),
    ({"name": "classes", "phases": [[0, 1], []]}, {}, "phase 2 has none"),
    ({"name": "classes", "phases": [[0, 1], [1, 2]]}, {}, "class 1 is there twice"),
    ({"name": "classes", "phases": [[0, -1]]}, {}, "-1 is none"),
    ({"name": "classes", "phases": 11}, {}, "at most 10, the number of classes"),
    ({"name": "classes", "phases": [[0, 10]]}, {}, "class 10 is unknown; the classes are 0 to 9"),
    ({"name": "classes", "phases": 2, "base_rule": "greedy"}, {}, "stream.base_rule=greedy: must be one of"),
    ({"base_rule": "backprop"}, {}, "null without stream.phases"),
    ({"name": "online"}, {"epochs": 3}, "epochs=3: must be 1 for stream=online"),
    ({"name": "online", "phases": 2, "present": "all"}, {"epochs": 1}, "stream.present=all: must be new"),
    ({"name": "classes", "phases": 2}, {"dataset__subset": "matched"}, "dataset.subset=matched: must be null"),
    ({"name": "classes", "phases": 2}, {"max_seconds": 9.0}, "max_seconds=9.0: must be null with stream.phases"),
    ({}, {"memory__capacity": 5}, "memory.capacity=5: must be unset without memory.name"),
    ({}, {"memory__replay_every": 5}, "memory.replay_every=5: must be unset without memory.name"),
    ({}, {"memory__name": "mistakes", "memory__capacity": 0}, "memory.capacity=0: must be at least 1"),
    ({}, {"memory__name": "newest"}, "memory.name=newest: must be one of mistakes, reservoir, balanced"),
    ({}, {"memory__name": "reservoir", "memory__forget": True}, "memory.forget=True: must be false"),
    (
        {},
        {"memory__name": "mistakes", "memory__growth": 0.2, "memory__replay_every": 9},
        "memory.growth=0.2: must be",
    ),
    ({}, {"memory__name": "mistakes", "memory__replay_epochs": 3}, "memory.replay_epochs=3: must be 1 without"),
]


@pytest.mark.parametrize("stream, keys, message", BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_ends_in_one_line(tmp_path, stream, keys, message):
    with pytest.raises(UserError) as error:
        run(settings(tmp_path, stream=stream, **keys))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_phase_without_training_samples(tmp_path):
    stream = {"name": "classes", "phases": [[0, 1], [9]]}
    config = settings(tmp_path, stream=stream, dataset__train_size=9)  # classes take turns
    missing = sorted(set(range(10)) - set(labels(config).tolist()))
    stream["phases"] = [[label for label in range(10) if label not in missing], missing]
    with pytest.raises(UserError, match="phase 2 has no training samples"):
        run(settings(tmp_path, stream=stream, dataset__train_size=9, batch_size=1))


@pytest.mark.slow
def test_the_choices_are_groups_on_the_command_line(call, tmp_path):
    small = ["dataset.train_size=100", "epochs=1", "model.width=4", "eval_every=100"]
    assert (
        call(*small, "stream=classes", "stream.phases=[[0,1,2],[3]]", "memory=balanced", "memory.capacity=9").code
        == 0
    )
    answer = call(*small, "stream=classes", "stream.phases=[[0],[0]]")
    assert answer.code == 2 and answer.err.count("\n") == 1 and "class 0 is there twice" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("memory", [*STORES[1:], None], ids=str)
def test_a_stream_and_a_store_cost_little_time(tmp_path, monkeypatch, record_property, memory):
    """Batch 1, mistake_gated: what the stream and the store do takes less than a tenth of the engine's CPU time.

    Engines do not know of streams, so a sample costs no more than that.
    """
    spent = {"next": 0.0, "trained": 0.0, "presented": 0.0, "start_phase": 0.0, "run": 0.0}

    def clock(kind, name):
        method = getattr(kind, name)

        def timed(*arguments):
            start = time.process_time()
            result = method(*arguments)
            spent[name] += time.process_time() - start
            return result

        monkeypatch.setattr(kind, name, timed)

    for name in ("next", "trained", "presented", "start_phase"):
        clock(Cursor, name)
    clock(Trainer, "run")
    memory = {**memory, "capacity": 200} if memory else None
    if memory and "replay_every" in memory:
        memory["replay_every"] = 1000
    config = settings(
        tmp_path, rule="mistake_gated", batch_size=1, eval_every=10**6, stream=PHASED, memory=memory,
        model__width=300, dataset__train_size=None,
    )  # fmt: skip
    run(config)
    share = sum(value for name, value in spent.items() if name != "run") / spent["run"]
    kind = memory["name"] if memory else "phases alone"
    record_property("figure", f"{kind}: {100 * share:.1f} % of the CPU time of training")
    assert share < 0.1
