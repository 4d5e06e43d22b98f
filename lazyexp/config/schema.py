"""The settings of a run: every key with its default, meaning and bounds.

`validation.py` checks combinations, `run_id.py` names a run. Nothing here imports torch, so `lazyexp --help` and
shell completion stay fast.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any

from lazyexp.config.fields import Freezable, setting
from lazyexp.config.registry import DATASETS, MODELS, OPTIMIZERS
from lazyexp.config.streams import MemoryConfig, StreamConfig

# Sizes that are stored in 32 bits.
SIZE: dict[str, Any] = {"at_least": 0, "at_most": 2**30, "wanted": "from 0 (off) to 2^30"}


@dataclass
class DatasetConfig(Freezable):
    """The keys `dataset.*`."""

    name: str = setting("digits", "data set; `folder` reads files at dataset.path", choices=(*DATASETS,))
    _target_: str | None = setting(None, "import path of a custom data set; see docs/custom.md")
    options: dict[str, Any] = setting({}, "arguments of a custom data set or of `folder`: dataset.options.NAME=VALUE")
    path: str | None = setting(
        None,
        "for `folder`: IDX files, .npz, .npy, train/<class>/*.png and test/<class>/*.png, or tables (.csv, .parquet)",
    )
    mirror: str | None = setting(None, "download address (also file://) tried before the official ones")
    train_size: int | None = setting(None, "train on a class-balanced subset of this size", at_least=1)
    subset: str | None = setting(
        None,
        "train on the samples that a finished run selected: path of its learned.npz (wildcards: mean of several), "
        "`matched` (the lazy run with the same settings) or `random` (as many, at random)",
    )
    subset_score: str = setting(
        "learned",
        "score of dataset.subset; the highest are kept",
        choices={
            "learned": "how often a sample was selected",
            "forgetting": "forgetting events",
            "el2n": "error norm at the end",
        },
    )
    subset_size: int | None = setting(
        None, "size of dataset.subset; null: samples selected at least once", at_least=1
    )
    subset_choice: str = setting(
        "top",
        "samples of dataset.subset by their scores",
        choices={"top": "the highest", "ccs": "stratified, as many of each of 50 intervals (arXiv 2210.15809)"},
    )
    subset_cutoff: float = setting(
        0.0, "ccs: share of the samples, highest scores first, that is dropped before", at_least=0, below=1
    )
    val_size: int = setting(0, "training samples held out for val_accuracy", at_least=0)
    test_size: int | None = setting(None, "test on a class-balanced subset of this size", at_least=1)
    label_noise: float = setting(
        0.0, "share of training labels that are replaced by wrong ones", at_least=0, at_most=1
    )
    imbalance: float = setting(
        1.0, "size of the last class relative to the first; exponential in between", above=0, at_most=1
    )
    components: int | None = setting(
        None,
        "train on so many principal components of the inputs (mlp); the saved network takes inputs; energy counts "
        "the weights of the components",
        at_least=1,
    )
    scale: str = setting(
        "standard",
        "scaling of inputs",
        choices={
            "standard": "zero mean, unit variance",
            "channel": "the same for every channel by itself",
            "unit": "0 to 1",
        },
    )
    blur: float = setting(0.0, "standard deviation in pixels of a Gaussian blur of all images; 0: off", at_least=0)
    augment: Any = setting(
        [],
        "random changes of training images, a list",
        choices={
            "shift": "translation by up to max_shift pixels",
            "crop": "window of the image's size in the padded image",
            "flip": "mirrored left to right, or not",
            "cutout": "a square of zeros",
        },
    )
    max_shift: int = setting(2, "largest translation in pixels, for augment=shift", at_least=1)
    padding: int = setting(4, "pixels added on every side, for augment=crop", at_least=1)
    padding_mode: str = setting(
        "zeros", "pixels of the padding, for augment=crop", choices={"zeros": "", "reflect": "mirror of the image"}
    )
    cutout_size: int = setting(16, "side of the square in pixels, for augment=cutout", at_least=1)


@dataclass
class ModelConfig(Freezable):
    """The keys `model.*`."""

    name: str = setting("mlp", "network", choices=(*MODELS,))
    _target_: str | None = setting(None, "import path of a custom network, called with shape=, classes= and options")
    options: dict[str, Any] = setting(
        {}, "arguments of a custom network or of `torchvision`: model.options.NAME=VALUE"
    )
    arch: str | None = setting(None, "for `torchvision`: name of the network, such as resnet18")
    features: str | None = setting(
        None,
        "train the network on the features of a frozen one, all its layers but the last: folder of a finished run or "
        "file of torchvision's weights",
    )
    width: int = setting(1000, "hidden units per layer; cnn, resnet: channels of the first stage", at_least=1)
    depth: int = setting(1, "hidden layers, 0: one linear layer; cnn: stages; resnet: layers, 6n + 2", at_least=0)
    norm: str = setting(
        "batch",
        "normalisation (resnet)",
        choices={"batch": "of each channel over the batch", "group": "of each sample"},
    )
    activation: str = setting("relu", "activation function", choices=("relu", "leaky_relu", "gelu", "tanh"))
    init: str = setting(
        "uniform",
        "initial weights",
        choices={"uniform": "PyTorch's default", "lecun_normal": "zero biases", "kaiming": "zero biases"},
    )


@dataclass
class OptimizerConfig(Freezable):
    """The keys `optimizer.*`."""

    name: str = setting("sgd", "optimizer", choices=(*OPTIMIZERS,))
    _target_: str | None = setting(None, "import path of a custom optimizer, such as torch.optim.RMSprop")
    options: dict[str, Any] = setting({}, "arguments of a custom optimizer: optimizer.options.NAME=VALUE")
    lr: float = setting(0.01, "learning rate (every optimizer)", above=0)
    momentum: float = setting(0.0, "momentum (sgd)", at_least=0, below=1)
    nesterov: bool = setting(False, "Nesterov momentum (sgd)")
    weight_decay: float = setting(
        0.0, "weight decay (sgd, adam: added to the gradient; adamw: decoupled)", at_least=0
    )
    schedule: str = setting(
        "linear",
        "learning-rate schedule",
        choices={
            "constant": "",
            "linear": "to zero",
            "cosine": "to zero",
            "onecycle": "up, then down",
            "multistep": "times gamma at each milestone",
            "exponential": "times gamma after each epoch",
        },
    )
    milestones: list[int] | None = setting(
        None, "multistep: epochs after which the learning rate falls; null: 1/2 and 3/4 of all", at_least=1
    )
    gamma: float | None = setting(
        None, "multistep, exponential: factor on the learning rate; null: 0.1 and 0.96", above=0, at_most=1
    )
    warmup: float = setting(0.0, "share of the run over which the learning rate rises from 0", at_least=0, below=1)
    reduction: str | None = setting(
        None,
        "divisor of a batch's gradient; null: the rule's own",
        choices={"batch": "the batch size", "selected": "the number of selected samples"},
    )


@dataclass
class LossConfig(Freezable):
    """The keys `loss.*`."""

    label_smoothing: float = setting(
        0.0, "share of the target's probability that is spread over all classes", at_least=0, below=1
    )


@dataclass
class PlasticityConfig(Freezable):
    """The keys `plasticity.*`."""

    name: str = setting(
        "all",
        "which synapses change (mlp with plain sgd)",
        choices={"all": "", "largest": "those with the largest updates", "cached": "through a transient store"},
    )
    share: float = setting(0.1, "largest: share of a layer's synapses that change", above=0, at_most=1)
    threshold: float | None = setting(
        None, "cached: stored change at which a synapse is made persistent; null: at the end", above=0
    )
    decay: float = setting(0.0, "cached: share of the store lost per sample", at_least=0, below=1)
    cost: float = setting(1e-5, "cached: energy of storing one unit of change for one sample", at_least=0)


@dataclass
class PackingConfig(Freezable):
    """The keys `packing.*`."""

    block_size: int = setting(
        0, "score up to so many samples at once, train on full batches of the selected ones; 0: off", **SIZE
    )
    precision: str = setting(
        "float32",
        "precision in which packing scores a block",
        choices={
            "float32": "that of the model",
            "bfloat16": "mlp",
            "int8": "mlp on a CPU",
            "auto": "the fastest of this machine",
        },
    )
    components: int | None = setting(
        None,
        "score on so many principal components of the inputs, for an mlp on a CPU; null and elsewhere: all inputs",
        at_least=1,
    )


@dataclass
class Config(Freezable):
    """The settings as given by a user; `validation.check` turns them into `Settings`."""

    seed: int = setting(
        0,
        "seed of initial weights, order of samples and everything else that is random",
        at_least=0,
        below=2**63,
        wanted="a whole number from 0 to 2^63 - 1",
    )
    device: str = setting("auto", "device: auto, cpu, cuda, cuda:N")
    epochs: int | None = setting(None, "passes over the training set; null: the data set's default", at_least=1)
    batch_size: int = setting(1, "samples per presented batch; 1 is online learning", at_least=1)
    eval_every: int | None = setting(
        None, "samples between two evaluations; null: the data set's default", at_least=1
    )
    targets: list[float] | None = setting(
        None,
        "test accuracies whose first crossing is timed; null: the data set's default",
        above=0,
        at_most=1,
        wanted="accuracies greater than 0, at most 1",
    )
    stop_at: float | None = setting(
        None,
        "end the run once this test accuracy is reached",
        above=0,
        at_most=1,
        wanted="an accuracy greater than 0, at most 1",
    )
    max_seconds: float | None = setting(
        None, "end the run, and its learning-rate schedule, after so many seconds of training", above=0
    )
    data_dir: str = setting("data", "folder of data sets in torchvision's layout; default $LAZYEXP_DATA, else data")
    runs_dir: str = setting("runs", "folder of results")
    overwrite: bool = setting(False, "repeat a finished run")
    energy: bool = setting(True, "measure energy")
    engine: str = setting(
        "auto",
        "implementation of training",
        choices={"auto": "the fastest that fits", "autograd": "any model", "fast": "hand-derived, mlp only"},
    )
    precision: str = setting(
        "float32",
        "precision of matrix products while training",
        choices={
            "float32": "",
            "tf32": "on a GPU",
            "bfloat16": "factors of large products; weights stay float32; autocast in the autograd engine",
        },
    )
    threads: int | None = setting(
        None,
        "threads of PyTorch on a CPU; null: as many as it takes by itself, 1 per worker of a sweep with joblib",
        at_least=1,
        at_most=1024,
    )
    checkpoint_every: float = setting(60.0, "seconds between checkpoints; 0: at every evaluation", at_least=0)
    tracker: str | None = setting(
        None, "also log metrics to this tracker", choices=("tensorboard", "mlflow", "wandb")
    )
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rule: dict[str, Any] = setting({"name": "lazy"}, "sample-selection rule, with its own options")
    rule_label: str | None = setting(None, "name of the rule in reports; null: rule.name")
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)


@dataclass
class Settings(Config):
    """Checked settings with every default filled in. Read-only."""

    epochs: int = 0
    eval_every: int = 0
    targets: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Freezable):
                part = copy(value)  # the caller may still change the original
                part.freeze()
                setattr(self, entry.name, part)
        self.freeze()
