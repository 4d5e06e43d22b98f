"""The built-in parts by name. To add one: a line here, a YAML file in conf/<group>, and its own module.

Nothing here imports torch, so `lazyexp --help` and shell completion stay fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lazyexp.config.imports import Registry

# Called as target(shape=..., classes=..., and those keys of `model` that it has parameters for).
MODELS = Registry(
    {
        "mlp": "lazyexp.models.builtin.mlp",
        "cnn": "lazyexp.models.builtin.cnn",
        "torchvision": "lazyexp.models.torchvision.classifier",
    }
)

RULES = Registry(
    {
        "backprop": "lazyexp.rules.baselines.Backprop",
        "lazy": "lazyexp.rules.mistakes.Lazy",
        "mistake_gated": "lazyexp.rules.mistakes.MistakeGated",
        "confidence": "lazyexp.rules.mistakes.Confidence",
        "spaced": "lazyexp.rules.mistakes.Spaced",
        "random": "lazyexp.rules.baselines.Random",
        "progressive": "lazyexp.rules.progressive.Progressive",
        "smrd": "lazyexp.rules.progressive.MatchedDropout",
        "srd": "lazyexp.rules.progressive.ScalarDropout",
        "top_loss": "lazyexp.rules.ordered_sgd.TopLoss",
        "selective_backprop": "lazyexp.rules.selective_backprop.SelectiveBackprop",
        "composer_selective_backprop": "lazyexp.rules.selective_backprop.ComposerSelectiveBackprop",
        "infobatch": "lazyexp.rules.infobatch.InfoBatch",
        "kakurenbo": "lazyexp.rules.kakurenbo.Kakurenbo",
        "early_stopping": "lazyexp.rules.early_stopping.EarlyStopping",
        "evolved_sampling": "lazyexp.rules.evolved_sampling.EvolvedSampling",
        "order_dp": "lazyexp.rules.order_dp.OrderDP",
    }
)

OPTIMIZERS = Registry({"sgd": "torch.optim.SGD", "adam": "torch.optim.Adam", "adamw": "torch.optim.AdamW"})


@dataclass(frozen=True)
class Dataset:
    """What a run on a data set does unless told otherwise (our choice: the paper does not say), and its loader.

    The epochs of digits, MNIST, Fashion-MNIST and EMNIST were chosen by validation, with the rate 0.01 for all
    (docs/results.md, "Defaults of the data sets"); those of the others are guesses after them.

    The loader is called with the settings that it has parameters for, and with `options`.
    """

    epochs: int
    eval_every: int
    targets: tuple[float, ...]
    target: str = "lazyexp.data.torchvision_sets.load_torchvision"
    options: dict[str, Any] = field(default_factory=dict)


def _torchvision(kind: str, classes: int, official: tuple[int, int], split: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "classes": classes, "official": official, "split": split}


DATASETS = {
    "digits": Dataset(20, 2000, (0.90, 0.95), "lazyexp.data.local.load_digits"),
    "mnist": Dataset(8, 10000, (0.95, 0.97, 0.98), options=_torchvision("MNIST", 10, (60000, 10000))),
    "emnist": Dataset(8, 20000, (0.98, 0.99, 0.992), options=_torchvision("EMNIST", 10, (240000, 40000), "digits")),
    "emnist_balanced": Dataset(
        10, 20000, (0.75, 0.80, 0.83), options=_torchvision("EMNIST", 47, (112800, 18800), "balanced")
    ),
    "emnist_letters": Dataset(
        10, 20000, (0.80, 0.85, 0.88), options=_torchvision("EMNIST", 26, (124800, 20800), "letters")
    ),
    "emnist_byclass": Dataset(
        4, 100000, (0.80, 0.82, 0.84), options=_torchvision("EMNIST", 62, (697932, 116323), "byclass")
    ),
    "emnist_bymerge": Dataset(
        4, 100000, (0.84, 0.86, 0.88), options=_torchvision("EMNIST", 47, (697932, 116323), "bymerge")
    ),
    "emnist_mnist": Dataset(
        10, 10000, (0.95, 0.97, 0.98), options=_torchvision("EMNIST", 10, (60000, 10000), "mnist")
    ),
    "fashion_mnist": Dataset(16, 10000, (0.80, 0.85, 0.88), options=_torchvision("FashionMNIST", 10, (60000, 10000))),
    "kmnist": Dataset(10, 10000, (0.85, 0.90, 0.92), options=_torchvision("KMNIST", 10, (60000, 10000))),
    "qmnist": Dataset(10, 10000, (0.95, 0.97, 0.98), options=_torchvision("QMNIST", 10, (60000, 60000))),
    "usps": Dataset(20, 5000, (0.90, 0.93, 0.94), options=_torchvision("USPS", 10, (7291, 2007))),
    "svhn": Dataset(10, 20000, (0.70, 0.75, 0.80), options=_torchvision("SVHN", 10, (73257, 26032))),
    "cifar10": Dataset(10, 10000, (0.40, 0.45, 0.50), options=_torchvision("CIFAR10", 10, (50000, 10000))),
    "cifar100": Dataset(10, 10000, (0.15, 0.20, 0.25), options=_torchvision("CIFAR100", 100, (50000, 10000))),
    "folder": Dataset(10, 10000, (0.90, 0.95, 0.99), "lazyexp.data.local.load_folder"),
}
# Of data that are brought along.
CUSTOM_DATASET = Dataset(10, 10000, (0.90, 0.95, 0.99))

# By group: the names that `<group>.name` knows.
NAMES = {"model": MODELS, "dataset": DATASETS, "optimizer": OPTIMIZERS, "rule": RULES}
