"""The built-in parts by name. To add one: an entry here and its own module.

Nothing here imports torch, so `lazyexp --help` and shell completion stay fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lazyexp.config.imports import Registry

# Called as target(shape=..., classes=..., and the keys of `model` that it has parameters for).
MODELS = Registry(
    {
        "mlp": "lazyexp.models.builtin.mlp",
        "cnn": "lazyexp.models.builtin.cnn",
        "resnet": "lazyexp.models.resnet.resnet",
        "torchvision": "lazyexp.models.torchvision.classifier",
    }
)

# Import path, and one line for `--help`: the samples that update the weights.
_RULES = {
    "backprop": ("lazyexp.rules.baselines.Backprop", "all samples"),
    "lazy": ("lazyexp.rules.mistakes.Lazy", "misclassified ones (arXiv 2303.16067)"),
    "mistake_gated": (
        "lazyexp.rules.mistakes.MistakeGated",
        "misclassified now or ever before (arXiv 2604.14336)",
    ),
    "confidence": (
        "lazyexp.rules.mistakes.Confidence",
        "misclassified, or with a largest softmax below threshold=0.9",
    ),
    "spaced": (
        "lazyexp.rules.mistakes.Spaced",
        "as confidence; the others are skipped for 1, 2, 4, ... epochs, at most max_interval=8",
    ),
    "random": (
        "lazyexp.rules.baselines.Random",
        "as many as lazy would select, at random; replay=RUN_FOLDER: as many as that run selected",
    ),
    "progressive": (
        "lazyexp.rules.progressive.Progressive",
        "target probability below threshold=0.3; all in the last revision_epochs=1 (arXiv 2505.22342)",
    ),
    "smrd": ("lazyexp.rules.progressive.MatchedDropout", "as many as progressive, at random (arXiv 2505.22342)"),
    "srd": ("lazyexp.rules.progressive.ScalarDropout", "a random share decay=0.99^epoch (arXiv 2505.22342)"),
    "top_loss": ("lazyexp.rules.ordered_sgd.TopLoss", "the q largest losses of a batch (arXiv 1907.04371)"),
    "selective_backprop": (
        "lazyexp.rules.selective_backprop.SelectiveBackprop",
        "with probability CDF(loss)^beta=3 (arXiv 1910.00762)",
    ),
    "composer_selective_backprop": (
        "lazyexp.rules.selective_backprop.ComposerSelectiveBackprop",
        "a share keep=0.5 of a batch, large losses more likely (Composer)",
    ),
    "infobatch": (
        "lazyexp.rules.infobatch.InfoBatch",
        "a share 1-ratio=0.5 of those below the mean loss, reweighted, and all others (arXiv 2303.04947)",
    ),
    "kakurenbo": (
        "lazyexp.rules.kakurenbo.Kakurenbo",
        "all but confident ones among the fraction=0.3 of lowest losses (arXiv 2310.10102)",
    ),
    "early_stopping": (
        "lazyexp.rules.early_stopping.EarlyStopping",
        "all but those whose loss has stopped changing, threshold=0.001 (arXiv 2502.07547)",
    ),
    "evolved_sampling": (
        "lazyexp.rules.evolved_sampling.EvolvedSampling",
        "a share keep=0.25 of a batch, odds by losses and their changes (arXiv 2509.23461)",
    ),
    "order_dp": (
        "lazyexp.rules.order_dp.OrderDP",
        "the top=0.85 with the largest losses of a random subset=0.75 (arXiv 2606.08574)",
    ),
    "seta": (
        "lazyexp.rules.seta.SeTa",
        "a window=0.9 of groups=5 of losses, from easy to hard, of a random share (arXiv 2503.13385)",
    ),
    "bls": (
        "lazyexp.rules.batch_loss_score.BatchLossScore",
        "as infobatch or seta, by averages of batch losses, alpha=0.9 (arXiv 2604.04681)",
    ),
    "repb": (
        "lazyexp.rules.repb.RePB",
        "all but a share ratio=0.5 of those below their batch's mean loss, reweighted (ICLR 2026)",
    ),
    "rho_loss": (
        "lazyexp.rules.rho_loss.RhoLoss",
        "the keep=0.1 of a batch with the largest loss minus irreducible loss (arXiv 2206.07137)",
    ),
}
RULES = Registry({name: path for name, (path, _) in _RULES.items()})
RULE_SUMMARIES = {
    **{name: summary for name, (_, summary) in _RULES.items()},
    "fast_lazy": "preset: spaced with packing; fastest setting known to us near backprop's accuracy on EMNIST",
}

OPTIMIZERS = Registry({"sgd": "torch.optim.SGD", "adam": "torch.optim.Adam", "adamw": "torch.optim.AdamW"})


@dataclass(frozen=True)
class Dataset:
    """A data set: the defaults of a run on it, and its loader.

    `size`: training samples of the whole set, None if it is not known before loading.

    The defaults are our choice; the paper does not state them. The epochs of digits, MNIST and Fashion-MNIST were
    chosen by validation at learning rate 0.01 (docs/results/defaults.md); the others are set by analogy. The loader
    is called with the settings that it has parameters for, and with `options`.
    """

    epochs: int
    eval_every: int
    targets: tuple[float, ...]
    target: str = "lazyexp.data.torchvision_sets.load_torchvision"
    options: dict[str, Any] = field(default_factory=dict)
    size: int | None = None

    def __post_init__(self) -> None:
        if "official" in self.options:
            object.__setattr__(self, "size", self.options["official"][0])

    def targets_of(self, train_size: int | None) -> list[float]:
        """The default targets for so many of the training samples.

        The odds of an error grow as the power 0.45 of the factor by which the set is smaller: our choice, by which
        small subsets of MNIST and EMNIST reach at least two of three targets (docs/options.md).
        """
        if train_size is None or self.size is None or train_size >= self.size:
            return list(self.targets)
        factor = (self.size / train_size) ** 0.45
        scaled = [target / (target + factor * (1 - target)) for target in self.targets]
        return sorted({round(target, 2 if target < 0.98 else 3) for target in scaled})

    def eval_every_of(self, train_size: int | None) -> int:
        """The default number of samples between evaluations: at least one evaluation per epoch."""
        return self.eval_every if train_size is None else min(self.eval_every, train_size)


def _torchvision(kind: str, classes: int, official: tuple[int, int], split: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "classes": classes, "official": official, "split": split}


DATASETS = {
    "digits": Dataset(20, 2000, (0.90, 0.95), "lazyexp.data.local.load_digits", size=1437),
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
# Defaults for custom data.
CUSTOM_DATASET = Dataset(10, 10000, (0.90, 0.95, 0.99))

# The choices of `<group>.name`, by group.
NAMES = {"model": MODELS, "dataset": DATASETS, "optimizer": OPTIMIZERS, "rule": RULES}
