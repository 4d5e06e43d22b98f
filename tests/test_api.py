"""From Python: the same runs as from the shell, in data frames, with exceptions."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lazyexp
from lazyexp.errors import UserError
from lazyexp.runs.folder import RunFolder, RunIsBusy

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("epochs=2", "eval_every=500", "model.width=16", "batch_size=16", "optimizer.lr=0.1")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_run_in_data_frames():
    run = lazyexp.run(*SMALL, rule="confidence", rule__threshold=0.7, dataset__train_size=800)
    assert run.status == "finished" and run.folder.parent.name == "runs"
    assert run.metrics["samples_seen"].tolist() == [0, 512, 1008, 1504, 1600]
    assert run.metrics["test_accuracy"].dtype == float
    assert run.summary["test_accuracy"] == run.metrics["test_accuracy"].iloc[-1]
    assert run.summary["batch_size"] == 16 and run.summary["energy"] is True
    assert run.settings.rule == {**run.settings.rule, "name": "confidence", "threshold": 0.7}
    learned = run.learned
    assert len(learned) == 800 and (learned["presented"] == 2).all()
    assert learned["learned"].sum() == run.summary["backward_samples"]
    assert learned.index.is_unique and learned.index.max() < 1437


@pytest.mark.slow
def test_a_run_inside_another_hydra_application(tmp_path):
    """It finishes, and the application composes its settings afterwards as before."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "app.yaml").write_text("lr: 3\n")
    with initialize_config_dir(str(tmp_path), version_base=None):
        outer = GlobalHydra.instance().hydra
        assert lazyexp.run("epochs=1", "dataset.train_size=20", "model.width=4").status == "finished"
        assert GlobalHydra.instance().hydra is outer
        assert compose("app") == {"lr": 3}
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.slow
def test_the_model_is_the_trained_one():
    from lazyexp.config.schema import DatasetConfig
    from lazyexp.data import load_data

    run = lazyexp.run(*SMALL)
    model = run.model()
    assert not model.training
    images, targets = load_data(DatasetConfig(), "data", torch.device("cpu")).test.part(0, 360)
    with torch.no_grad():
        right = (model(images).argmax(1) == targets).float().mean().item()
    assert right == pytest.approx(run.summary["test_accuracy"])


@pytest.mark.slow
def test_a_run_predicts_without_its_data_set(toy_npz):
    """With the files deleted: network, scaling and class names are in the run's folder."""
    run = lazyexp.run(*SMALL, "dataset=folder", dataset__path=str(toy_npz))
    with np.load(toy_npz) as archive:
        images, labels = archive["x_test"], archive["y_test"]
    toy_npz.unlink()
    found = lazyexp.open(run.folder)
    right = (found.predict(images) == labels).mean()
    assert right == pytest.approx(run.summary["test_accuracy"])
    assert (found.predictions["prediction"] == found.predict(images)).all()
    assert (found.predictions["target"] == labels).all() and found.predictions["confidence"].between(0, 1).all()
    inputs = found.preprocess(images[:, None])
    assert inputs.shape == (100, 1, 6, 6) and torch.equal(inputs, found.preprocess(images[..., None]))
    assert abs(float(inputs.mean())) < 0.1 and found.class_names is None
    for wrong, message in ((images[:, :5], "must be"), (images / 255, "at most 1"), ([["a"]], "not an array")):
        with pytest.raises(UserError, match=message):
            found.preprocess(wrong)


@pytest.mark.slow
def test_the_first_row_is_the_untrained_network():
    run = lazyexp.run(*SMALL, targets=[0.01])
    first = run.metrics.iloc[0]
    assert first["samples_seen"] == first["updates"] == first["energy_l1"] == 0 and pd.isna(first["train_loss"])
    assert first["test_accuracy"] > 0.01 and run.summary["samples_to_0.01"] > 0  # no target counts as reached there
    assert first["test_loss"] > run.metrics["test_loss"].iloc[-1] > 0


@pytest.mark.slow
def test_evaluations_and_targets_fit_the_samples_in_use():
    run = lazyexp.run("epochs=2", "model.width=4", dataset__train_size=300)
    assert run.metrics["samples_seen"].tolist() == [0, 300, 600] and run.settings.targets == [0.82, 0.9]


@pytest.mark.slow
def test_a_finished_run_is_returned_at_once():
    first = lazyexp.run(*SMALL)
    written = (first.folder / "metrics.csv").stat().st_mtime_ns
    again = lazyexp.run(*SMALL)
    assert again.folder == first.folder and (again.folder / "metrics.csv").stat().st_mtime_ns == written
    pd.testing.assert_series_equal(again.summary, first.summary)


@pytest.mark.slow
def test_a_sweep_and_all_its_runs_in_one_table():
    runs = lazyexp.sweep(*SMALL, "rule=lazy,backprop", seed=[0, 1], runs_dir="many")
    assert [(run.summary["rule"], run.summary["seed"]) for run in runs] == [
        ("lazy", 0), ("lazy", 1), ("backprop", 0), ("backprop", 1)
    ]  # fmt: skip
    table = lazyexp.read("many")
    assert len(table) == sum(len(run.metrics) for run in runs)
    assert set(table["optimizer.lr"]) == {0.1} and set(table["status"]) == {"finished"}
    last = lazyexp.finished(table)
    assert sorted(last["run_id"]) == sorted(run.folder.name for run in runs)
    assert (last["samples_seen"] == 2 * 1437).all()


@pytest.mark.slow
def test_what_fails_in_a_sweep_is_reported_at_the_end():
    with pytest.raises(UserError, match="1 of 2 runs failed.*batch_size=2000"):
        lazyexp.sweep("epochs=1", "model.width=8", batch_size=[2000, 16])
    assert len(lazyexp.finished(lazyexp.read("runs"))) == 1


@pytest.mark.parametrize(
    "words, settings, message",
    [
        (["rule=lasy"], {}, "lasy"),
        ([], {"epochs": 0}, "epochs=0"),
        (["sweep=headline"], {}, "is a sweep of several runs"),
        ([], {"modell__width": 3}, "modell"),
        (["epochs"], {}, "key=value"),
    ],
)
def test_errors_are_exceptions(words, settings, message):
    with pytest.raises(UserError, match=message):
        lazyexp.run(*words, **settings)
    assert issubclass(lazyexp.UserError, Exception)


@pytest.mark.slow
def test_a_busy_run_and_an_interrupted_one(monkeypatch):
    run = lazyexp.run(*SMALL, seed=3)
    with RunFolder(run.folder, {}), pytest.raises(RunIsBusy):
        lazyexp.run(*SMALL, seed=3)
    with monkeypatch.context() as patch:
        patch.setattr("lazyexp.runs.recorder.Recorder.stop", lambda self: True)
        with pytest.raises(KeyboardInterrupt):
            lazyexp.run(*SMALL, seed=4)
    assert lazyexp.run(*SMALL, seed=4).status == "finished"


def test_no_runs():
    with pytest.raises(UserError, match="no readable run"):
        lazyexp.read("nothing")


@pytest.mark.slow
def test_the_report_is_a_function(tmp_path):
    lazyexp.run(*SMALL)
    page = lazyexp.report("runs", out="paper", max_groups=0)
    assert page == Path("paper/report.html") and (tmp_path / page).exists()


def test_the_report_has_the_defaults_of_the_command():
    from lazyexp.report import cli
    from lazyexp.report.build import make_report

    command = cli.parser().parse_args(["runs"])
    for function in (type(lazyexp.report).__call__, make_report):
        default = {name: one.default for name, one in inspect.signature(function).parameters.items()}
        assert (default["max_groups"], default["baseline"]) == (command.max_groups, command.baseline)
        assert default["out"] is command.out is None and not default["where"] and not command.where


@pytest.mark.parametrize("first", ["import lazyexp.report.cli", "import lazyexp; lazyexp.report"])
def test_the_report_is_a_package_and_a_function_in_any_order(first):
    code = f"{first}; import lazyexp; from lazyexp.report import cli; assert callable(lazyexp.report)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_alone_imports_neither_torch_nor_pandas():
    code = "import sys, lazyexp; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_is_offered_is_there():
    for name in lazyexp.__all__:
        assert getattr(lazyexp, name) is not None


@pytest.mark.slow
def test_settings_may_be_python_objects(tmp_path):
    run = lazyexp.run(*SMALL, seed=np.int64(3), runs_dir=Path("elsewhere"), targets=(0.1, 0.2))
    assert run.folder.parent.name == "elsewhere" and int(run.summary["seed"]) == 3
    (tmp_path / "my_part.py").write_text(
        "from torch.nn import Flatten, Linear, Sequential\n\n\n"
        "def net(shape, classes, width):\n"
        "    return Sequential(Flatten(), Linear(64, width), Linear(width, classes))\n"
    )
    own = lazyexp.run("epochs=1", model___target_="my_part.net", model__options={"width": 5})
    assert own.model()[1].out_features == 5
    with pytest.raises(UserError, match="must be null, a bool, a number"):
        lazyexp.run(seed=object())


@pytest.mark.slow
def test_the_model_of_a_run_on_a_matched_subset():
    words = ["dataset.train_size=200", "epochs=1", "model.width=4"]
    lazyexp.run(*words)
    assert lazyexp.run(*words, "rule=backprop", "dataset.subset=matched").model()[1].out_features == 4


def test_launchers_are_for_the_shell():
    with pytest.raises(UserError, match="hydra/launcher=joblib: from Python"):
        lazyexp.sweep("hydra/launcher=joblib", seed=[0, 1])


def test_bars_fit_a_notebook_everywhere():
    users = [path for path in (ROOT / "lazyexp").rglob("*.py") if "import tqdm" in path.read_text()]
    assert {path.name for path in users} == {"settings.py", "terminal.py"}
