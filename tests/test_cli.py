"""The command as its users meet it: help, errors, sweeps, installation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import only_run, rows, write_idx

from lazyexp.config.compose import compose_settings, hydra_session, register
from lazyexp.config.fields import walk
from lazyexp.config.registry import DATASETS, RULES
from lazyexp.config.schema import Config, Settings
from lazyexp.config.sweeps import expand
from lazyexp.settings import checked, sweep_settings

QUICK = ("epochs=1", "model.width=20", "dataset.train_size=100")
ROOT = Path(__file__).resolve().parent.parent


def test_the_learning_rate_falls_linearly_by_default(call, tmp_path):
    """The last of 10 batches of 100 samples is at a tenth of the learning rate: 0.01 * (1 - 9 / 10)."""
    assert Config().optimizer.schedule == "linear" and Config().optimizer.warmup == 0
    assert call("dataset.train_size=1000", "batch_size=100", "epochs=1", "model.width=8").code == 0
    assert float(rows(only_run(tmp_path) / "metrics.csv")[-1]["learning_rate"]) == pytest.approx(0.001)


@pytest.mark.slow
def test_the_default_run_works_offline(call):
    answer = call("epochs=1")
    assert answer.code == 0
    assert "test accuracy" in answer.out and "to 90.0%" in answer.out
    folder = only_run(Path("runs"))
    assert str(folder) in answer.out
    found = {path.name for path in folder.iterdir()} - {".lock"}
    assert found == {"metrics.csv", "summary.csv", "run.json", "learned.npz", "model.pt", "predictions.npz"}


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["rule=nonsense"], "rule=nonsense: no such choice; must be one of backprop, bls, composer_selective"),
        (["rule.name=nonsense"], "rule.name=nonsense: must be one of backprop"),
        (["dataset=nonsense"], "dataset=nonsense: no such choice"),
        (["sweep=nonsense"], "sweep=nonsense: no such choice"),
        (["nonsense=1"], "nonsense: unknown key"),
        (["+nonsense=1"], "nonsense: unknown key"),
        (["+model.nonsense=1"], "model.nonsense: unknown key"),
        (["+rule.nonsense=1"], "rule.nonsense: unknown option"),
        (["rule.threshold=0.5"], "rule.threshold: unknown option of rule lazy"),
        (["epochs=many"], "epochs"),
        (["epochs=1.5"], "epochs"),
        (["epochs=0"], "epochs=0: must be at least 1"),
        (["batch_size=0"], "batch_size=0"),
        (["batch_size=-3"], "batch_size=-3"),
        (["eval_every=0"], "eval_every=0"),
        (["model.width=0"], "model.width=0: must be at least 1"),
        (["model.depth=-1"], "model.depth=-1"),
        (["model.activation=sine"], "model.activation=sine: must be one of relu"),
        (["dataset.train_size=0"], "dataset.train_size=0"),
        (["dataset.train_size=99999"], "dataset.train_size=99999: larger than the data, 1437"),
        (["dataset.val_size=1437"], "dataset.val_size=1437: too large"),
        (["dataset.max_shift=8", "dataset.augment=shift"], "dataset.max_shift=8: must be smaller"),
        (["optimizer.lr=0"], "optimizer.lr=0"),
        (["optimizer.lr=-1"], "optimizer.lr=-1"),
        (["optimizer.lr=nan"], "optimizer.lr=nan"),
        (["optimizer.lr=inf"], "optimizer.lr=inf"),
        (["optimizer.momentum=1"], "optimizer.momentum=1"),
        (["optimizer=adam", "optimizer.momentum=0.9"], "momentum is a key of sgd"),
        (["model=cnn", "engine=fast"], "engine=fast"),
        (["device=cuda:99"], "device=cuda:99"),
        (["device=toaster"], "device=toaster: must be auto, cpu, cuda or cuda:N"),
        (["targets=[0.5,1.5]"], "targets=[0.5, 1.5]: must be accuracies"),
        (["targets=[0]"], "targets"),
        (["targets=0.9"], "targets"),
        (["stop_at=2"], "stop_at=2"),
        (["batch_size=5000"], "batch_size=5000: larger than the training set (1437)"),
        (["seed=-1"], "seed=-1"),
        (["seed=null"], "seed"),
        (["checkpoint_every=-1"], "checkpoint_every"),
        (["dataset=folder"], "dataset.path"),
        (["dataset=folder", "dataset.path=/nowhere"], "/nowhere: no such file or folder"),
        (["dataset.subset=/nowhere.npz"], "not a readable learned.npz"),
        (["rule=confidence", "rule.threshold=2"], "rule.threshold=2"),
        (["runs_dir=/proc/nowhere"], "runs_dir: cannot write to /proc/nowhere"),
        (["epochs=[1"], "epochs=[1"),
        (["seed=1,2"], "seed"),
        (["-m", "seed=0,1", "model.width=0,20"], "model.width=0"),
        (["-m", "seed=0,1", "rule=lazy,nonsense"], "rule=nonsense: no such choice"),
        (["-m", "seed=0,1", "+nonsense=1"], "nonsense: unknown key"),
        (["-m", "sweep=nonsense"], "sweep=nonsense: no such choice"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(call, arguments, names):
    answer = call(*QUICK[:2], *arguments)
    assert answer.code == 2
    assert answer.err.startswith("lazyexp: error: ") and answer.err.count("\n") == 1
    assert names in answer.err
    assert not list(Path().rglob("metrics.csv"))  # no work was begun


@pytest.mark.skipif("torch" in sys.modules and sys.modules["torch"].cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu(call):
    answer = call("device=cuda")
    assert answer.code == 2 and "device=cuda: there are 0 CUDA devices here" in answer.err


def test_damaged_data_is_an_error_line(call, tmp_path):
    write_idx(tmp_path / "data/MNIST/raw/train-images-idx3-ubyte", np.zeros((5, 28, 28), np.uint8))
    for name in ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / "data/MNIST/raw" / name).write_bytes(b"")
    answer = call("dataset=mnist")
    assert answer.code == 2 and answer.err.count("\n") == 1 and "train-labels-idx1-ubyte" in answer.err


@pytest.mark.slow
def test_a_sweep_runs_all_combinations(call):
    answer = call("-m", *QUICK, "rule=lazy,backprop", "seed=0,1", "rule.name=${hydra:runtime.choices.rule}")
    assert answer.code == 2  # Hydra's resolvers are not part of our settings
    answer = call("-m", *QUICK, "rule=lazy,backprop", "seed=0,1", report=True)
    assert answer.code == 0 and "4 of 4 runs done" in answer.out
    found = {(row["rule"], row["seed"]) for path in Path("runs").glob("*/summary.csv") for row in rows(path)}
    assert found == {("lazy", "0"), ("lazy", "1"), ("backprop", "0"), ("backprop", "1")}
    assert "[4/4] rule=backprop, seed=1: finished, test accuracy " in answer.out
    assert "report: " in answer.out and Path("runs/report/report.html").exists()
    again = call("-m", *QUICK, "rule=lazy,backprop", "seed=0,1,2")
    assert again.out.count("finished before") == 4 and "6 of 6 runs done" in again.out


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_others(call):
    answer = call("-m", *QUICK, "batch_size=5000,10", "seed=0,1")
    assert answer.code == 1
    assert "2 of 4 runs done" in answer.out
    assert answer.err.count("lazyexp: failed: batch_size=5000, seed=") == 2
    assert len(list(Path("runs").glob("*/summary.csv"))) == 2


@pytest.mark.slow
def test_diverged_runs_are_results(call):
    answer = call("-m", *QUICK, "rule=backprop", "optimizer.lr=0.01,1e30")
    assert answer.code == 0 and "2 of 2 runs done (1 diverged)" in answer.out
    states = sorted(rows(path)[0]["status"] for path in Path("runs").glob("*/summary.csv"))
    assert states == ["diverged", "finished"]


def test_help_shows_every_key_choice_and_examples(call):
    answer = call("--help")
    assert answer.code == 0
    for key, _ in walk(Config):
        assert key == "rule" or f"\n  {key} " in answer.out, key
    for rule in RULES:
        assert f"\n  {rule} " in answer.out, rule
    for text in ("lazyexp rule=lazy dataset=emnist", "rule: backprop, bls, composer_selective_backprop", *DATASETS):
        assert text in answer.out


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LAZYEXP_DATA")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env={**kept, **environment}, capture_output=True, text=True
    )


@pytest.mark.slow
def test_help_and_completion_do_not_import_torch(tmp_path):
    for arguments in (["--help"], ["-sc", "query=bash"], ["--cfg", "job"]):
        code = f"import sys; sys.argv = ['lazyexp', *{arguments!r}]; from lazyexp.cli import main\ntry: main()\n"
        code += "except SystemExit as end: assert end.code == 0, end.code\nassert 'torch' not in sys.modules"
        done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT), COMP_LINE="lazyexp rule=", COMP_POINT="13")
        assert done.returncode == 0, done.stderr
    assert (
        "rule="
        in python("-m", "lazyexp", "-sc", "query=bash", cwd=ROOT, COMP_LINE="lazyexp ru", COMP_POINT="10").stdout
    )


@pytest.mark.slow
def test_from_a_checkout_started_anywhere(tmp_path):
    done = python("-m", "lazyexp", *QUICK, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path / "runs")


@pytest.mark.slow
def test_from_a_wheel_installed_elsewhere(tmp_path):
    """Builds the wheel, unpacks it as pip would, and runs it without the checkout in sight."""
    built = python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    done = python(
        "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (target / "lazyexp" / "conf" / "config.yaml").exists()
    assert (target / "lazyexp" / "py.typed").exists()
    code = "import lazyexp, sys; print(lazyexp.__file__); sys.argv = ['lazyexp', *sys.argv[1:]]\n"
    code += "from lazyexp.cli import main; main()"
    done = python("-c", code, *QUICK, cwd=tmp_path, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout and only_run(tmp_path / "runs")


SWEEPS = sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml"))


def composed_in_bulk(*overrides: str) -> tuple[list[list[str]], list[Settings]]:
    """The overrides of a sweep's runs, and the settings of those that differ in more than plain numbers."""
    register()
    with hydra_session():
        jobs = expand(list(overrides))
        return jobs, sweep_settings(jobs, [])


def expanded(*overrides: str) -> list[Settings]:
    register()
    with hydra_session():
        return [checked(compose_settings(job)) for job in expand(list(overrides))]


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_named_sweeps_have_a_matched_baseline(name):
    jobs, settings = composed_in_bulk(f"sweep={name}")
    assert {job.runs_dir for job in settings} == {f"runs/{name}"}
    rules = {job.rule["name"] for job in settings}
    assert {"backprop", "lazy"} <= rules and (name != "methods" or rules == set(RULES))
    seeds = {word for job in jobs for word in job if word.startswith("seed=")}
    assert len(seeds) == (5 if name in ("methods", "energy", "headline") else 3)
    text = (ROOT / "conf" / "sweep" / f"{name}.yaml").read_text()
    assert all(word in text for word in ("# Our choices", "# Cost:", "# How to read:"))


def test_the_promised_sweeps_exist():
    promised = "headline width dataset_size augmentation learning_rate batch_size energy datasets coreset rules"
    promised += " mistake_gating incremental replay scaling batch_limits"
    more = "equal_seconds shifts failure methods cifar10 cifar10_infobatch cifar10_ies cifar10_pdd cifar10_kakurenbo"
    more += " cifar10_deepcore"
    assert set(promised.split()) <= set(SWEEPS) <= {*promised.split(), *more.split()}


@pytest.mark.slow
def test_any_key_of_a_sweep_can_be_overridden():
    jobs = expanded("sweep=headline", "seed=7,8", "dataset=mnist", "epochs=2", "model.width=10,20,30", "rule=lazy")
    assert len(jobs) == 6 and {job.dataset.name for job in jobs} == {"mnist"}
    assert {job.seed for job in jobs} == {7, 8} and {job.epochs for job in jobs} == {2}


@pytest.mark.slow
def test_a_named_sweep_runs(call):
    small = ("dataset=digits", "seed=0", "model.width=20", "epochs=1")
    answer = call("-m", "sweep=coreset", *small)
    assert answer.code == 0, answer.err
    assert len(list(Path("runs/coreset").glob("*/summary.csv"))) == 6


@pytest.mark.slow
def test_fast_lazy_brings_its_settings_and_they_can_be_overridden():
    (job,) = expanded("rule=fast_lazy", "optimizer.lr=0.1")
    assert (job.rule["name"], job.rule["skip_threshold"]) == ("spaced", 0.95)
    assert (job.packing.block_size, job.packing.components) == (2048, 64)
    assert (job.batch_size, job.epochs, job.optimizer.lr, job.optimizer.schedule) == (32, 12, 0.1, "linear")


@pytest.mark.parametrize(
    "words", [["runs_dir="], ["data_dir="], ["optimizer.warmup=1"], ["rule=spaced", "rule.max_interval=" + "9" * 20]]
)
def test_settings_that_used_to_slip_through(call, words):
    answer = call(*words)
    assert answer.code == 2 and answer.err.startswith("lazyexp: error: ") and answer.err.count("\n") == 1


@pytest.fixture
def custom_conf(tmp_path):
    (tmp_path / "my_conf" / "rule").mkdir(parents=True)
    (tmp_path / "my_conf" / "rule" / "mine.yaml").write_text("name: confidence\nthreshold: 0.6\n")
    return tmp_path / "my_conf"


SMALL = ["dataset.train_size=100", "epochs=1", "model.width=4", "device=cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--config-dir {0}", "--config-dir={0}", "-cd {0}", "hydra.searchpath=[file://{0}]"])
@pytest.mark.parametrize("multirun", [False, True])
def test_custom_settings_files(call, custom_conf, tmp_path, flag, multirun):
    words = [*flag.format(custom_conf).split(), "rule=mine", *SMALL]
    answer = call(*(["-m", "seed=0,1"] if multirun else []), *words)
    assert answer.code == 0, answer.err
    found = [rows(path)[0] for path in tmp_path.glob("runs/*/summary.csv")]
    assert len(found) == 1 + multirun
    assert all(row["rule"] == "confidence" and '"threshold": 0.6' in row["rule_options"] for row in found)


@pytest.mark.slow
def test_the_folder_of_settings_files_may_have_any_name(call, custom_conf, tmp_path):
    folder = custom_conf.rename(tmp_path / "it's [x], (1) größe")
    assert call("--config-dir", str(folder), "rule=mine", *SMALL).code == 0
    (path,) = tmp_path.glob("runs/*/summary.csv")
    assert rows(path)[0]["rule"] == "confidence"


@pytest.mark.slow
def test_a_matched_subset_is_found_in_a_folder_with_brackets(call):
    words = [*SMALL, "runs_dir='r [x]*'"]
    assert call(*words, "rule=lazy").code == 0
    assert call(*words, "rule=backprop", "dataset.subset=matched").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "nowhere", "epochs=1"],
        ["--config-dir"],
        ["--config-dir", "my_conf", "epochs=0"],
        ["-m", "--config-dir", "my_conf", "seed=0,-1"],
        ["--config-name", "other"],
        ["-m", "hydra.launcher._target_=x"],
        ["--run", "epochs=0"],
        ["-r", "epochs=0"],
        ["--multi", "seed=0,-1"],
        ["--resolve", "epochs=0"],
        ["--bogus"],
        ["-m", "--config-path", "x"],
        ["--cfg", "job", "nonsense=1"],
    ],
    ids=" ".join,
)
def test_hydras_flags_do_not_leave_the_guarded_path(call, custom_conf, words):
    answer = call(*words)
    assert answer.code == 2 and answer.err.startswith("lazyexp: error: ") and answer.err.count("\n") == 1
