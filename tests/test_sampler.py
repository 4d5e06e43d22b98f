"""The sampler against `rule=spaced`, in DataLoaders of all kinds, in two processes, and resumed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

from lazyexp import Indexed, LazyLoss, SpacedSampler, sampler
from lazyexp.loss import MistakeGatedLoss
from lazyexp.rules.base import RunInfo, ScoredBatch
from lazyexp.rules.mistakes import MistakeGated, Spaced


def scores(samples, epoch, classes=3):
    """Logits and targets of an epoch: some are wrong, some right with low confidence, some confident."""
    random = torch.Generator().manual_seed(epoch)
    return 4 * torch.randn(samples, classes, generator=random), torch.randint(classes, (samples,), generator=random)


@pytest.mark.parametrize("max_interval", [1, 3, 8])
@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("skip_threshold", [1.0, 0.99])
def test_the_same_spacing_as_the_rule(max_interval, threshold, skip_threshold):
    samples = 300
    sampler = SpacedSampler(samples, max_interval, threshold, skip_threshold, seed=5)
    rule = Spaced(max_interval=max_interval, threshold=threshold, skip_threshold=skip_threshold)
    rule.start(RunInfo(samples, 10, 12, 5, torch.device("cpu")))
    sizes = []
    for epoch in range(12):
        expected = rule.epoch_indices(epoch)
        assert list(sampler) == expected.tolist()
        assert len(sampler) == len(expected)
        logits, targets = scores(samples, epoch)
        for index in expected.split(10):
            batch = ScoredBatch(index, logits[index], targets[index])
            batch.selected = rule.select(batch)
            rule.update(batch)
            sampler.update(index, logits[index], targets[index])
        sizes.append(len(expected))
    assert (min(sizes) < samples) == (threshold < 1)


def test_by_hand():
    """One sample always right, one always wrong, one right until epoch 4, one ignored."""
    sampler = SpacedSampler(4, max_interval=4, threshold=0, order=range(4))
    seen = []
    for epoch in range(12):
        index = torch.tensor(list(sampler), dtype=torch.int64)
        seen.append(index.tolist())
        logits = torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0] if epoch < 4 else [0.0, 9.0], [0.0, 9.0]])
        sampler.update(index, logits[index], torch.tensor([0, 0, 0, -100])[index])
    right = [0, 2, 5, 10]  # skips 1, 2, 4, 4 epochs
    assert [epoch for epoch in range(12) if 0 in seen[epoch]] == right
    assert [epoch for epoch in range(12) if 1 in seen[epoch]] == list(range(12))
    assert [epoch for epoch in range(12) if 2 in seen[epoch]] == [0, 2, *range(5, 12)]
    assert [epoch for epoch in range(12) if 3 in seen[epoch]] == right


def test_samples_with_several_targets_are_skipped_if_all_are_right():
    logits = torch.zeros(3, 2, 4)
    logits[:, 0] = 9.0
    logits[2, 0, 0] = 0.1  # right, with low confidence
    targets = torch.zeros(3, 4, dtype=torch.int64)
    targets[0, 3] = 1
    sampler = SpacedSampler(3, threshold=0.9, order=range(3))
    for expected in ([0, 1, 2], [0, 2]):
        index = torch.tensor(list(sampler))
        assert index.tolist() == expected
        sampler.update(index, logits[index], targets[index])
    probabilities = SpacedSampler(2, threshold=0.0, order=range(2))
    list(probabilities)
    probabilities.update(
        torch.arange(2), torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([[0.6, 0.4], [0.4, 0.6]])
    )
    assert list(probabilities) == [1]


def test_samples_that_are_not_reported_stay_active():
    sampler = SpacedSampler(10, threshold=0)
    assert sorted(sampler) == list(range(10))
    sampler.update_selected(
        torch.arange(4), torch.tensor([False, True, False, False]), torch.tensor([False, False, True, False])
    )
    assert sorted(sampler) == [1, *range(4, 10)]
    assert sorted(sampler) == [0, 1, *range(3, 10)]  # 2 was confident: it skips 8 epochs


class Counted(Dataset):
    """Counts what is loaded, also in workers: its memory is shared."""

    def __init__(self, samples):
        random = torch.Generator().manual_seed(0)
        self.targets = torch.arange(samples) % 3
        self.inputs = torch.randn(samples, 8, generator=random) + 5 * torch.eye(3, 8)[self.targets]
        self.loaded = torch.zeros(samples, dtype=torch.int64).share_memory_()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.loaded[index] += 1
        return self.inputs[index], self.targets[index]


def train(loader, epochs, accumulate=1, autocast=False, until=None):
    """A usual training loop. Returns the model and the samples of each epoch."""
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    criterion = LazyLoss(nn.CrossEntropyLoss())
    presented = []
    for _ in range(epochs):
        presented.append([])
        for step, (index, (x, y)) in enumerate(loader):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                logits = model(x)
                loss = criterion(logits, y) / accumulate
            loss.backward()
            loader.sampler.update(index, logits, y)
            presented[-1] += index.tolist()
            if (step + 1) % accumulate == 0 or step + 1 == len(loader):
                optimizer.step()
                optimizer.zero_grad()
    return model, presented


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [{}, {"accumulate": 4}, {"autocast": True}], ids=str)
def test_skipped_samples_are_not_loaded(workers, options):
    data = Counted(240)
    loader = DataLoader(
        Indexed(data), 16, sampler=SpacedSampler(240, seed=3), num_workers=workers, persistent_workers=workers > 0
    )
    model, presented = train(loader, 6, **options)
    counts = torch.bincount(torch.tensor(sum(presented, [])), minlength=240)
    assert torch.equal(data.loaded, counts)  # the presented samples, and no others
    assert len(presented[0]) == 240 and len(presented[1]) < 200
    assert (model(data.inputs).argmax(1) == data.targets).float().mean() > 0.9


@pytest.mark.slow
def test_workers_have_no_effect():
    runs = []
    for workers in (0, 2):
        loader = DataLoader(
            Indexed(Counted(240)), 16, sampler=SpacedSampler(240), num_workers=workers, persistent_workers=workers > 0
        )
        model, presented = train(loader, 5)
        runs.append((model.weight, presented))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


def test_threshold_1_is_a_plain_loader():
    """threshold=1: no sample is skipped, as in a shuffled DataLoader."""
    data = Counted(60)
    _, presented = train(DataLoader(Indexed(data), 16, sampler=SpacedSampler(60, threshold=1.0)), 3)
    assert [sorted(epoch) for epoch in presented] == [list(range(60))] * 3
    assert presented[0] != presented[1]


def test_an_existing_sampler_keeps_its_order():
    torch.manual_seed(7)
    expected = [list(RandomSampler(range(50))) for _ in range(4)]
    torch.manual_seed(7)
    sampler = SpacedSampler(50, threshold=0, order=RandomSampler(range(50)))
    active = set(range(50))
    for order in expected:
        index = list(sampler)
        assert index == [i for i in order if i in active]
        wrong = torch.tensor([i < 20 for i in index])
        sampler.update_selected(torch.tensor(index), wrong, ~wrong)
        active = set(range(20))
    weighted = WeightedRandomSampler(torch.tensor([1.0, 0.0, 3.0]), 40)
    index = list(SpacedSampler(3, order=weighted))
    assert len(index) == 40 and index.count(2) > index.count(0) > 0


def test_the_length_is_that_of_the_epoch():
    loader = DataLoader(Indexed(Counted(100)), 8, sampler=SpacedSampler(100, threshold=0))
    assert len(loader) == 13
    for index, _ in loader:
        loader.sampler.update_selected(index, torch.zeros(len(index), dtype=torch.bool))
        assert len(loader) == 13
    loader.sampler.set_epoch(1)
    assert len(loader) == 0 and list(loader) == []
    loader.sampler.set_epoch(2)
    assert len(loader) == 13 and len(list(loader)) == 13


def test_set_epoch_has_no_effect_in_a_loop_that_counts():
    orders = []
    for explicit in (False, True):
        sampler = SpacedSampler(60, seed=1)
        orders.append([])
        for epoch in range(6):
            if explicit:
                sampler.set_epoch(epoch)
            orders[-1].append(list(sampler))
            logits, targets = scores(60, epoch)
            index = torch.tensor(orders[-1][-1])
            sampler.update(index, logits[index], targets[index])
    assert orders[0] == orders[1]
    with pytest.raises(ValueError, match="past"):
        sampler.set_epoch(2)


def test_reading_a_batch_before_training_has_no_effect():
    loader = DataLoader(Indexed(Counted(40)), 8, sampler=SpacedSampler(40))
    next(iter(loader))
    assert len(list(loader)) == 5
    again = SpacedSampler(40)
    next(iter(again))
    again.set_epoch(0)
    assert sorted(again) == list(range(40))


@pytest.mark.parametrize("order", ["shuffled", "own"])
@pytest.mark.parametrize("stop_after", [0, 1, 7, 12, 13, 20])  # batches; an epoch has 13 at first
def test_resumed_within_an_epoch(tmp_path, order, stop_after):
    def loader():
        torch.manual_seed(1)
        own = RandomSampler(range(100), generator=torch.Generator().manual_seed(2)) if order == "own" else None
        return DataLoader(Indexed(Counted(100)), 8, sampler=SpacedSampler(100, threshold=0.5, order=own))

    def batches(loader, epochs, count):
        for _ in range(epochs):
            for index, _ in loader:
                logits, targets = scores(100, int(loader.sampler.epoch))
                loader.sampler.update(index, logits[index], targets[index])
                yield sorted(index.tolist())
                count -= 1
                if not count:
                    return

    whole = list(batches(loader(), 4, -1))
    first = loader()
    begun = list(batches(first, 4, stop_after)) if stop_after else []
    torch.save(first.sampler.state_dict(), tmp_path / "sampler.pt")
    second = loader()
    if order == "own" and stop_after:  # the state of a custom order is not part of the state
        second.sampler.order = first.sampler.order
    second.sampler.load_state_dict(torch.load(tmp_path / "sampler.pt", weights_only=True))
    rest = list(batches(second, 4, len(whole) - len(begun)))
    assert begun + rest == whole


def test_resumed_with_prefetching_workers():
    """The loader has prefetched more samples than were reported: the others are left."""
    sampler = SpacedSampler(64, threshold=0)
    loader = DataLoader(Indexed(Counted(64)), 8, sampler=sampler, num_workers=1, prefetch_factor=4)
    done = []
    for _, (index, _) in zip(range(3), loader, strict=False):
        sampler.update_selected(index, torch.ones(8, dtype=torch.bool))
        done += index.tolist()
    resumed = SpacedSampler(64, threshold=0)
    resumed.load_state_dict(sampler.state_dict())
    assert len(resumed) == 40
    assert done + list(resumed) == list(SpacedSampler(64))


def run_process(rank, file, results, samples):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(rank)  # a custom order differs between processes
    found = []
    for order in (None, RandomSampler(range(samples))):
        sampler = SpacedSampler(samples, threshold=0, order=order)
        epochs = []
        for epoch in range(6):
            index = torch.tensor(list(sampler), dtype=torch.int64)
            assert len(index) == len(sampler)
            sampler.update_selected(index, index % 3 == epoch % 3)
            epochs.append(index.tolist())
        halfway = iter(sampler)
        some = torch.tensor([next(halfway) for _ in range(3)])
        sampler.update_selected(some, some >= 0)
        sampler.merge()
        found.append((epochs, some.tolist(), sampler.state_dict()))
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("samples", [60, 61])
def test_two_processes(tmp_path, samples):
    mp.spawn(run_process, (tmp_path / "rendezvous", tmp_path, samples), nprocs=2)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for first, second in zip(*both, strict=True):
        alone = SpacedSampler(samples, threshold=0, order=range(samples))
        for epoch, (one, other) in enumerate(zip(first[0], second[0], strict=True)):
            active = set(alone)
            together = one + other
            assert len(one) == len(other) and len(set(together)) == len(together)  # in one process, and in one only
            assert set(together) <= active and len(active) - len(together) == len(active) % 2
            index = torch.tensor(together)
            alone.update_selected(index, index % 3 == epoch % 3)  # what both have reported
        for name in ("interval", "next_epoch", "left"):
            assert torch.equal(first[2][name], second[2][name])
        done = set(first[1] + second[1])
        assert len(done) == 6 and not done & set(first[2]["left"].tolist())
        resumed = SpacedSampler(samples, threshold=0)  # in another number of processes
        resumed.load_state_dict(first[2])
        assert list(resumed) == first[2]["left"].tolist()


def example(name):
    path = Path(__file__).resolve().parent.parent / "examples" / "loops" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_plain_example(tmp_path):
    plain = example("plain")
    model, loaded, _ = plain.fit()
    assert plain.accuracy(model) > 0.85 and loaded < 0.5 * plain.EPOCHS * len(plain.train)
    _, before, checkpoint = plain.fit(stop_after=120)  # in the second epoch
    assert len(plain.train) < before < 2 * len(plain.train)
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    resumed, after, _ = plain.fit(torch.load(tmp_path / "checkpoint.pt"))
    assert before + after == loaded
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), resumed.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The `srun` command is available")  # where SLURM is installed
@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # it continues there on purpose
def test_the_lightning_example(tmp_path):
    lightning = pytest.importorskip("lightning")
    digits = example("lightning_module")

    def fit(module, epochs, **more):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=tmp_path, **quiet)
        trainer.fit(module, **more)
        return trainer

    class Counting(digits.Digits):
        validated = 0

        def on_validation_epoch_end(self):
            self.validated += not self.trainer.sanity_checking

    lightning.seed_everything(0)
    whole = Counting()
    trainer = fit(whole, 6)
    assert float(trainer.callback_metrics["accuracy"]) > 0.85
    assert whole.validated == 6 and len(whole.loaded) == 6  # also in the short epochs
    assert whole.loaded[0] == len(digits.train) and sum(whole.loaded) < 0.6 * 6 * len(digits.train)
    lightning.seed_everything(0)
    first = Counting()
    fit(first, 3).save_checkpoint(tmp_path / "three.ckpt")
    second = Counting()
    fit(second, 6, ckpt_path=tmp_path / "three.ckpt")
    assert first.loaded + second.loaded == whole.loaded
    assert torch.equal(second.model[0].weight, whole.model[0].weight)


def test_indexed():
    assert Indexed(["a", "b"])[1] == (1, "b") and len(Indexed(["a", "b"])) == 2
    part = Subset(TensorDataset(torch.arange(10)), [4, 2])  # fetches a batch at once
    (index, (values,)) = next(iter(DataLoader(Indexed(part), 2)))
    assert index.tolist() == [0, 1] and values.tolist() == [4, 2]
    with pytest.raises(TypeError, match="index"):
        Indexed(iter([1]))


def test_invalid_options_are_refused():
    for options in (
        {"max_interval": 0},
        {"max_interval": 2**31},
        {"threshold": -0.1},
        {"skip_threshold": 2},
        {"samples": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            SpacedSampler(**{"samples": 10, **options})
    with pytest.raises(TypeError, match="remove the DistributedSampler"):
        SpacedSampler(10, order=DistributedSampler(range(10), num_replicas=2, rank=0))
    sampler = SpacedSampler(10)
    with pytest.raises(ValueError, match="3 indices"):
        sampler.update(torch.arange(3), torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="of 10 samples, not of 11"):
        SpacedSampler(11).load_state_dict(sampler.state_dict())


@pytest.mark.gpu
def test_no_host_synchronisation_on_a_gpu():
    sampler = SpacedSampler(4)
    index = torch.tensor(list(sampler))
    logits, targets = torch.randn(4, 3).cuda(), torch.tensor([0, 1, 2, 0]).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        sampler.update(index, logits, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(list(sampler)) < 5


def test_the_sample_left_out_differs_from_epoch_to_epoch(monkeypatch):
    """Five samples in a fixed order, two processes: each epoch leaves out one, another one each time."""
    monkeypatch.setattr(sampler, "rank_and_size", lambda: (0, 2))
    monkeypatch.setattr(SpacedSampler, "merge", lambda self: None)
    monkeypatch.setattr(sampler, "_agreed", lambda order: order)
    spaced = SpacedSampler(5, order=range(5))
    left_out = []
    for epoch in range(10):
        spaced._begin(epoch)
        assert len(spaced._active) == 4 and spaced._active.tolist() == sorted(spaced._active.tolist())
        left_out += set(range(5)) - set(spaced._active.tolist())
    assert sorted(left_out) == sorted([*range(5)] * 2)


def test_with_a_gated_loss_the_sampler_equals_the_spaced_rule():
    """Samples that the loss selects are never skipped, so one that was ever wrong is in every epoch."""
    samples = 200
    spaced, criterion = SpacedSampler(samples, max_interval=4, seed=5), MistakeGatedLoss(samples)
    rule = MistakeGated(max_interval=4)
    rule.start(RunInfo(samples, 10, 10, 5, torch.device("cpu")))
    for epoch in range(10):
        expected = rule.epoch_indices(epoch)
        assert list(spaced) == expected.tolist()
        assert set(criterion.ever_wrong.nonzero().squeeze(1).tolist()) <= set(expected.tolist())
        logits, targets = scores(samples, epoch, classes=2)
        logits = torch.where(torch.arange(samples)[:, None] % 3 > 0, 9 * torch.eye(2)[targets], logits)
        for index in expected.split(10):
            batch = ScoredBatch(index, logits[index], targets[index])
            batch.selected = rule.select(batch)
            rule.update(batch)
            criterion(logits[index], targets[index], index)
            spaced.update_selected(index, criterion.selected)
    assert 0 < len(expected) < samples and torch.equal(rule.ever_wrong, criterion.ever_wrong)


def test_what_a_lazy_loss_selects_is_threshold_0():
    one, other, criterion = SpacedSampler(60, threshold=0), SpacedSampler(60), LazyLoss()
    for epoch in range(5):
        index = torch.tensor(list(one))
        assert index.tolist() == list(other)
        logits, targets = scores(60, epoch)
        criterion(logits[index], targets[index])
        one.update(index, logits[index], targets[index])
        other.update_selected(index, criterion.selected)


@pytest.mark.parametrize("together", [True, False])
def test_a_sample_reported_twice_is_skipped_only_if_both_reports_allow_it(together):
    def report(sampler, selected, confident):
        index = torch.arange(3)
        rows = [(index, torch.tensor(row), torch.tensor(sure)) for row, sure in zip(selected, confident, strict=True)]
        if together:
            sampler.update_selected(*(torch.cat(parts) for parts in zip(*rows, strict=True)))
        else:
            for row in rows:
                sampler.update_selected(*row)

    sampler = SpacedSampler(3, order=range(3))
    list(sampler)
    report(sampler, [[True, False, False], [False, False, False]], [[False, True, True], [False, False, True]])
    epochs = [list(sampler) for _ in range(9)]
    assert 0 in epochs[0]  # selected once
    assert [epoch for epoch in range(9) if 1 in epochs[epoch]] == list(range(1, 9))  # skips one epoch, not 8, nor 2
    assert [epoch for epoch in range(9) if 2 in epochs[epoch]] == [8]


def test_numpy_and_lists_are_accepted_as_reports():
    sampler = SpacedSampler(4, order=range(4))
    list(sampler)
    sampler.update_selected([0, 1], [False, True])
    sampler.update_selected(torch.tensor([2, 3]).numpy(), torch.tensor([0, 1]).numpy())
    assert list(sampler) == [1, 3]


def test_without_shards_every_process_gets_all_samples(monkeypatch):
    monkeypatch.setattr(sampler, "rank_and_size", lambda: (1, 2))
    monkeypatch.setattr(SpacedSampler, "merge", lambda self: None)
    whole = SpacedSampler(7, shard=False)
    assert len(whole) == 7 and sorted(whole) == list(range(7)) and len(whole) == 7
    assert len(SpacedSampler(7)) == 3


def test_an_iterator_that_is_not_used_begins_no_epoch():
    sampler = SpacedSampler(8)
    for _ in range(3):
        iter(sampler)
    assert sampler.epoch == -1
    assert len(list(sampler)) == 8 and sampler.epoch == 0


def test_an_iterator_resumes_with_the_samples_that_are_left():
    whole = list(SpacedSampler(10))
    first = iter(SpacedSampler(10))
    begun = [next(first) for _ in range(4)]
    sampler = SpacedSampler(10)
    second = iter(sampler)
    second.load_state_dict(first.state_dict())
    assert begun + list(second) == whole
    fresh = iter(SpacedSampler(10))
    fresh.load_state_dict(iter(SpacedSampler(10)).state_dict())  # saved before the first sample
    assert list(fresh) == whole


@pytest.mark.parametrize(
    "state, message",
    [
        ({}, "not a state of SpacedSampler: epoch, interval, left, next_epoch missing"),
        ({"epoch": 3}, "interval, left, next_epoch missing"),
    ],
)
def test_a_state_of_something_else_is_refused(state, message):
    with pytest.raises(ValueError, match=message):
        SpacedSampler(10).load_state_dict(state)
