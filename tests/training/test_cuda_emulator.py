"""The emulated GPU refuses what CUDA refuses, and detects the mistakes for which it was written."""

from __future__ import annotations

import pytest
import torch
from cuda_emulator import pretend

from lazyexp.config.schema import ModelConfig, OptimizerConfig
from lazyexp.data import Samples
from lazyexp.models.builtin import make_model
from lazyexp.rules import RunInfo, make_rule
from lazyexp.training import EngineSpec, make_engine
from lazyexp.training.clock import Clock
from lazyexp.training.energy import Energy
from lazyexp.training.fast import deferred, rounds
from lazyexp.training.fast.rounds import Rounds


@pytest.fixture
def gpu():
    with pretend() as made:
        yield made


@pytest.fixture
def x(gpu):
    return torch.arange(6.0).view(3, 2).to("cuda")


def test_tensors_on_two_devices_are_refused(x):
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(2)
    with pytest.raises(RuntimeError, match="same device"):
        torch.mm(x, torch.ones(2, 2))
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([x, torch.ones(3, 2)])
    with pytest.raises(RuntimeError, match="same device"):
        x.index_select(0, torch.tensor([0]))
    with pytest.raises(RuntimeError, match="indices should be"):
        torch.ones(3)[torch.tensor([0]).to("cuda")]


def test_cpu_tensors_that_pytorch_accepts_with_gpu_tensors(gpu, x):
    assert (x * torch.tensor(2.0)).is_cuda  # a number
    assert torch.where(x > 1, x, torch.tensor(0.0)).is_cuda
    before = sum(gpu.waits.values())
    assert x[torch.tensor([0, 2])].is_cuda  # an index: it is copied, and that waits
    assert sum(gpu.waits.values()) == before + 1


def test_numpy_and_generators_stay_on_the_cpu(x):
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        x.uniform_(generator=torch.Generator())


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.copy_(torch.zeros(3, 2)),  # from memory that is not pinned
        lambda x: torch.zeros(3, 2).to("cuda"),
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_a_wait_is_counted_and_refused_in_a_capture(gpu, x, wait):
    before = sum(gpu.waits.values())
    wait(x)
    assert sum(gpu.waits.values()) > before
    with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        wait(x)


def test_copies_of_pinned_memory_do_not_wait(gpu):
    before = sum(gpu.waits.values())
    torch.ones(4).pin_memory().to("cuda", non_blocking=True)
    assert sum(gpu.waits.values()) == before


def test_a_graph_repeats_its_calls_on_the_same_memory(gpu, x):
    x = x.clone()  # the fixture holds the original
    graph, y = torch.cuda.CUDAGraph(), torch.zeros(3, 2, device="cuda")
    before = x.cpu().clone()
    with torch.cuda.graph(graph):
        y.add_(x).mul_(2)
    assert not y.cpu().any()  # a capture computes nothing
    launches = gpu.launches
    graph.replay()
    x.mul_(10)  # the same memory: the graph sees it
    graph.replay()
    assert torch.equal(y.cpu(), (2 * before + 10 * before) * 2)
    assert gpu.launches == launches + 4  # two graphs, a product, a copy to the host
    x = torch.ones(3, 2).to("cuda")  # other memory under the same name; what the graph reads is freed
    with pytest.raises(RuntimeError, match="freed"):
        graph.replay()


def train(device: str, rule: str, change=lambda engine: None) -> list[torch.Tensor]:
    """The weights after 2 x 64 samples at batch 1, in float64; `change` is called in between."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.rand(64, 1, 3, 3, generator=rng, dtype=torch.float64).to(device)
    images = Samples(pixels, (torch.arange(64) % 4).to(device), dtype=torch.float64)
    model = make_model(ModelConfig(width=8), (1, 3, 3), 4, 0).double().to(device)
    made = make_rule({"name": rule})
    made.start(RunInfo(64, 1, 1, 0, torch.device(device)))
    spec = EngineSpec(model, images, made, OptimizerConfig(lr=0.1), 1, Energy(model, Clock(torch.device(device))))
    engine = make_engine("auto", spec)
    for turn in range(2):
        engine.train(torch.arange(64).to(device), [0.1] * 64)
        if turn == 0:
            change(engine)
    return [p.detach().cpu() for p in model.parameters()]


@pytest.mark.slow
def test_a_tensor_made_on_the_cpu_is_detected(monkeypatch, gpu):
    train("cuda", "lazy")
    copies = gpu.waits["copy to the GPU"]
    gpu.reset()
    train("cuda", "lazy")
    assert gpu.waits["copy to the GPU"] == copies
    for module in (deferred, rounds):
        monkeypatch.setattr(module, "on_device", lambda values, like: torch.tensor(values, dtype=like.dtype))
    with pytest.raises(RuntimeError, match="same device"):
        train("cuda", "backprop")
    gpu.reset()
    train("cuda", "lazy")  # copied into a tensor of the GPU: allowed, but every chunk waits
    assert gpu.waits["copy to the GPU"] == copies + 2


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["lazy", "backprop"])
def test_an_item_in_a_captured_block_is_detected(monkeypatch, gpu, rule):
    monkeypatch.setattr(Rounds, "_update", _waiting(Rounds._update))
    monkeypatch.setattr(deferred.Deferred, "_compute", _waiting(deferred.Deferred._compute))
    with pytest.raises(RuntimeError, match="capturing"):
        train("cuda", rule)


def _waiting(real):
    def waits(self, *args):
        self.layers.biases[0].sum().item()
        return real(self, *args)

    return waits


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["lazy", "backprop"])
def test_a_graph_that_reads_a_replaced_weight_is_detected(gpu, rule):
    """A graph keeps the memory that it was made with: a layer's new tensor is not trained, unlike on a CPU."""

    healthy = train("cuda", rule)
    assert all(torch.allclose(p, q) for p, q in zip(healthy, train("cpu", rule), strict=True))
    old, new = [], []

    def replace(engine):
        weights = engine.layers.weights
        old.append(weights[-1])  # kept alive, otherwise the replay would fail
        weights[-1] = weights[-1].clone()
        new.append(weights[-1])

    train("cuda", rule, replace)
    assert not torch.allclose(new[0].cpu(), healthy[2])
