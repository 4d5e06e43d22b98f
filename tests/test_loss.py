"""The drop-in loss against cross-entropy itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lazyexp import LazyLoss, lazy_loss

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.1, 0.0]])
TARGETS = torch.tensor([0, 0, 2, 1])  # right, wrong, wrong, right but hesitant


def test_only_mistakes_count():
    each = F.cross_entropy(LOGITS, TARGETS, reduction="none")
    wrong = each[1] + each[2]
    for reduction, expected in (("batch", wrong / 4), ("selected", wrong / 2), ("sum", wrong)):
        loss, learned = lazy_loss(LOGITS, TARGETS, reduction=reduction)
        assert float(loss) == pytest.approx(float(expected)) and int(learned) == 2
    assert torch.equal(lazy_loss(LOGITS, TARGETS, reduction="none")[0], each * torch.tensor([0, 1, 1, 0]))
    assert int(lazy_loss(LOGITS, TARGETS, threshold=0.5)[1]) == 3
    assert int(lazy_loss(LOGITS, TARGETS, threshold=1.0)[1]) == 4


def test_gradients_are_zero_for_the_others():
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
def test_nobody_wrong_is_a_zero_loss_with_zero_gradients(reduction):
    logits = LOGITS[[0, 3]].clone().requires_grad_()
    criterion = LazyLoss(reduction=reduction)
    loss = criterion(logits, TARGETS[[0, 3]])
    loss.backward()
    assert not criterion.learned and float(loss.detach()) == 0 and not logits.grad.any()


def test_infinite_logits_of_a_right_sample_do_no_harm():
    logits = torch.tensor([[float("inf"), 0.0], [1.0, 0.0]], requires_grad=True)
    assert torch.isfinite(lazy_loss(logits, torch.tensor([0, 1]))[0])


def test_autocast():
    model, inputs = nn.Linear(5, 3), torch.randn(8, 5)
    criterion = LazyLoss(nn.CrossEntropyLoss())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = criterion(model(inputs), torch.arange(8) % 3)
    loss.backward()
    assert torch.isfinite(model.weight.grad).all()


def test_what_cannot_be_lazy_is_refused():
    with pytest.raises(TypeError):
        LazyLoss(nn.MSELoss())
    with pytest.raises(ValueError, match="label smoothing"):
        LazyLoss(nn.CrossEntropyLoss(label_smoothing=0.1))
    with pytest.raises(ValueError, match="reduction"):
        lazy_loss(LOGITS, TARGETS, reduction="mean")
    with pytest.raises(ValueError, match="threshold"):
        LazyLoss(threshold=2)


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
