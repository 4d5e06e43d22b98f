"""Trackers get every row of metrics.csv once and never harm a run; with the real libraries, offline."""

from __future__ import annotations

import json
import struct
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import only_run, rows, timeless

from lazyexp.runs import trackers
from lazyexp.runs.columns import MEASURED
from lazyexp.runs.recorder import Recorder

MEASURES = [column.name for column in MEASURED if column.kind is not str]  # trackers get numbers


def logged_to_tensorboard(folder: Path):
    """Of every run: (step, value) of every figure, the settings, the status."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for path in (folder / "tensorboard").iterdir():
        events = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        figures = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        texts = {
            tag: [e.tensor_proto.string_val[0].decode() for e in events.Tensors(tag)]
            for tag in events.Tags()["tensors"]
        }
        lines = texts["settings/text_summary"][0].splitlines()[2:]
        settings = dict([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
        yield figures, settings, texts.get("status/text_summary", [None])[-1]


def logged_to_mlflow(folder: Path):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lazyexp")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id]):
        names = run.data.metrics
        figures = {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in names
        }
        yield figures, run.data.params, run.data.tags.get("status")


def records(path: Path):
    """The records of wandb's offline file: LevelDB's log format, blocks of 32 KiB of (crc, length, type, bytes)."""
    from wandb.proto import wandb_internal_pb2

    Record = vars(wandb_internal_pb2)["Record"]

    content, position, parts = path.read_bytes(), 7, b""  # after the file's header
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if not kind:
            break
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def logged_to_wandb(folder: Path):
    """As `logged_to_tensorboard`; the files of a resumed run have one id."""
    runs: dict = defaultdict(lambda: (defaultdict(list), {}, {}))
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        id = None
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                id = record.run.run_id
                runs[id][1].update({item.key: json.loads(item.value_json) for item in record.run.config.update})
            elif kind == "history":
                items = {
                    (item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item
                }
                for name in items.keys() & set(MEASURES):
                    runs[id][0][name].append((record.history.step.num, items[name]))
            elif kind == "summary":
                for item in record.summary.update:
                    runs[id][2][item.key or item.nested_key[0]] = json.loads(item.value_json)
    for figures, settings, summary in runs.values():
        yield figures, settings, summary.get("status")


REAL = [
    pytest.param("tensorboard", logged_to_tensorboard),
    pytest.param("mlflow", logged_to_mlflow, marks=pytest.mark.slow),
    pytest.param("wandb", logged_to_wandb, marks=pytest.mark.slow),
]


@pytest.fixture
def train(call, toy_npz, monkeypatch):
    """`train("tracker=...", ...)`: four rows on toy data, a checkpoint after each."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    data = ("dataset=folder", f"dataset.path={toy_npz}", "model.width=8", "epochs=2", "eval_every=200")
    return lambda *more: call(*data, "checkpoint_every=0", *more)


def fails_at_checkpoint(monkeypatch, number):
    """Make the run fail between a row and the checkpoint after it."""
    save, calls = Recorder.checkpoint, []

    def failing(self, state):
        calls.append(1)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        save(self, state)

    monkeypatch.setattr(Recorder, "checkpoint", failing)
    return lambda: monkeypatch.setattr(Recorder, "checkpoint", save)


def expected(folder: Path):
    """(step, value) of every figure in metrics.csv."""
    table = rows(folder / "metrics.csv")
    return {
        name: [(int(row["samples_seen"]), float(row[name])) for row in table if row[name] != ""]
        for name in MEASURES
        if table[-1][name] != ""
    }


def compare(logged, folder: Path):
    ((figures, settings, status),) = logged
    wanted = expected(folder)
    assert set(figures) == set(wanted) and len(wanted["epoch"]) == 5
    for name, pairs in wanted.items():
        assert [step for step, _ in figures[name]] == [step for step, _ in pairs], name
        if "seconds" not in name:  # a repeated row has other times
            assert [value for _, value in figures[name]] == pytest.approx([value for _, value in pairs], rel=1e-6), (
                name
            )
    assert str(settings["model.width" if "model.width" in settings else "width"]) == "8"
    assert str(settings["rule"]) == "lazy" and str(settings["seed"]) == "0"
    assert status == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("name, logged", REAL)
def test_the_rows_the_settings_and_the_end(train, tmp_path, name, logged):
    pytest.importorskip(name)
    before = set(tmp_path.iterdir())
    answer = train(f"tracker={name}")
    assert answer.code == 0 and "warning" not in answer.err
    run = only_run(tmp_path / "runs")
    compare(logged(tmp_path / "runs"), run)
    assert not (run / trackers.MEMORY).exists() and set(tmp_path.iterdir()) - before == {tmp_path / "runs"}
    assert "finished before" in train(f"tracker={name}").out and "finished before" in train().out


@pytest.mark.slow
@pytest.mark.parametrize("name, logged", REAL)
def test_a_resumed_run_continues_the_same_tracker_run_without_duplicates(train, tmp_path, monkeypatch, name, logged):
    pytest.importorskip(name)
    undo = fails_at_checkpoint(monkeypatch, 3)
    assert train(f"tracker={name}").code != 0
    undo()
    (memory,) = tmp_path.glob("runs/*/" + trackers.MEMORY)
    assert json.loads(memory.read_text())["step"] == 600
    assert train(f"tracker={name}").code == 0
    compare(logged(tmp_path / "runs"), only_run(tmp_path / "runs"))


class Fake:
    """A tracker that records its calls, and fails at one of them."""

    fails_at: str | None = None
    error: type[BaseException] = RuntimeError

    def __init__(self, run_id, settings, folder, id):
        self.id, self.calls = id or "new", Fake.all
        self.record("init", id)

    def record(self, what, *values):
        if what == Fake.fails_at:
            raise Fake.error("of no\nuse")
        self.calls.append((what, *values))

    def row(self, step, figures):
        self.record("row", step)

    def finish(self, status):
        self.record("finish", status)


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.setattr(Fake, "all", [], raising=False)
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Fake)
    return Fake.all


@pytest.mark.slow
@pytest.mark.parametrize(
    "error, at",
    [
        (RuntimeError, "init"),
        (SystemExit, "row"),
        (OSError, "finish"),
        *(
            pytest.param(error, at, marks=pytest.mark.slow)
            for error, at in (
                (RuntimeError, "row"),
                (RuntimeError, "finish"),
                (SystemExit, "init"),
                (SystemExit, "finish"),
                (OSError, "init"),
                (OSError, "row"),
            )
        ),
    ],
)
def test_a_failing_tracker_warns_once_and_harms_nothing(train, calls, tmp_path, monkeypatch, at, error):
    monkeypatch.setattr(Fake, "fails_at", at)
    monkeypatch.setattr(Fake, "error", error)
    answer = train("tracker=wandb", "runs_dir=with")
    assert answer.code == 0
    (warning,) = [line for line in answer.err.splitlines() if "warning" in line]
    assert f"tracker=wandb: {error.__name__}: of no use; the run continues without it" in warning
    assert train("runs_dir=without").code == 0
    with_it, without = only_run(tmp_path / "with"), only_run(tmp_path / "without")
    assert with_it.name == without.name
    for name in ("metrics.csv", "summary.csv"):
        assert timeless(with_it / name) == timeless(without / name)


@pytest.mark.slow
def test_a_missing_library_is_named(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    answer = train("tracker=wandb")
    assert answer.code == 0 and 'pip install "lazyexp[wandb]"' in answer.err


def test_an_unknown_tracker_is_refused(train):
    answer = train("tracker=notebook")
    assert answer.code == 2 and "tracker=notebook: must be one of tensorboard, mlflow, wandb" in answer.err


@pytest.mark.slow
def test_the_order_of_calls(train, calls, monkeypatch):
    undo = fails_at_checkpoint(monkeypatch, 2)
    train("tracker=wandb")
    undo()
    assert calls == [("init", None), ("row", 0), ("row", 200), ("row", 400), ("finish", "failed")]
    calls.clear()
    train("tracker=wandb")  # the row at 400 is repeated
    assert calls == [("init", "new"), ("row", 600), ("row", 800), ("finish", "finished")]
    calls.clear()
    train("tracker=wandb", "overwrite=true")
    assert calls[0] == ("init", None) and len(calls) == 7


@pytest.mark.slow
def test_a_tracker_added_to_a_resumed_run(train, calls, monkeypatch):
    undo = fails_at_checkpoint(monkeypatch, 3)
    train()
    undo()
    train("tracker=wandb")
    assert calls == [("init", None), *(("row", step) for step in (0, 200, 400, 600, 800)), ("finish", "finished")]


def test_the_memory_of_another_run_is_not_used(tmp_path):
    (tmp_path / trackers.MEMORY).write_text('{"tracker": "wandb", "id": "old", "step": 9}')
    trackers.Tracking(None, tmp_path, tmp_path).start("run", {}, False, [])
    assert not (tmp_path / trackers.MEMORY).exists()
    for content in ("", "[]", '{"tracker": "mlflow", "id": "old", "step": 9}'):
        (tmp_path / trackers.MEMORY).write_text(content)
        assert trackers.Tracking("wandb", tmp_path, tmp_path)._recall() == {}


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("mlflow"), reason="needs mlflow")
def test_an_unreachable_server(train, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    answer = train("tracker=mlflow")
    assert answer.code == 0 and answer.err.count("warning: tracker=mlflow") == 1
