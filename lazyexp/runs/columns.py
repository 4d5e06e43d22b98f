"""The table of columns: what is measured, in which unit, under which name, and how it is taken from a trainer.

metrics.csv, summary.csv, docs/csv.md and the report's axes follow it; a new column is one entry of MEASURED.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyexp.training.context import EvalContext


@dataclass(frozen=True)
class Column:
    """`kind` is int, float or str; `label` names an axis, with its unit; `measure` takes the value of an evaluation.

    `later`: finished runs of an earlier version lack it.
    """

    name: str
    kind: type
    label: str
    meaning: str
    measure: Callable[[EvalContext], Any] = lambda context: None
    later: bool = False


CONSTANT = tuple(
    Column(name, kind, name.replace("_", " "), meaning)
    for name, kind, meaning in (
        ("run_id", str, "name of the run's folder"),
        ("dataset", str, "`dataset.name`"),
        ("train_size", int, "training samples in use"),
        ("rule", str, "`rule.name`"),
        ("width", int, "`model.width`"),
        ("depth", int, "`model.depth`"),
        ("batch_size", int, "samples per presented batch"),
        ("lr", float, "`optimizer.lr`"),
        ("seed", int, "the run's seed"),
        ("device", str, "what computed it: cpu or cuda:N"),
    )
)

MEASURED = (
    Column("epoch", float, "epochs", "passes over the training set so far, with fraction", lambda m: m.epoch),
    Column(
        "samples_seen",
        int,
        "samples presented",
        "training samples presented by the schedule",
        lambda m: m.tally.samples_seen,
    ),
    Column(
        "forward_samples",
        int,
        "samples forwarded",
        "samples forwarded while training, including re-forwards and judgements that were thrown away because a "
        "mistake before them changed the weights",
        lambda m: m.tally.forward_samples,
    ),
    Column(
        "backward_samples",
        int,
        "samples learned from",
        "samples whose gradient was computed",
        lambda m: m.tally.backward_samples,
    ),
    Column("updates", int, "updates", "optimizer steps that changed the weights", lambda m: m.tally.updates),
    Column(
        "updates_possible",
        int,
        "updates of backprop",
        "the steps a backprop run would have made by then",
        lambda m: m.updates_possible,
    ),
    Column(
        "train_seconds",
        float,
        "training time (s)",
        "what training costs: shuffling, gathering, augmenting, judging, learning, host-device synchronisation; not "
        "loading, evaluating, checkpointing, logging, energy bookkeeping, warm-up. On a GPU the clock is read after "
        "a synchronise, and energy bookkeeping is inside",
        lambda m: round(m.train_seconds, 6),
    ),
    Column(
        "eval_seconds",
        float,
        "evaluation time (s)",
        "evaluating, so far",
        lambda m: round(m.eval_seconds, 6),
    ),
    Column(
        "train_loss",
        float,
        "training loss",
        "over the samples presented since the last row, as they were judged, before learning",
        lambda m: m.train_loss,
    ),
    Column("train_accuracy", float, "training accuracy", "likewise", lambda m: m.train_accuracy),
    Column(
        "val_accuracy",
        float,
        "validation accuracy",
        "on the held-out samples, with the weights of this moment",
        lambda m: m.val_accuracy,
    ),
    Column(
        "test_accuracy",
        float,
        "test accuracy",
        "on the test samples, with the weights of this moment",
        lambda m: m.test_accuracy,
    ),
    Column(
        "energy_l0",
        int,
        "energy M0 (changes)",
        "M0, the number of dw != 0, over all updates and all parameters, biases included (Li & van Rossum 2020; "
        "van Rossum & Pache 2024)",
        lambda m: m.energy and int(m.energy.l0),
    ),
    Column(
        "energy_l1",
        float,
        "energy M1 (sum of |Δw|)",
        "M1, the sum of \\|dw\\|, likewise",
        lambda m: m.energy and float(m.energy.l1),
    ),
    Column(
        "energy_l0_min",
        int,
        "least M0",
        "the direct path: the count of w != w_init",
        lambda m: m.minimum and m.minimum[0],
    ),
    Column(
        "energy_l1_min",
        float,
        "least M1",
        "the direct path: \\|w - w_init\\| summed",
        lambda m: m.minimum and m.minimum[1],
    ),
    Column(
        "distinct_learned",
        int,
        "different samples learned from",
        "training samples that were learned from at least once",
        lambda m: int(m.counters.learned.count_nonzero()),
    ),
    Column("learning_rate", float, "learning rate", "of the last batch presented", lambda m: m.learning_rate),
    Column(
        "worst_class_accuracy",
        float,
        "accuracy of the worst class",
        "test accuracy of the class that has the lowest one",
        lambda m: m.worst_class_accuracy,
        later=True,
    ),
    Column(
        "calibration_error",
        float,
        "expected calibration error",
        "on the test samples: distance between accuracy and mean largest softmax, in 15 bins of equal width of the "
        "latter, averaged over samples (Guo et al. 2017)",
        lambda m: m.calibration_error,
        later=True,
    ),
    Column(
        "energy_maintenance",
        float,
        "energy of the transient store",
        "with `plasticity=cached`: `plasticity.cost` times the sum over samples presented of \\|store\\|; not in M1",
        lambda m: m.energy and float(m.energy.maintenance),
        later=True,
    ),
    Column(
        "forgetting_events",
        int,
        "forgetting events",
        "how often a training sample was misclassified that had been right when it was presented before "
        "(Toneva et al. 2019)",
        lambda m: int(m.scores.forgotten.sum()),
        later=True,
    ),
)

# What is noted of the first row that reaches a target, and under which name.
CROSSING = {
    "seconds": "train_seconds",
    "samples": "samples_seen",
    "forward": "forward_samples",
    "backward": "backward_samples",
    "updates": "updates",
    "energy_l1": "energy_l1",
}
# What is noted, with `scoring_` before it, of the runs that chose a run's training samples.
SCORING = ("train_seconds", "forward_samples", "backward_samples")
# The statuses of a run that is done.
COMPLETE = ("finished", "stopped", "diverged")

KINDS = {column.name: column.kind for column in (*CONSTANT, *MEASURED)}
LABELS = {column.name: column.label for column in (*CONSTANT, *MEASURED)}


def typed(name: str, text: str) -> Any:
    """The value of a cell of metrics.csv or summary.csv: None if it is empty. Raises ValueError."""
    if text == "":
        return None
    kind = KINDS.get(name)
    noted, to, _ = name.partition("_to_")
    if to and noted in CROSSING:
        kind = KINDS[CROSSING[noted]]
    elif name.startswith("scoring_"):
        kind = KINDS.get(name.removeprefix("scoring_"))
    elif name == "best_test_accuracy":
        kind = float
    if kind is None:  # a setting or a checksum
        return text if name.endswith("sha256") else _plain(text)
    if kind is int and not text.lstrip("-").isdecimal():
        return float(text)  # figures that were written by other tools
    return kind(text)


def _plain(text: str) -> Any:
    """A setting as it was before it was written."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def markdown() -> str:
    """The table of docs/csv.md."""
    constants = ", ".join(column.name for column in CONSTANT)
    lines = ["| column | meaning |", "|---|---|"]
    lines.append(f"| `{constants}` | the same in every row; `train_size` is the number of training samples in use |")
    return "\n".join([*lines, *(f"| `{column.name}` | {column.meaning} |" for column in MEASURED)])
