"""The settings of a run: every key, its default, its meaning and its bounds; see checks.py and identity.py.

Nothing here imports torch, so `lazyexp --help` and shell completion stay fast.
"""

from __future__ import annotations

from copy import copy
from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import Any

from lazyexp.config.fields import setting
from lazyexp.config.registry import DATASETS, MODELS, OPTIMIZERS

# Sizes that are stored in 32 bits.
SIZE: dict[str, Any] = {"at_least": 0, "at_most": 2**30, "wanted": "from 0 (off) to 2^30"}


class Freezable:
    """Settings that cannot be assigned to any more once they are frozen; a `replace`d copy can."""

    def freeze(self) -> None:
        object.__setattr__(self, "_frozen", True)

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_frozen", False):
            raise FrozenInstanceError(f"cannot assign to {name}: these settings have been checked")
        object.__setattr__(self, name, value)


@dataclass
class DatasetConfig(Freezable):
    name: str = setting("digits", "the data set; `folder` and `own` are yours", choices=(*DATASETS,))
    _target_: str | None = setting(None, "for `own`: import path of what makes the data, see docs/own.md")
    options: dict[str, Any] = setting({}, "what it is called with, one by one: dataset.options.NAME=VALUE")
    path: str | None = setting(
        None, "for `folder`: IDX files, .npz, train/<class>/*.png and test/<class>/*.png, or tables (.csv, .parquet)"
    )
    mirror: str | None = setting(None, "address (also file://) tried before the official ones")
    train_size: int | None = setting(None, "train on a class-balanced subset of this size", at_least=1)
    subset: str | None = setting(
        None,
        "train on what a run learned from: its learned.npz (several with wildcards: in the mean), matched (rule=lazy "
        "here) or random (as many)",
    )
    subset_score: str = setting(
        "learned",
        "of the subset's samples, the highest",
        choices={"learned": "times learned from", "forgetting": "forgetting events", "el2n": "error norm at the end"},
    )
    subset_size: int | None = setting(None, "samples of the subset; null: as many as were learned from", at_least=1)
    val_size: int = setting(0, "training samples held out for val_accuracy", at_least=0)
    label_noise: float = setting(0.0, "share of training labels that are wrong, on purpose", at_least=0, at_most=1)
    imbalance: float = setting(
        1.0, "training samples of the last class per sample of the first one", above=0, at_most=1
    )
    scale: str = setting(
        "standard", "inputs", choices={"standard": "zero mean, unit variance", "unit": "from 0 to 1"}
    )
    augment: Any = setting(
        [], "random changes of training images, a list", choices={"shift": "translation by up to max_shift pixels"}
    )
    max_shift: int = setting(2, "largest shift in pixels, for augment=shift", at_least=1)


@dataclass
class ModelConfig(Freezable):
    name: str = setting("mlp", "the network", choices=(*MODELS,))
    _target_: str | None = setting(None, "for `own`: import path, called as target(shape=, classes=, **options)")
    options: dict[str, Any] = setting({}, "for `own` and `torchvision`, one by one: model.options.NAME=VALUE")
    arch: str | None = setting(None, "for `torchvision`: name of the network, such as resnet18")
    width: int = setting(1000, "hidden units per layer; cnn: channels of the first stage", at_least=1)
    depth: int = setting(1, "hidden layers; cnn: stages", at_least=1)
    activation: str = setting("relu", "between layers", choices=("relu", "leaky_relu", "gelu", "tanh"))
    init: str = setting(
        "uniform",
        "initial weights",
        choices={"uniform": "PyTorch's own", "lecun_normal": "zero biases", "kaiming": "zero biases"},
    )


@dataclass
class OptimizerConfig(Freezable):
    name: str = setting("sgd", "the optimizer", choices=(*OPTIMIZERS,))
    _target_: str | None = setting(None, "for `own`: import path, such as torch.optim.RMSprop")
    options: dict[str, Any] = setting({}, "for `own`, one by one: optimizer.options.NAME=VALUE")
    lr: float = setting(0.01, "learning rate", above=0)
    momentum: float = setting(0.0, "momentum (sgd)", at_least=0, below=1)
    weight_decay: float = setting(0.0, "weight decay", at_least=0)
    schedule: str = setting(
        "linear",
        "of the rate",
        choices={"constant": "", "linear": "to zero over the run", "cosine": "likewise", "onecycle": "up, then down"},
    )
    warmup: float = setting(0.0, "share of the run over which the rate rises from 0", at_least=0, below=1)
    reduction: str | None = setting(
        None,
        "divisor of the gradient; null: the rule's own",
        choices={"batch": "the batch size", "selected": "the number that learn"},
    )


@dataclass
class PlasticityConfig(Freezable):
    name: str = setting(
        "all",
        "which synapses change (mlp, plain sgd)",
        choices={"all": "", "largest": "largest updates only", "cached": "transient store"},
    )
    share: float = setting(0.1, "largest: share of a layer's synapses that change", above=0, at_most=1)
    threshold: float | None = setting(None, "cached: when a synapse is made persistent; null: at the end", above=0)
    decay: float = setting(0.0, "cached: share of the store lost per sample", at_least=0, below=1)
    cost: float = setting(1e-5, "cached: cost of the store per unit and sample", at_least=0)


@dataclass
class PackingConfig(Freezable):
    block_size: int = setting(
        0, "score up to so many samples at once, train on full batches of the selected ones; 0: off", **SIZE
    )
    precision: str = setting(
        "float32",
        "precision in which a block is scored",
        choices={
            "float32": "the model's own",
            "bfloat16": "mlp",
            "int8": "mlp on a CPU",
            "auto": "the fastest of this machine",
        },
    )


@dataclass
class Config(Freezable):
    """The settings as a user gives them; `check` makes `Settings` of them."""

    seed: int = setting(
        0,
        "initial weights, order of samples, everything random",
        at_least=0,
        below=2**63,
        wanted="a whole number from 0 to 2^63 - 1",
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:N")
    epochs: int | None = setting(None, "passes over the training set; null: the data set's default", at_least=1)
    batch_size: int = setting(1, "samples per presented batch; 1 is online learning", at_least=1)
    eval_every: int | None = setting(
        None, "samples between two evaluations; null: the data set's default", at_least=1
    )
    targets: list[float] | None = setting(
        None,
        "test accuracies whose first crossing is timed; null: the data set's",
        above=0,
        at_most=1,
        wanted="accuracies above 0 and at most 1",
    )
    stop_at: float | None = setting(
        None,
        "end the run once this test accuracy is reached",
        above=0,
        at_most=1,
        wanted="an accuracy above 0 and at most 1",
    )
    data_dir: str = setting("data", "where data sets are (torchvision's layout); default $LAZYEXP_DATA or data")
    runs_dir: str = setting("runs", "where results go")
    overwrite: bool = setting(False, "do a finished run again")
    energy: bool = setting(True, "measure energy")
    engine: str = setting(
        "auto",
        "how it is computed",
        choices={"auto": "the fastest that fits", "autograd": "PyTorch's autograd", "fast": "hand-derived, mlp only"},
    )
    precision: str = setting(
        "float32",
        "of matrix products while training",
        choices={"float32": "", "tf32": "on a GPU", "bfloat16": "where the processor multiplies it"},
    )
    checkpoint_every: float = setting(60.0, "seconds between checkpoints; 0: at every evaluation", at_least=0)
    tracker: str | None = setting(
        None, "is told the rows of metrics.csv, too", choices=("tensorboard", "mlflow", "wandb")
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rule: dict[str, Any] = setting({"name": "lazy"}, "who learns; the options are the rule's own")
    rule_label: str | None = setting(None, "what the report calls the rule; null: its name")
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)


@dataclass
class Settings(Config):
    """Settings that have been checked and have nothing left open. They do not change any more."""

    epochs: int = 0
    eval_every: int = 0
    targets: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Freezable):
                part = copy(value)  # whose it was may go on changing it
                part.freeze()
                setattr(self, entry.name, part)
        self.freeze()
