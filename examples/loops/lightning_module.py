"""The loop of plain.py in Lightning: pip install lightning, then python examples/loops/lightning_module.py.

The number of batches differs from epoch to epoch, but Lightning keeps the first length of a loader. So the loader is
wrapped in an object without a length: Lightning then finds the end of every epoch by iteration, and validates there.
The wrapper also keeps Lightning from splitting the data among processes, which SpacedSampler does itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lazyexp import Indexed, LazyLoss, SpacedSampler

images, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
train, test = TensorDataset(images[:1400], labels[:1400]), TensorDataset(images[1400:], labels[1400:])


class WithoutLength:
    """A loader without a length."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


class Digits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.criterion = LazyLoss(nn.CrossEntropyLoss(), threshold=0.9)
        self.sampler = SpacedSampler(len(train))
        self.loaded: list[int] = []  # samples per epoch

    def train_dataloader(self) -> WithoutLength:
        return WithoutLength(DataLoader(Indexed(train), batch_size=16, sampler=self.sampler))

    def val_dataloader(self) -> DataLoader:
        return DataLoader(test, batch_size=128)

    def on_train_epoch_start(self) -> None:
        self.loaded.append(0)

    def training_step(self, batch: Any, number: int) -> Tensor:
        index, (x, y) = batch
        logits = self.model(x)
        self.sampler.update(index, logits, y)
        self.loaded[-1] += len(index)
        return self.criterion(logits, y)

    def validation_step(self, batch: Any, number: int) -> None:
        x, y = batch
        self.log("accuracy", (self.model(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["sampler"] = self.sampler.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.sampler.load_state_dict(checkpoint["sampler"])


if __name__ == "__main__":
    lightning.seed_everything(0)
    module = Digits()
    trainer = lightning.Trainer(max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module)
    loaded, presented = sum(module.loaded), 20 * len(train)
    print(f"{float(trainer.callback_metrics['accuracy']):.1%} with {loaded:,} samples loaded, of {presented:,}")
