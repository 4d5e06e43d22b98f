"""Matrix products have the set precision in training, and float32 precision elsewhere."""

from __future__ import annotations

import torch

from lazyexp.config.run_id import run_id
from lazyexp.config.schema import Config
from lazyexp.config.validation import check
from lazyexp.experiment import run
from lazyexp.training import trainer
from lazyexp.training.fast.direct import Direct
from lazyexp.training.precision import matmul_precision


def test_the_precision_is_restored_after_the_block():
    before = torch.get_float32_matmul_precision()
    try:
        with matmul_precision("bfloat16"):
            assert torch.get_float32_matmul_precision() == "medium"
            raise ValueError
    except ValueError:
        pass
    assert torch.get_float32_matmul_precision() == before


def test_training_uses_the_precision_and_evaluation_does_not(tmp_path, monkeypatch):
    seen = {"train": set(), "evaluate": set()}
    original_train, original_evaluate = Direct.train, trainer.evaluate

    def train(self, index, rates):
        seen["train"].add(torch.get_float32_matmul_precision())
        return original_train(self, index, rates)

    def evaluate(*arguments):
        seen["evaluate"].add(torch.get_float32_matmul_precision())
        return original_evaluate(*arguments)

    monkeypatch.setattr(Direct, "train", train)
    monkeypatch.setattr(trainer, "evaluate", evaluate)
    settings = Config(epochs=1, batch_size=64, device="cpu", runs_dir=str(tmp_path), precision="bfloat16")
    settings.model.width = 20
    assert run(check(settings)).status == "finished"
    assert seen == {"train": {"medium"}, "evaluate": {"highest"}}


def test_the_precision_is_part_of_the_run_id():
    names = {run_id(check(Config(precision=name)), {}, "cpu", "") for name in ("float32", "tf32", "bfloat16")}
    assert len(names) == 3
