"""`precision` holds in training and not in evaluation: factors of large products in bfloat16, weights in float32."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from lazyexp.config.run_id import run_id
from lazyexp.config.schema import Config, ModelConfig, OptimizerConfig
from lazyexp.config.validation import check
from lazyexp.data import Samples
from lazyexp.experiment import run
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec, make_engine, precision, trainer
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast.direct import Direct
from lazyexp.training.precision import matmul_precision, slow_precision_note
from lazyexp.utils import products

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_the_precision_is_restored_after_the_block():
    before = torch.get_float32_matmul_precision()
    try:
        with matmul_precision("bfloat16", CUDA):
            assert torch.get_float32_matmul_precision() == "medium"
            raise ValueError
    except ValueError:
        pass
    assert torch.get_float32_matmul_precision() == before


def test_on_a_cpu_pytorch_does_not_round_small_products():
    """It would prepare a kernel for every new shape; the engines round the factors of large products themselves."""
    with matmul_precision("bfloat16", CPU):
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_training_uses_the_precision_and_evaluation_does_not(tmp_path, monkeypatch, name):
    seen = {"train": set(), "evaluate": set()}
    phase = []
    original_train, original_evaluate, original_affine = Direct.train, trainer.evaluate, products.affine

    def train(self, index, rates):
        phase.append("train")
        return original_train(self, index, rates)

    def evaluate(*arguments):
        phase.append("evaluate")
        return original_evaluate(*arguments)

    def affine(x, weight, bias, out=None):
        assert weight.dtype == bias.dtype == torch.float32
        if x.shape[1] == 64:  # the first layer
            seen[phase[-1]].add(x.dtype)
        return original_affine(x, weight, bias, out)

    monkeypatch.setattr(Direct, "train", train)
    monkeypatch.setattr(trainer, "evaluate", evaluate)
    monkeypatch.setattr("lazyexp.training.fast.layers.affine", affine)
    settings = Config(epochs=1, batch_size=64, device="cpu", runs_dir=str(tmp_path), precision=name)
    settings.model.width = 20
    assert run(check(settings)).status == "finished"
    assert seen == {"train": {getattr(torch, name)}, "evaluate": {torch.float32}}


def test_autograd_uses_autocast_in_training_alone(tmp_path, monkeypatch):
    (tmp_path / "autocast_net.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "seen = {True: set(), False: set()}\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, 20), nn.Sigmoid(), nn.Linear(20, classes))\n"
        "    def forward(self, x):\n"
        "        seen[self.training].add(torch.is_autocast_enabled('cpu'))\n"
        "        return super().forward(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = Config(epochs=1, batch_size=64, device="cpu", runs_dir=str(tmp_path), precision="bfloat16")
    settings.model._target_, settings.rule = "autocast_net.Net", {"name": "backprop"}
    result = run(check(settings))
    seen = sys.modules["autocast_net"].seen
    assert result.status == "finished" and result.summary["updates"] == 23
    assert seen[False] == {False}  # checks and evaluation
    assert any(seen[True])  # training
    weights = torch.load(result.folder / "model.pt")
    assert {value.dtype for value in weights.values()} == {torch.float32}


def train(precision, batch_size, rule="backprop", depth=1, n=512, **optimizer):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(n, 1, 8, 8, generator=rng)
    targets = (pixels.flatten(1) @ torch.randn(64, 10, generator=rng)).argmax(1)
    samples, model = (
        Samples(pixels, targets, 2.0, -1.0),
        make_model(ModelConfig(width=40, depth=depth), (1, 8, 8), 10, 0),
    )
    made = make_rule({"name": rule})
    made.start(RunInfo(n, batch_size, 1, 0, CPU))
    made.epoch_indices(0)
    config, energy = OptimizerConfig(**optimizer), Energy(model, Clock(CPU))
    engine = make_engine("auto", EngineSpec(model, samples, made, config, batch_size, energy, precision=precision))
    start = [parameter.detach().clone() for parameter in model.parameters()]
    outcome = engine.train(torch.arange(n), [0.02] * -(-n // batch_size))
    return engine, outcome, [p.detach() - q for p, q in zip(model.parameters(), start, strict=True)], energy


ENGINES = {
    "Deferred": (16, "backprop", {}),
    "Direct": (64, "backprop", {"depth": 2}),
    "Direct with momentum": (64, "lazy", {"momentum": 0.9}),
    "DirectAdam": (64, "backprop", {"name": "adam"}),
    "Adaptive": (1, "lazy", {}),
}


@pytest.mark.parametrize("name", ENGINES)
def test_rounded_training_stays_close(monkeypatch, name):
    """The rounding of single products is 2^-9; changes of the weights agree within some per cent of the largest."""
    batch_size, rule, options = ENGINES[name]
    engine, outcome, changes, energy = train("bfloat16", batch_size, rule, **options)
    rounded = []
    original = products._rounds
    monkeypatch.setattr(products, "_rounds", lambda x, other: rounded.append(original(x, other)) or rounded[-1])
    train("bfloat16", batch_size, rule, **options)
    assert any(rounded) and type(engine).__name__ == name.split()[0]
    _, expected, others, exact = train("float32", batch_size, rule, **options)
    assert outcome.logits.dtype == torch.float32
    assert (outcome.selected != expected.selected).double().mean() < 0.03
    limit = 1.0 if "name" in options else 0.1  # Adam turns the sign of a tiny gradient into a full step
    for one, other in zip(changes, others, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() < limit * other.abs().max()
    assert float(energy.l1) == pytest.approx(float(exact.l1), rel=0.05)


def test_one_step_is_the_formula_with_rounded_factors():
    rng = torch.Generator().manual_seed(0)
    x, delta, weight = (torch.randn(*shape, generator=rng) for shape in ((64, 50), (64, 40), (40, 50)))
    bias, near = torch.zeros(40), x.bfloat16()
    assert torch.equal(products.affine(near, weight, bias), (near @ weight.bfloat16().t()).float())
    assert torch.equal(products.outer(delta, near), (delta.bfloat16().t() @ near).float())
    assert torch.equal(products.matmul(delta.bfloat16(), weight), (delta.bfloat16() @ weight.bfloat16()).float())
    changed = weight.clone()
    products.add_outer(changed, delta, near, alpha=-0.5)
    assert torch.equal(changed, weight - 0.5 * (delta.bfloat16().t() @ near).float())
    few = near[:31]  # rounding the weights would take longer than the product
    assert torch.equal(products.affine(few, weight, bias), torch.addmm(bias, few.float(), weight.t()))
    assert torch.equal(products.outer(delta[:31], few), delta[:31].t() @ few.float())


def test_inputs_in_bfloat16_are_kept_unless_they_change(monkeypatch):
    index = torch.tensor([3, 0])
    for shift, store in ((0, 2**30), (0, 0), (1, 2**30)):
        monkeypatch.setattr("lazyexp.data.samples.STORE", store)
        samples = Samples(torch.randint(256, (9, 1, 4, 4), dtype=torch.uint8), torch.arange(9) % 2, 0.01, -1, shift)
        samples.start_epoch(0, 0)
        inputs, targets = samples.rounded(index)
        assert torch.equal(inputs, samples.batch(index)[0].flatten(1).bfloat16())
        assert torch.equal(targets, samples.targets[index])
        assert (samples._rounded is not None) == (store > 0 and not shift)


def test_a_slow_precision_is_noted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precision, "_has", lambda feature: False)
    assert slow_precision_note("float32", CPU) is None and slow_precision_note("bfloat16", CUDA) is None
    settings = Config(epochs=1, batch_size=64, device="cpu", runs_dir=str(tmp_path), precision="bfloat16")
    settings.model.width = 4
    run(check(settings))
    assert "note: precision=bfloat16: this processor does not multiply bfloat16" in capsys.readouterr().err
    monkeypatch.setattr(precision, "_has", lambda feature: feature == "avx512_bf16")
    assert slow_precision_note("bfloat16", CPU) is None


def test_the_precision_is_part_of_the_run_id():
    names = {run_id(check(Config(precision=name)), {}, "cpu", "") for name in ("float32", "tf32", "bfloat16")}
    assert len(names) == 3


def test_a_model_of_tokens_trains_with_autocast():
    """Logits stay floating-point numbers although the inputs are integers."""
    model = nn.Sequential(nn.Embedding(5, 6), nn.Flatten(), nn.Linear(24, 3))
    samples, rule = Samples(torch.randint(5, (64, 4)), torch.arange(64) % 3), make_rule({"name": "lazy"})
    rule.start(RunInfo(64, 16, 1, 0, CPU))
    spec = EngineSpec(model, samples, rule, OptimizerConfig(), 16, Energy(model, Clock(CPU)), precision="bfloat16")
    outcome = make_engine("auto", spec).train(torch.arange(64), [0.1] * 4)
    assert outcome.logits.dtype == torch.float32 and outcome.updates == 4
