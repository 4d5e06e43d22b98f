"""Custom models, rules, data and optimizers."""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import only_run, rows, timeless, toy
from torch import nn

from lazyexp.config.imports import resolve
from lazyexp.config.schema import ModelConfig, OptimizerConfig, PackingConfig
from lazyexp.data import Samples
from lazyexp.models.builtin import make_model
from lazyexp.models.checks import check_output
from lazyexp.rules import RunInfo, make_rule
from lazyexp.runs.rebuild import rebuild
from lazyexp.training import EngineSpec, accuracy, make_engine
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.layers import Layers

ROOT = Path(__file__).resolve().parent.parent
PARTS = """
from dataclasses import dataclass
import numpy as np
import torch
from torch import nn
from lazyexp.errors import UserError
from lazyexp.rules import Rule
from lazyexp.config.fields import setting

class Net(nn.Module):
    def __init__(self, shape, classes, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], width),
            nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, classes))
    def forward(self, x):
        return self.layers(x)

class Tokens(nn.Module):
    def __init__(self, shape, classes, letters=6):
        super().__init__()
        self.table, self.out = nn.Embedding(letters, 8), nn.Linear(8 * shape[0], classes)
    def forward(self, x):
        return self.out(self.table(x).flatten(1))

def no_shape(classes): return nn.Linear(1, classes)
def not_a_module(shape, classes): return 3
def wide(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))
def frozen(shape, classes): return nn.Flatten()
VALUE = 3

@dataclass
class HalfLazy(Rule):
    threshold: float = 0.5
    def select(self, batch): return batch.wrong | (batch.confidence < self.threshold)
@dataclass
class Bounded(Rule):
    low: float = setting(0.5, at_least=0)
    high: float = setting(0.5, above=0, at_most=1)
    def check(self):
        if self.low > self.high: raise UserError("rule.low: must not be above rule.high")
@dataclass
class Raises(Rule):
    def select(self, batch):
        if batch.index.min() >= 0: raise ValueError("no idea")
@dataclass
class BadStart(Rule):
    def start(self, info): raise ValueError("no start")
@dataclass
class BadName(Rule):
    def identity(self): raise ValueError("no name")
@dataclass
class BadUpdate(Rule):
    def update(self, batch): raise ValueError("no update")
@dataclass
class NoIndices(Rule):
    def epoch_indices(self, epoch): return torch.empty(0, dtype=torch.int64)
@dataclass
class Broad(Rule):
    def select(self, batch): return batch.wrong[:, None]
@dataclass
class Beyond(Rule):
    def epoch_indices(self, epoch): return torch.tensor([10**6])
class NoRule: pass

def windows(n=200, length=5):
    x = np.random.default_rng(0).integers(0, 6, (n, length))
    y = x[:, -1]
    return x[:150], y[:150], x[150:], y[150:]
def lengths():
    x, y, a, b = windows()
    return x, y[:-1], a, b
def beyond():
    x, y, a, b = windows()
    return x, y % 3, a, b
def negative():
    x, y, a, b = windows()
    return x, y - 1, a, b
def three(): return 1, 2, 3
def photos():
    x, y = torch.rand(24, 3, 64, 64), torch.arange(24) % 3
    return x[:16], y[:16], x[16:], y[16:]
def pair():
    x = torch.rand(60, 1, 4, 4)
    y = torch.arange(60) % 3
    return torch.utils.data.TensorDataset(x[:40], y[:40]), torch.utils.data.TensorDataset(x[40:], y[40:])

def fails_in_two_lines(shape, classes):
    raise RuntimeError("first line\\nsecond line")
"""
SMALL = ["dataset.train_size=200", "epochs=2", "batch_size=20", "eval_every=100", "model.width=8"]
CUSTOM_MODEL = SMALL[:-1]
NUMBER = itertools.count()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A user's module in the current directory; its name differs in every test."""
    name = f"my_parts_{os.getpid()}_{next(NUMBER)}"
    (tmp_path / f"{name}.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    return name


BAD = [
    (["model=own"], "model=own: no such choice"),
    (["model._target_=nope_nets.Net"], "no module nope_nets in"),
    (["model._target_=M.Nope"], "has no Nope"),
    (["model._target_=M.fails_in_two_lines"], "RuntimeError: first line second line (M.py, line"),
    (["model._target_=M.VALUE"], "is a int, not a class or a function"),
    (["model._target_=Net"], "must be an import path"),
    (["model._target_=M.no_shape"], "unexpected keyword argument 'shape'"),
    (["model._target_=M.not_a_module"], "returned a int, not a torch.nn.Module"),
    (["model._target_=M.wide"], "its output is (2, 11) torch.float32, must be (2, 10) floats"),
    (["model._target_=M.frozen"], "has no parameters to train"),
    (["model._target_=M.Net", "model.options.nope=1"], "unexpected keyword argument 'nope'"),
    (["model._target_=M.Net", "model.width=7"], "model.width=7: must be unset here; use model.options.width=VALUE"),
    (["model.options.width=3"], "must be empty for model=mlp"),
    (["model=torchvision", "model.arch=nope"], "model.arch=nope: must be one of"),
    (["model=torchvision", "model.arch=alexnet", "model.options.small=true"], "is for ResNets"),
    (["rule._target_=M.NoRule"], "derived from lazyexp.Rule"),
    (["rule._target_=M.HalfLazy", "rule.nope=1"], "unknown option"),
    (["rule._target_=M.HalfLazy", "rule.threshold=high"], "must be of type float"),
    (["rule._target_=M.Bounded", "rule.low=-1"], "rule.low=-1.0: must be at least 0"),
    (["rule._target_=M.Bounded", "rule.high=2"], "rule.high=2.0: must be greater than 0, at most 1"),
    (["rule._target_=M.Bounded", "rule.high=0.1"], "rule.low: must not be above rule.high"),
    (["rule._target_=M.NoIndices"], "epoch_indices must return (m,) int64, m >= 1, positions of training samples"),
    (["rule._target_=M.BadStart"], "ValueError: no start (M.py, line "),
    (["rule._target_=M.BadName"], "ValueError: no name (M.py, line "),
    (["rule._target_=M.BadUpdate"], "ValueError: no update (M.py, line "),
    (["rule._target_=M.Raises"], "ValueError: no idea (M.py, line "),
    (["rule._target_=M.Broad"], "select must return None or (20,), not (20, 1)"),
    (["rule._target_=M.Beyond"], "epoch_indices must return (m,) int64"),
    (["dataset._target_=M.lengths"], "has 150 samples but"),
    (["dataset._target_=M.beyond"], "is mislabelled: labels run from 0 to 5, expected 0 to 2"),
    (["dataset._target_=M.negative"], "labels run from -1 to"),
    (["dataset._target_=M.three"], "must return (x_train, y_train, x_test, y_test)"),
    (["dataset._target_=M.windows", "dataset.options.nope=1"], "unexpected keyword argument 'nope'"),
    (["optimizer._target_=torch.optim.RMSprop", "optimizer.options.nope=1"], "'nope'"),
    (["optimizer._target_=torch.nn.Linear"], "optimizer._target_=torch.nn.Linear"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arguments, message", BAD, ids=[" ".join(words) for words, _ in BAD])
def test_errors_are_one_line(call, parts, arguments, message):
    words = [word.replace("=M.", f"={parts}.") for word in arguments]
    dataset = any(word.startswith("dataset._target_") for word in words)
    network = any(word.startswith(("model=", "model.")) for word in words)
    base = [word for word in SMALL if not (dataset and "train_size" in word) and not (network and "width" in word)]
    answer = call(*base, *words)
    assert answer.code == 2 and answer.err.count("\n") == 1, answer.err
    assert message.replace("M.py", f"{parts}.py") in answer.err


@pytest.mark.slow
def test_parts_are_found_in_the_current_directory(call, tmp_path, monkeypatch):
    """As for the command in a shell: no other entry of sys.path has the module."""
    name = f"only_here_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(PARTS)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".", str(tmp_path))])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert call(*SMALL, f"rule._target_={name}.HalfLazy", "epochs=1").code == 0


def test_files_in_the_current_directory_replace_no_library(tmp_path, monkeypatch):
    """Only a custom part is looked for there, after everything else."""
    (tmp_path / "queue.py").write_text("raise RuntimeError('shadows the library')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "queue")
    before = list(sys.path)
    resolve("lazyexp.rules.mistakes.Lazy", "rule", custom=False)
    assert sys.path == before
    resolve("torch.optim.RMSprop", "optimizer._target_")
    assert sys.path == [*before, str(tmp_path)]
    assert importlib.import_module("queue").Queue


@pytest.mark.slow
@pytest.mark.parametrize("group", ["model", "rule", "dataset", "optimizer"])
def test_source_and_options_of_every_part_are_in_the_run_id(call, parts, tmp_path, group):
    more = "class Fall(torch.optim.SGD): pass\n"
    (tmp_path / f"{parts}.py").write_text(PARTS + more)
    tokens = [f"model._target_={parts}.Tokens"]
    words, option = {
        "model": ([*CUSTOM_MODEL, f"model._target_={parts}.Net"], "model.options.width=5"),
        "rule": ([*SMALL, f"rule._target_={parts}.HalfLazy"], "rule.threshold=0.3"),
        "dataset": ([f"dataset._target_={parts}.windows", *tokens], "dataset.options.length=4"),
        "optimizer": ([*SMALL, f"optimizer._target_={parts}.Fall"], "optimizer.options.momentum=.5"),
    }[group]
    words = [*words, "epochs=1"]
    assert call(*words).code == 0 and "finished" in call(*words).out
    assert call(*words, option).code == 0
    (tmp_path / f"{parts}.py").write_text(PARTS + more + "# edited\n")
    del sys.modules[parts]
    importlib.invalidate_caches()
    assert call(*words).code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_initial_weights_depend_on_the_seed_alone(parts):
    config = ModelConfig(name="custom", _target_=f"{parts}.Net")

    def start(seed):
        return torch.cat([value.flatten() for value in make_model(config, (1, 8, 8), 10, seed).parameters()])

    torch.manual_seed(1)
    first = start(0)
    drawn = torch.rand(3)
    torch.manual_seed(2)
    assert torch.equal(start(0), first) and not torch.equal(start(1), first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)  # the global generator is not advanced


ARCHITECTURES = ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "convnext_tiny", "vgg11", "googlenet", "vit_b_16"]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_torchvision_models_take_any_number_of_channels(arch, channels):
    config = ModelConfig(name="torchvision", arch=arch, options={"image_size": 32} if arch == "vit_b_16" else {})
    model, three = make_model(config, (channels, 32, 32), 7, 0), make_model(config, (3, 32, 32), 7, 0)
    check_output(model, torch.rand(2, channels, 32, 32), 7, arch)
    custom, theirs = (
        next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d)) for net in (model, three)
    )
    assert custom.weight.shape == (len(theirs.weight), channels, *theirs.weight.shape[2:])
    assert custom.stride == theirs.stride and custom.padding == theirs.padding
    assert (custom.bias is None) == (theirs.bias is None)
    assert float(custom.weight.detach().std()) == pytest.approx(float(theirs.weight.detach().std()), rel=0.2)


@pytest.mark.slow
def test_a_torchvision_model_that_fails_in_training_is_an_error_of_one_line(call, parts):
    """With auxiliary outputs GoogLeNet returns logits in evaluation mode and three tensors in training mode."""
    words = ["model=torchvision", "model.arch=googlenet", "model.options.aux_logits=true", "batch_size=8", "epochs=1"]
    answer = call(*words, f"dataset._target_={parts}.photos", "rule=backprop")
    assert answer.code == 2 and answer.err.count("\n") == 1 and "googlenet" in answer.err, answer.err


@pytest.mark.slow
def test_a_model_is_in_the_run_id_and_in_run_json(call, parts, tmp_path):
    words = [*CUSTOM_MODEL, f"model._target_={parts}.Net"]
    assert call(*words, "model.options.width=12").code == 0
    assert call(*words).code == 0
    folders = sorted((tmp_path / "runs").glob("digits-lazy-Net-*"))
    assert len(folders) == 2
    facts = json.loads((folders[0] / "run.json").read_text())
    source = facts["sources"]["model"]
    assert source["target"] == f"{parts}.Net" and len(source["sha256"]) == 64
    assert Path(source["file"]) == tmp_path / f"{parts}.py"
    assert {rows(folder / "metrics.csv")[0]["width"] for folder in folders} == {""}


@pytest.mark.slow
def test_an_edited_source_file_makes_another_run(tmp_path):
    (tmp_path / "nets.py").write_text(PARTS)
    words = ["-m", "lazyexp", *CUSTOM_MODEL, "model._target_=nets.Net", "runs_dir=runs"]
    for text in (PARTS, PARTS + "\n# edited\n"):
        (tmp_path / "nets.py").write_text(text)
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").glob("digits-*"))) == 2


@pytest.mark.slow
def test_settings_files_and_sweeps(call, parts, tmp_path):
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    text = f"name: small_net\n_target_: {parts}.Net\noptions: {{width: 6}}\n"
    (tmp_path / "my_conf" / "model" / "small_net.yaml").write_text(text)
    words = ["--config-dir", str(tmp_path / "my_conf"), *SMALL[:-1], "model=small_net", "energy=false"]
    assert call(*words).code == 0
    answer = call("-m", *words, "model.options.width=7", "rule=lazy,backprop")
    assert answer.code == 0 and "2 of 2 runs done" in answer.out
    assert len(list((tmp_path / "runs").glob("digits-*-small_net-*"))) == 3


@pytest.mark.slow
def test_a_custom_rule_with_options(call, parts, tmp_path):
    answer = call(*SMALL, f"rule._target_={parts}.HalfLazy", "rule.threshold=0")
    lazy = call(*SMALL, "rule=lazy", "engine=autograd", "runs_dir=lazy")
    assert answer.code == lazy.code == 0
    mine, theirs = (timeless(only_run(tmp_path / folder) / "metrics.csv")[-1] for folder in ("runs", "lazy"))
    for name in ("test_accuracy", "backward_samples", "updates"):
        assert mine[name] == theirs[name], name


@pytest.mark.slow
def test_tokens_reach_the_model_unscaled(call, parts, tmp_path):
    words = [f"dataset._target_={parts}.windows", "epochs=20", "batch_size=10", "eval_every=150"]
    answer = call(*words, f"model._target_={parts}.Tokens", "optimizer.lr=0.5")
    assert answer.code == 0
    assert float(rows(only_run(tmp_path / "runs") / "metrics.csv")[-1]["test_accuracy"]) > 0.9
    refused = call(*words)
    assert refused.code == 2 and "torch.int64" in refused.err and "x.astype('float32')" in refused.err


def mlp_like(*hidden: int, bias: bool = True, activation: nn.Module | None = None) -> nn.Sequential:
    sizes = [64, *hidden, 10]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, bias=bias), activation or nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_fast_engines_take_only_models_that_they_compute():
    assert Layers.fit(mlp_like(8)) and Layers.fit(mlp_like(8, 8, activation=nn.GELU()))
    frozen, hooked = mlp_like(8), mlp_like(8)
    frozen[1].weight.requires_grad_(False)
    hooked[1].register_forward_hook(lambda layer, inputs, output: 2 * output)
    others = [mlp_like(8, 9), mlp_like(8, bias=False), mlp_like(8, activation=nn.LeakyReLU(0.3)), frozen, hooked]
    others += [mlp_like(8, activation=nn.GELU(approximate="tanh")), nn.Sequential(*mlp_like(8), nn.Dropout())]
    assert not any(Layers.fit(model) for model in others)


@pytest.mark.slow
def test_a_pair_of_data_sets(call, parts):
    words = [f"dataset._target_={parts}.pair", "epochs=1", "batch_size=10", "model.width=8"]
    assert call(*words).code == 0


@pytest.mark.slow
def test_any_torch_optimizer_equals_the_same_by_name(call, tmp_path):
    autograd = ["engine=autograd", *SMALL]
    assert call(*autograd, "optimizer._target_=torch.optim.Adam", "optimizer.lr=0.001").code == 0
    assert call(*autograd, "optimizer=adam", "runs_dir=named").code == 0
    mine, theirs = (timeless(only_run(tmp_path / folder) / "metrics.csv") for folder in ("runs", "named"))
    assert [row["test_accuracy"] for row in mine] == [row["test_accuracy"] for row in theirs]


@pytest.mark.slow
def test_image_folder(call, tmp_path):
    from PIL import Image

    for part, n in (("train", 40), ("test", 12)):
        images, labels = toy(n, 4, (6, 6), seed=len(part))
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = tmp_path / "photos" / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
    words = ["dataset=folder", f"dataset.path={tmp_path / 'photos'}", "epochs=1", "model.width=8"]
    assert call(*words).code == 0
    (tmp_path / "photos" / "test" / "class0" / "0.png").write_bytes(b"nothing")
    answer = call(*words)
    assert answer.code == 2 and "is not a readable image" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables(call, tmp_path, kind):

    if kind == "parquet":
        pytest.importorskip("pyarrow")
    from sklearn.datasets import load_wine

    wine = load_wine(as_frame=True).frame
    wine["sort"] = wine.pop("target").map({0: "a", 1: "b", 2: "c"})
    path = tmp_path / f"wine.{kind}"
    wine.to_csv(path, index=False) if kind == "csv" else wine.to_parquet(path)
    words = ["dataset=folder", f"dataset.path={path}", "epochs=20", "model.width=16", "eval_every=1000"]
    answer = call(*words, "dataset.options.label=sort")
    assert answer.code == 0, answer.err
    last = rows(only_run(tmp_path / "runs") / "metrics.csv")[-1]
    assert last["train_size"] == "142" and float(last["test_accuracy"]) > 0.9
    answer = call(*words)
    assert answer.code == 2 and "no column label" in answer.err


CHANGING = """
import torch
from torch import nn

class Tokens(nn.Module):
    def __init__(self, shape, classes, change=""):
        super().__init__()
        self.change, self.table, self.out = change, nn.Embedding(64, 8), nn.Linear(8 * shape[0], classes)
    def forward(self, x):
        if self.change:
            x.add_(7).remainder_(64)
        return self.out(self.table(x).flatten(1))

class Floats(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.out = nn.Linear(64, classes)
    def forward(self, x):
        return self.out(x.mul_(0.5).flatten(1))

class Extra(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.steps, self.out = 0, nn.Linear(64, classes)
    def forward(self, x):
        self.steps += self.training
        return self.out(x.flatten(1))
    def get_extra_state(self):
        return {"steps": self.steps}
    def set_extra_state(self, state):
        self.steps = state["steps"]
"""


@pytest.mark.parametrize("name", ["Tokens", "Floats"])
def test_a_model_that_changes_its_input_is_refused(call, parts, tmp_path, name):
    (tmp_path / f"{parts}_more.py").write_text(CHANGING)
    words = [*SMALL[1:-1], f"model._target_={parts}_more.{name}"]
    if name == "Tokens":
        words += [f"dataset._target_={parts}.windows", "model.options.change=yes"]
    answer = call(*words)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "changes its input in place" in answer.err and "x.clone()" in answer.err


@pytest.mark.slow
def test_a_model_with_extra_state_trains_to_the_end_and_is_rebuilt(call, parts, tmp_path):
    (tmp_path / f"{parts}_more.py").write_text(CHANGING)
    assert call(*CUSTOM_MODEL, f"model._target_={parts}_more.Extra", "checkpoint_every=0").code == 0
    assert rebuild(only_run(tmp_path / "runs")).model.steps > 0


def test_class_names_are_in_run_json(call, tmp_path):
    table = "a,b,label\n" + "".join(f"{row % 7},{row % 5 / 10},{['cat', 'dog'][row % 2]}\n" for row in range(40))
    (tmp_path / "pets.csv").write_text(table)
    assert call("dataset=folder", f"dataset.path={tmp_path}/pets.csv", "model.width=4", "epochs=1").code == 0
    facts = json.loads((only_run(tmp_path / "runs") / "run.json").read_text())
    assert facts["data"]["class_names"] == ["cat", "dog"]


# --- training and evaluation mode -------------------------------------------------------------------------


class Watched(nn.Module):
    """Records the mode and the number of samples of every call."""

    def __init__(self, *middle: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), *middle, nn.Linear(6, 3))
        self.calls: list[Any] = []

    def forward(self, x):
        self.calls.append((self.training, len(x)))
        return self.layers(x)


def make_autograd(model, batch_size=10, rule="lazy", block=0, engine=None):
    x, y = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
    chosen = make_rule({"name": rule})
    chosen.start(RunInfo(40, batch_size, 1, 0, torch.device("cpu")))
    images = Samples(x, y)
    energy, packing = Energy(model, Clock(torch.device("cpu"))), PackingConfig(block_size=block)
    spec = EngineSpec(model, images, chosen, OptimizerConfig(lr=0.1), batch_size, energy, packing=packing)
    return engine("auto", spec) if engine else AutogradEngine(spec), images


def test_scoring_is_in_evaluation_mode_and_training_in_training_mode():
    torch.manual_seed(0)
    model = Watched(nn.Dropout(0.5))
    engine, _ = make_autograd(model)
    outcome = engine.train(torch.arange(10), [0.1])
    number = int(outcome.trained.numel())
    assert model.calls == [(False, 10), (True, number)] and outcome.forwards == 10 + number


def test_batch_norm_has_one_pass_and_the_statistics_of_backprop():
    statistics = {}
    for rule in ("lazy", "backprop"):
        torch.manual_seed(0)
        model = Watched(nn.BatchNorm1d(6))
        engine, _ = make_autograd(model, rule=rule)
        outcome = engine.train(torch.arange(10), [0.1])
        assert model.calls == [(True, 10)] and outcome.forwards == 10
        statistics[rule] = model.layers[2].running_mean.clone()
    assert torch.equal(statistics["lazy"], statistics["backprop"]) and statistics["lazy"].any()


def test_with_packing_statistics_are_those_of_the_training_batches():
    torch.manual_seed(0)
    model = Watched(nn.BatchNorm1d(6))
    engine, images = make_autograd(model, rule="lazy", block=32, engine=make_engine)
    start = copy.deepcopy(model.layers)
    outcome = engine.train(torch.arange(40), [0.1] * 4)
    batch = [size for training, size in model.calls if not training]
    learned = [size for training, size in model.calls if training]
    assert sum(batch) == 40 and sum(learned) == outcome.trained.numel() > 0 and set(learned) == {10}
    layer = model.layers[2]
    assert int(layer.num_batches_tracked) == len(learned) == outcome.updates
    # By hand, of the first batch of training: the running mean has moved a tenth of the way.
    with torch.no_grad():
        values = start[1](images.batch(outcome.trained[:10])[0].flatten(1))
    expected = 0.1 * values.mean(0)
    if len(learned) == 1:
        assert torch.allclose(layer.running_mean, expected, atol=1e-6)
    else:
        assert layer.running_mean.any()


def test_a_batch_of_one_uses_running_statistics():
    model = Watched(nn.BatchNorm1d(6))
    engine, _ = make_autograd(model, batch_size=1)
    engine.train(torch.arange(3), [0.1] * 3)
    assert not model.layers[2].running_mean.any() and int(model.layers[2].num_batches_tracked) == 0


def test_evaluation_changes_neither_statistics_nor_mode():
    model = Watched(nn.BatchNorm1d(6), nn.Dropout(0.5)).train()
    _, images = make_autograd(model)
    assert accuracy(model, images) == accuracy(model, images)
    assert model.training and not model.layers[2].running_mean.any()


def test_dropout_does_not_depend_on_earlier_draws():
    weights = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = Watched(nn.Dropout(0.5))
        engine, _ = make_autograd(model, rule="backprop")
        torch.manual_seed(seed)
        engine.train(torch.arange(40), [0.1] * 4)
        weights.append(model.layers[1].weight.detach().clone())
    assert torch.equal(*weights)


# --- torchvision's ResNet-18 on crops of photographs ------------------------------------------------------

CROPS = '''
import numpy as np
from sklearn.datasets import load_sample_images

def crops(train=64, test=16, size=32):
    """Crops of two photographs in colour; the class is the photograph and its half."""
    rng = np.random.default_rng(0)
    images, labels = [], []
    for number in range(train + test):
        label = number % 4
        photo = PHOTOS[label // 2]
        half = photo.shape[1] // 2
        row = rng.integers(0, photo.shape[0] - size)
        column = rng.integers(0, half - size) + half * (label % 2)
        images.append(photo[row : row + size, column : column + size])
        labels.append(label)
    x, y = np.stack(images), np.array(labels)
    return x[:train], y[:train], x[train:], y[train:]

PHOTOS = load_sample_images().images
'''


def resnet(folder: Path, rule: str, runs: str, epochs: int = 2) -> list[str]:
    (folder / "photo_crops.py").write_text(CROPS)
    return [
        sys.executable, "-m", "lazyexp", "dataset._target_=photo_crops.crops",
        "dataset.options.train=32", "dataset.options.test=8",
        "model=torchvision",
        "model.options.small=true", f"rule={rule}", f"epochs={epochs}", "batch_size=16", "eval_every=16",
        "checkpoint_every=0", "optimizer.lr=0.02", f"runs_dir={runs}",
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_workers_of_launchers_import_custom_parts(tmp_path, launcher):
    (tmp_path / "nets.py").write_text(PARTS)
    words = [*CUSTOM_MODEL, "model._target_=nets.Net", "runs_dir=runs", "seed=0,1", f"hydra/launcher={launcher}"]
    done = subprocess.run(
        [sys.executable, "-m", "lazyexp", "-m", *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "2 of 2 runs done" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["lazy", "spaced"])
def test_resnet_on_photographs_and_its_counters(call, tmp_path, monkeypatch, rule):
    monkeypatch.syspath_prepend(tmp_path)
    done = call(*resnet(tmp_path, rule, "runs")[3:])
    assert done.code == 0, done.err
    folder = only_run(tmp_path / "runs")
    last, learned = rows(folder / "metrics.csv")[-1], np.load(folder / "learned.npz")
    seen = int(last["samples_seen"])
    assert seen == int(learned["presented"].sum()) and (seen == 64 or rule == "spaced")
    # One pass through BatchNorm: a forward for every sample presented, and none besides.
    assert int(last["forward_samples"]) == seen
    assert int(last["backward_samples"]) == int(learned["learned"].sum()) > 0
    state = torch.load(folder / "model.pt", weights_only=True)
    batches = int(state["bn1.num_batches_tracked"])
    assert batches == 4 or rule == "spaced"


@pytest.mark.slow
def test_resnet_resumes_exactly_after_sigkill(tmp_path):
    whole = resnet(tmp_path, "lazy", "whole", epochs=3)
    assert subprocess.run(whole, cwd=tmp_path, env=environment(), capture_output=True).returncode == 0
    command = resnet(tmp_path, "lazy", "killed", epochs=3)
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list((tmp_path / "killed").rglob("checkpoint.pt")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "killed").rglob("summary.csv")), "the run ended before the signal"
    assert subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True).returncode == 0
    one, other = only_run(tmp_path / "whole"), only_run(tmp_path / "killed")
    assert timeless(one / "metrics.csv") == timeless(other / "metrics.csv")
    first, second = (torch.load(folder / "model.pt", weights_only=True) for folder in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_the_text_example_as_custom_parts(call, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "text")
    words = ["dataset._target_=characters.windows", "dataset.options.train=600"]
    words += [
        "dataset.options.test=50",
        "model._target_=characters.Transformer",
        "model.options.width=16",
    ]
    answer = call(*words, "epochs=1", "batch_size=50", "optimizer=adam", "rule=confidence")
    assert answer.code == 0, answer.err
