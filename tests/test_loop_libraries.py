"""LazyLoss and SpacedSampler under accelerate and torchdata. Skipped where these are not installed."""

from __future__ import annotations

import importlib.util
import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lazyexp import Indexed, LazyLoss, SpacedSampler

SAMPLES, BATCH = 64, 8
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata of newer PyTorch
]
needs_accelerate = pytest.mark.skipif(
    not importlib.util.find_spec("accelerate"), reason="accelerate is not installed"
)


def wrong(index, epoch):
    """The samples that are misclassified in an epoch."""
    return (index + epoch) % 5 == 0


def accelerated(rank, port, results, shard, prepare, even):
    """Epochs of a loop under accelerate; saves what this process was given."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(even_batches=even))
    assert accelerator.num_processes == 2
    torch.manual_seed(rank)
    sampler = SpacedSampler(SAMPLES, threshold=0, shard=shard)
    data = TensorDataset(torch.randn(SAMPLES, 4, generator=torch.Generator().manual_seed(0)))
    loader = DataLoader(Indexed(data), BATCH, sampler=sampler)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    if prepare:
        loader = accelerator.prepare(loader)
    criterion, epochs, warned = LazyLoss(), [], []
    for epoch in range(3):
        epochs.append([])
        with _recorded(warned):
            for index, (x,) in loader:
                targets = model(x).argmax(1).detach()
                targets[wrong(index, epoch)] ^= 1
                loss = criterion(model(x), targets)
                if criterion.any_learned():
                    optimizer.zero_grad()
                    accelerator.backward(loss)
                    optimizer.step()
                sampler.update_selected(index, criterion.selected)
                epochs[-1] += index.tolist()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    torch.save((epochs, weights, warned), f"{results}/{rank}.pt")
    accelerator.end_training()


class _recorded:
    """Collects the messages of this sampler's warnings."""

    def __init__(self, messages):
        import warnings

        self.messages, self.catch = messages, warnings.catch_warnings(record=True)

    def __enter__(self):
        self.found = self.catch.__enter__()

    def __exit__(self, *error):
        self.messages += [str(one.message) for one in self.found if "SpacedSampler" in str(one.message)]
        return self.catch.__exit__(*error)


def both(tmp_path, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(accelerated, (port, tmp_path, *options), nprocs=2)
    return [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]


def expected_epochs():
    """The samples of three epochs in one process."""
    sampler = SpacedSampler(SAMPLES, threshold=0)
    epochs = []
    for epoch in range(3):
        epochs.append(list(sampler))
        index = torch.tensor(epochs[-1])
        sampler.update_selected(index, wrong(index, epoch))
    return epochs


@needs_accelerate
@pytest.mark.parametrize("prepare, shard", [(False, True), (True, False)])
def test_accelerate_presents_every_active_sample_once(tmp_path, prepare, shard):
    """The loader is prepared and the sampler does not shard, or the sampler shards and the loader is not prepared."""
    (first, weights, warned), (second, others, _) = both(tmp_path, shard, prepare, True)
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True)) and not warned
    left_out = set()  # by shards of equal length; presented in the next epoch
    for epoch, samples in enumerate(expected_epochs()):
        together, active = first[epoch] + second[epoch], set(samples) | left_out
        assert set(together) <= active and len(first[epoch]) == len(second[epoch])
        left_out = active - set(together)
        assert len(left_out) <= 1 if shard else not left_out
        if epoch == 0:
            assert sorted(together) == list(range(SAMPLES))


@needs_accelerate
def test_sharding_twice_is_reported(tmp_path):
    (first, _, warned), (second, _, _) = both(tmp_path, True, True, True)
    assert len(set(first[0] + second[0])) == SAMPLES // 2  # the half of the samples that accelerate drops
    assert any("SpacedSampler(shard=False)" in message and "32 of the 64" in message for message in warned)


torchdata = pytest.mark.skipif(not importlib.util.find_spec("torchdata"), reason="torchdata is not installed")


def stateful(workers, **options):
    from torchdata.stateful_dataloader import StatefulDataLoader

    sampler = SpacedSampler(SAMPLES, threshold=0)
    return StatefulDataLoader(
        Indexed(TensorDataset(torch.arange(SAMPLES))), BATCH, sampler=sampler, num_workers=workers, **options
    )


@torchdata
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("report", [True, False])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_torchdata_resumes_with_the_batches_that_are_left(workers, report, stop):
    loader, seen = stateful(workers), []
    for number, (index, _) in enumerate(loader, 1):
        seen += index.tolist()
        if report:
            loader.sampler.update_selected(index, wrong(index, 0))
        if number == stop:
            break
    state = loader.state_dict()
    resumed = stateful(workers)
    resumed.load_state_dict(state)
    rest = [index.tolist() for index, _ in resumed]
    assert [len(batch) for batch in rest] == [BATCH] * (8 - stop)
    assert seen + sum(rest, []) == list(SpacedSampler(SAMPLES))
    assert resumed.sampler.epoch == 0
    following = sum((index.tolist() for index, _ in resumed), [])
    assert resumed.sampler.epoch == 1 and len(set(following)) == len(following) > 0


@torchdata
def test_torchdata_resumes_at_the_end_of_an_epoch():
    """Without workers no report is lost; with them, the last ones are, and their samples stay active."""
    for workers in (0, 1):
        loader = stateful(workers)
        for index, _ in loader:
            loader.sampler.update_selected(index, wrong(index, 0))
        resumed = stateful(workers)
        resumed.load_state_dict(loader.state_dict())
        second = {i for index, _ in resumed for i in index.tolist()}
        if not second:  # torchdata ends the finished epoch first
            second = {i for index, _ in resumed for i in index.tolist()}
        active = {i for i in range(SAMPLES) if wrong(torch.tensor(i), 0)}
        assert second >= active and (second == active or workers) and len(second) <= len(active) + 3 * BATCH


@torchdata
def test_torchdata_with_another_sampler_as_order():
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make():
        sampler = SpacedSampler(SAMPLES, threshold=0, order=range(SAMPLES))
        return StatefulDataLoader(
            Indexed(TensorDataset(torch.arange(SAMPLES))), BATCH, sampler=sampler, drop_last=True
        )

    loader = make()
    (index, _) = next(iter(loader))
    resumed = make()
    resumed.load_state_dict(loader.state_dict())
    assert index.tolist() + sum((index.tolist() for index, _ in resumed), []) == list(range(SAMPLES))
