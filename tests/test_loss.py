"""The losses against cross-entropy and against plain loops in Python."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from lazyexp import LazyLoss, lazy_loss
from lazyexp.loss import MistakeGatedLoss
from lazyexp.rules import RunInfo, ScoredBatch, make_rule

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.1, 0.0]])
TARGETS = torch.tensor([0, 0, 2, 1])  # right, wrong, wrong, right with low confidence


def test_only_mistakes_contribute():
    each = F.cross_entropy(LOGITS, TARGETS, reduction="none")
    wrong = each[1] + each[2]
    for reduction, expected in (("batch", wrong / 4), ("selected", wrong / 2), ("sum", wrong)):
        loss, number = lazy_loss(LOGITS, TARGETS, reduction=reduction)
        assert float(loss) == pytest.approx(float(expected)) and int(number) == 2
    assert torch.equal(lazy_loss(LOGITS, TARGETS, reduction="none")[0], each * torch.tensor([0, 1, 1, 0]))
    assert int(lazy_loss(LOGITS, TARGETS, threshold=0.5)[1]) == 3
    assert int(lazy_loss(LOGITS, TARGETS, threshold=1.0)[1]) == 4


def test_gradients_of_other_samples_are_zero():
    logits = LOGITS.clone().requires_grad_()
    LazyLoss()(logits, TARGETS).backward()
    full = LOGITS.clone().requires_grad_()
    nn.CrossEntropyLoss()(full, TARGETS).backward()
    assert not logits.grad[[0, 3]].any()
    assert torch.allclose(logits.grad[[1, 2]], full.grad[[1, 2]])


@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"weight": torch.tensor([1.0, 2.0, 3.0])}])
@pytest.mark.parametrize("ignored", [False, True])
def test_equals_cross_entropy_when_all_are_wrong(options, ignored):
    logits = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(0))
    targets = logits.argmin(1)
    if ignored:
        targets[:, 1] = -100
    criterion = nn.CrossEntropyLoss(**options)
    lazy = LazyLoss(criterion)
    assert float(lazy(logits, targets)) == pytest.approx(float(criterion(logits, targets)), rel=1e-5)
    assert int(lazy.learned) == (60 if ignored else 80)


def test_threshold_one_is_cross_entropy():
    assert torch.allclose(LazyLoss(threshold=1.0)(LOGITS, TARGETS), F.cross_entropy(LOGITS, TARGETS))


@pytest.mark.parametrize("reduction", ["batch", "selected"])
def test_without_mistakes_loss_and_gradients_are_zero(reduction):
    logits = LOGITS[[0, 3]].clone().requires_grad_()
    criterion = LazyLoss(reduction=reduction)
    loss = criterion(logits, TARGETS[[0, 3]])
    loss.backward()
    assert not criterion.learned and float(loss.detach()) == 0 and not logits.grad.any()


def test_infinite_logits_of_a_right_sample_have_no_effect():
    logits = torch.tensor([[float("inf"), 0.0], [1.0, 0.0]], requires_grad=True)
    assert torch.isfinite(lazy_loss(logits, torch.tensor([0, 1]))[0])


def test_autocast():
    model, inputs = nn.Linear(5, 3), torch.randn(8, 5)
    criterion = LazyLoss(nn.CrossEntropyLoss())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = criterion(model(inputs), torch.arange(8) % 3)
    loss.backward()
    assert torch.isfinite(model.weight.grad).all()


def brute_force(logits, targets, threshold=0.0, weight=None, ignore_index=-100, smoothing=0.0):
    """The cross-entropy of every target, whether it is selected, and the divisor of the mean, in plain Python."""
    classes = logits.shape[1]
    rows = logits.movedim(1, -1).reshape(-1, classes).double().tolist()
    soft = targets.is_floating_point()
    goals = targets.movedim(1, -1).reshape(-1, classes).tolist() if soft else targets.flatten().tolist()
    weight = [1.0] * classes if weight is None else weight.tolist()
    each, selected, divisor = [], [], 0.0
    for row, goal in zip(rows, goals, strict=True):
        if not soft and goal == ignore_index:
            each.append(0.0), selected.append(False)
            continue
        top = max(row)
        total = sum(math.exp(value - top) for value in row)
        shares = [math.exp(value - top) / total for value in row]
        wanted = goal if soft else [float(c == goal) for c in range(classes)]
        smoothed = [(1 - smoothing) * value + smoothing / classes for value in wanted]
        each.append(-sum(w * s * math.log(p) for w, s, p in zip(weight, smoothed, shares, strict=True)))
        selected.append(wanted[row.index(top)] < max(wanted) or max(shares) < threshold)
        divisor += 1.0 if soft else weight[goal]
    return each, selected, divisor


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("threshold", [0.0, 0.6])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["indices", "ignored", "ignored as 255", "probabilities", "mixed up"])
@pytest.mark.parametrize("shape", [(30,), (6, 5), (3, 2, 4)])
def test_all_arguments_of_cross_entropy(shape, kind, weighted, threshold, smoothing):
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(shape[0], 4, *shape[1:], generator=random)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0]) if weighted else None
    ignored = 255 if kind == "ignored as 255" else -100
    targets = torch.randint(4, shape, generator=random)
    if kind.startswith("ignored"):
        targets[torch.rand(shape, generator=random) < 0.3] = ignored
    elif kind == "probabilities":
        targets = torch.rand(logits.shape, generator=random).softmax(1)
    elif kind == "mixed up":  # two classes, half each: either is right
        other = (targets + 1) % 4
        targets = (F.one_hot(targets, 4) + F.one_hot(other, 4)).movedim(-1, 1) / 2
    each, selected, divisor = brute_force(logits, targets, threshold, weight, ignored, smoothing)
    assert 0 < sum(selected) < len(selected)
    losses = [value if chosen else 0.0 for value, chosen in zip(each, selected, strict=True)]
    for reduction, expected in (("mean", sum(losses) / divisor), ("sum", sum(losses)), ("none", losses)):
        criterion = nn.CrossEntropyLoss(weight, ignore_index=ignored, reduction=reduction, label_smoothing=smoothing)
        lazy = LazyLoss(criterion, threshold)
        loss = lazy(logits, targets)
        assert loss.flatten().tolist() == pytest.approx(expected if reduction == "none" else [expected], rel=1e-4)
        assert int(lazy.learned) == sum(selected)
        everything = LazyLoss(criterion, threshold=1)(logits, targets)
        assert torch.allclose(everything, criterion(logits, targets), rtol=1e-4)


def test_one_sample_without_a_batch():
    for target, expected in ((0, 0.0), (1, float(F.cross_entropy(LOGITS[0], torch.tensor(1))))):
        assert float(lazy_loss(LOGITS[0], torch.tensor(target))[0]) == pytest.approx(expected)
    assert int(lazy_loss(LOGITS[0], torch.tensor([0.2, 0.5, 0.3]))[1]) == 1


def test_binary_cross_entropy_by_hand():
    logits = torch.tensor([[2.0, -1.0, 0.0], [0.3, -0.2, 3.0], [-2.0, 1.0, 0.0]])
    targets = torch.tensor([[1.0, 1.0, 1.0], [0.9, 0.1, 0.0], [0.5, 1.0, 0.0]])
    wrong = [[False, True, True], [False, False, True], [True, False, True]]  # target 1/2 or logit 0: no side, wrong
    weight, pos_weight = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.5, 1.0])
    probability = [[1 / (1 + math.exp(-value)) for value in row] for row in logits.tolist()]
    each = [
        -weight[j].item() * (pos_weight[j].item() * t * math.log(p) + (1 - t) * math.log(1 - p)) * wrong[i][j]
        for i in range(3)
        for j, (t, p) in enumerate(zip(targets[i].tolist(), probability[i], strict=True))
    ]
    for reduction, expected in (("mean", [sum(each) / 9]), ("sum", [sum(each)]), ("none", each)):
        criterion = LazyLoss(nn.BCEWithLogitsLoss(weight, pos_weight=pos_weight, reduction=reduction))
        assert criterion(logits, targets).flatten().tolist() == pytest.approx(expected, rel=1e-5)
        assert int(criterion.learned) == 5
    criterion = LazyLoss(nn.BCEWithLogitsLoss(), reduction="selected")
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    assert float(criterion(logits, targets)) == pytest.approx(float(plain[torch.tensor(wrong)].mean()))
    cautious = LazyLoss(nn.BCEWithLogitsLoss(), threshold=0.6)  # 0.3 and -0.2 as well, not 1.0, -1.0
    cautious(logits, targets)
    assert int(cautious.learned) == 7
    everything = LazyLoss(nn.BCEWithLogitsLoss(), threshold=1)(100 * logits, targets)
    assert torch.allclose(everything, F.binary_cross_entropy_with_logits(100 * logits, targets))


def test_binary_gradients_of_other_elements_are_zero():
    logits = torch.tensor([2.0, -1.0, 3.0, -4.0], requires_grad=True)
    LazyLoss(nn.BCEWithLogitsLoss())(logits, torch.tensor([1.0, 1.0, 0.0, 0.0])).backward()
    assert logits.grad.tolist() == pytest.approx([0, (1 / (1 + math.exp(1)) - 1) / 4, 1 / (1 + math.exp(-3)) / 4, 0])


class Focal(nn.CrossEntropyLoss):
    def forward(self, logits, targets):
        return super().forward(logits, targets) ** 2


@pytest.mark.parametrize(
    "criterion",
    [
        *(kind() for kind in (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss, nn.BCELoss)),
        F.cross_entropy,
        F.cross_entropy(LOGITS, TARGETS),
        Focal(),
        "mean",
    ],
    ids=lambda criterion: getattr(criterion, "__name__", type(criterion).__name__),
)
def test_other_criteria_are_refused(criterion):
    with pytest.raises(TypeError, match="needs an nn.CrossEntropyLoss or nn.BCEWithLogitsLoss") as error:
        LazyLoss(criterion)
    assert "\n" not in str(error.value)


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="reduction"):
        lazy_loss(LOGITS, TARGETS, reduction="mean")
    with pytest.raises(ValueError, match="reduction"):
        LazyLoss(reduction="mean")
    with pytest.raises(ValueError, match="threshold"):
        LazyLoss(threshold=2)
    with pytest.raises(ValueError, match="already computed"):
        lazy_loss(F.cross_entropy(LOGITS, TARGETS), TARGETS)
    each = F.cross_entropy(LOGITS, TARGETS, reduction="none")
    for logits, targets in (
        (each, TARGETS),
        (LOGITS, TARGETS[:3]),
        (LOGITS, LOGITS[:, :2]),
        (LOGITS, TARGETS.float()),
    ):
        with pytest.raises(ValueError, match="targets of shape"):
            lazy_loss(logits, targets)
    with pytest.raises(ValueError, match="targets of shape"):
        LazyLoss(nn.BCEWithLogitsLoss())(LOGITS[:, :1], TARGETS.float())


@pytest.mark.gpu
def test_no_host_synchronisation_on_a_gpu():
    logits, targets = LOGITS.cuda().requires_grad_(), TARGETS.cuda()
    criterion = LazyLoss(nn.CrossEntropyLoss()).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        criterion(logits, targets).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int(criterion.learned) == 2


class Gate:
    """Memorised mistake gating in plain Python."""

    def __init__(self):
        self.ever_wrong = set()

    def __call__(self, logits, targets, index):
        wrong = [row.index(max(row)) != target for row, target in zip(logits.tolist(), targets.tolist(), strict=True)]
        self.ever_wrong |= {i for i, bad in zip(index.tolist(), wrong, strict=True) if bad}
        return [i in self.ever_wrong for i in index.tolist()]


def test_mistake_gating_equals_the_rule_and_plain_python():
    rule = make_rule({"name": "mistake_gated"})
    rule.start(RunInfo(40, 8, 5, 0, torch.device("cpu")))
    criterion, gate, random = MistakeGatedLoss(40), Gate(), torch.Generator().manual_seed(0)
    targets = torch.randint(3, (40,), generator=random)
    for epoch in range(5):
        for index in rule.epoch_indices(epoch).split(8):
            logits = torch.randn(8, 3, generator=random) + 2 * F.one_hot(targets[index], 3)
            batch = ScoredBatch(index, logits, targets[index])
            batch.selected = rule.select(batch)
            rule.update(batch)
            loss = criterion(logits, targets[index], index)
            expected = torch.tensor(gate(logits, targets[index], index))
            assert torch.equal(criterion.selected, expected) and torch.equal(batch.selected, expected)
            each = F.cross_entropy(logits, targets[index], reduction="none")
            assert float(loss) == pytest.approx(float(each[expected].sum() / 8), rel=1e-5)
            assert int(criterion.learned) == int(expected.sum())
    assert torch.equal(criterion.ever_wrong, rule.ever_wrong)


def test_mistake_gating_keeps_its_state_and_resumes(tmp_path):
    criterion = MistakeGatedLoss(6, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])))
    right, index = torch.tensor([[3.0, 0, 0], [0, 3, 0]]), torch.tensor([4, 2])
    criterion(right, torch.tensor([1, 1]), index)
    assert criterion.ever_wrong.tolist() == [False] * 4 + [True, False]
    criterion(right, torch.tensor([0, 1]), index)
    assert criterion.selected.tolist() == [True, False]
    torch.save(criterion.state_dict(), tmp_path / "criterion.pt")
    resumed = MistakeGatedLoss(6, nn.CrossEntropyLoss(weight=torch.ones(3)))
    resumed.load_state_dict(torch.load(tmp_path / "criterion.pt", weights_only=True))
    assert float(resumed(right, torch.tensor([0, 1]), index)) == float(criterion(right, torch.tensor([0, 1]), index))
    with pytest.raises(RuntimeError, match="size mismatch"):
        MistakeGatedLoss(7).load_state_dict(criterion.state_dict())


def test_a_sample_twice_in_a_batch_is_remembered_if_it_is_wrong_once():
    for order in ([0, 1], [1, 0]):
        criterion = MistakeGatedLoss(3)
        criterion(torch.tensor([[1.0, 0], [0, 1]])[order], torch.tensor([0, 0]), torch.tensor([2, 2]))
        assert criterion.ever_wrong.tolist() == [False, False, True] and criterion.selected.all()


def test_a_sample_with_several_targets_is_gated_as_a_whole():
    logits = torch.zeros(2, 3, 4)
    logits[:, 0] = 5.0
    targets = torch.zeros(2, 4, dtype=torch.int64)
    targets[0, 1], targets[0, 2], targets[1, 3] = 1, -100, -100
    criterion = MistakeGatedLoss(2)
    criterion(logits, targets, torch.arange(2))
    assert int(criterion.learned) == 3 and criterion.selected.tolist() == [
        True,
        False,
    ]  # the ignored one is not counted
    binary = MistakeGatedLoss(2, nn.BCEWithLogitsLoss())
    binary(torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.arange(2))
    assert int(binary.learned) == 2 and binary.ever_wrong.tolist() == [True, False]
    flat = MistakeGatedLoss(2, nn.BCEWithLogitsLoss())
    flat(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]), torch.arange(2))
    assert flat.selected.tolist() == [False, True]


@pytest.mark.parametrize(
    "index, message",
    [
        (torch.tensor([0, 1, 2]), "one per sample"),
        (torch.tensor(0), "one per sample"),
        (torch.tensor([[0], [1]]), "one per sample"),
        (torch.tensor([0.0, 1.0]), "whole numbers"),
        (torch.tensor([True, False]), "whole numbers"),
        (torch.tensor([0, 5]), "from 0 to 4"),
        (torch.tensor([-1, 0]), "from 0 to 4"),
        ([0, 7], "from 0 to 4"),
    ],
    ids=str,
)
def test_an_index_that_does_not_fit_is_refused(index, message):
    criterion = MistakeGatedLoss(5)
    with pytest.raises(ValueError, match=message):
        criterion(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), index)
    assert not criterion.ever_wrong.any()


def test_invalid_arguments_of_mistake_gating_are_refused():
    for samples in (-1, 2.5, None):
        with pytest.raises(ValueError, match="samples"):
            MistakeGatedLoss(samples)
    with pytest.raises(TypeError, match="MistakeGatedLoss needs an nn.CrossEntropyLoss"):
        MistakeGatedLoss(5, nn.MSELoss())
    with pytest.raises(ValueError, match="targets of shape"):
        MistakeGatedLoss(5)(torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), torch.arange(2))


def test_selected_tells_the_samples():
    criterion = LazyLoss()
    criterion(LOGITS, TARGETS)
    assert criterion.selected.tolist() == [False, True, True, False] and criterion.any_learned()
    criterion(LOGITS[0], TARGETS[0])
    assert criterion.selected.shape == () and not criterion.any_learned()


def loop_of_process(rank, file, results, gated):
    """The loop of the documentation under DistributedDataParallel: one process has a mistake, the other has none."""
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model.module.weight.copy_(torch.eye(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    criterion = MistakeGatedLoss(4) if gated else LazyLoss()
    inputs = torch.eye(2)
    steps = 0
    for targets in (torch.tensor([0, 1 - rank]), torch.tensor([0, 1])):
        index = (torch.arange(2) + 2 * rank,) if gated else ()
        loss = criterion(model(inputs), targets, *index)
        if criterion.any_learned():
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
    memory = criterion.ever_wrong.clone() if gated else None
    if gated:
        criterion.merge()
    torch.save((model.module.weight, steps, memory, getattr(criterion, "ever_wrong", None)), f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True])
def test_two_processes_with_mistakes_in_one_of_them(tmp_path, gated):
    mp.spawn(loop_of_process, (tmp_path / "rendezvous", tmp_path, gated), nprocs=2)
    (first, steps, before, merged), other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, other[0]) and not torch.equal(first, torch.eye(2))
    assert steps == other[1] == (2 if gated else 1)
    if gated:
        assert not before.any() and other[2].tolist() == [False, False, False, True]
        assert merged.tolist() == other[3].tolist() == [False, False, False, True]


def test_grad_scaler():
    """Scaling, step and update belong into the same `if`; there, a batch without mistakes changes nothing."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler, criterion = torch.amp.GradScaler("cpu"), LazyLoss()
    weights = []
    for targets in (torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([0, 1])):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = criterion(model(torch.eye(2)), targets)
        if criterion.any_learned():
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        weights.append(model.weight.detach().clone())
    assert torch.equal(weights[0], torch.eye(2)) and torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.slow
def test_importing_the_losses_needs_torch_alone():
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED: raise ModuleNotFoundError(name)
BLOCKED = {"hydra", "omegaconf", "pandas", "scipy", "sklearn", "tqdm", "matplotlib", "seaborn", "jinja2", "filelock"}
sys.meta_path.insert(0, Block())
from lazyexp.loss import LazyLoss, MistakeGatedLoss
from lazyexp.sampler import Indexed, SpacedSampler
print(LazyLoss(), len(SpacedSampler(3)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
