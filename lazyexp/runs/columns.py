"""The columns of metrics.csv: name, type, unit, meaning, and how each is measured.

metrics.csv, summary.csv, their documentation and the report's axis labels follow this table; a new column is one
entry of MEASURED. Does not import torch.
"""

from __future__ import annotations

from typing import Any

from lazyexp.runs.column import Column
from lazyexp.runs.stream_columns import STREAM

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
        ("device", str, "cpu or cuda:N"),
    )
)

MEASURED = (
    Column(
        "epoch",
        float,
        "epochs",
        "passes over the training set so far, with fraction; in a phase: over the samples that it presents",
        lambda m: m.epoch,
    ),
    Column(
        "samples_seen",
        int,
        "samples presented",
        "training samples presented by the schedule, replayed ones included",
        lambda m: m.tally.samples_seen,
    ),
    Column(
        "forward_samples",
        int,
        "samples forwarded",
        "samples forwarded while training, including repeated and discarded forward passes (discarded because an "
        "earlier mistake changed the weights)",
        lambda m: m.tally.forward_samples,
    ),
    Column(
        "backward_samples",
        int,
        "samples backpropagated",
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
        "shuffling, gathering, augmenting, scoring, updating, host-device synchronisation; not loading, evaluating, "
        "checkpointing, logging, energy bookkeeping, warm-up. On a GPU the clock is read after a synchronise, and "
        "energy bookkeeping is included",
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
        "over the samples presented since the last row, as scored before the update",
        lambda m: m.train_loss,
    ),
    Column("train_accuracy", float, "training accuracy", "over the same samples", lambda m: m.train_accuracy),
    Column(
        "val_accuracy",
        float,
        "validation accuracy",
        "on the validation samples, with the current weights",
        lambda m: m.val_accuracy,
    ),
    Column(
        "test_accuracy",
        float,
        "test accuracy",
        "on the test samples, with the current weights",
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
        "M1, the sum of \\|dw\\| over the same updates and parameters",
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
        "distinct samples selected",
        "training samples that were selected at least once",
        lambda m: int(m.counters.learned.count_nonzero()),
    ),
    Column("learning_rate", float, "learning rate", "of the last batch presented", lambda m: m.learning_rate),
    Column(
        "worst_class_accuracy",
        float,
        "accuracy of the worst class",
        "lowest test accuracy of a class",
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
        "with `plasticity=cached`: `plasticity.cost` times the sum of \\|store\\| over the samples presented; not "
        "part of M1",
        lambda m: m.energy and float(m.energy.maintenance),
        later=True,
    ),
    Column(
        "forgetting_events",
        int,
        "forgetting events",
        "misclassifications of training samples that were correct when last presented (Toneva et al. 2019)",
        lambda m: int(m.scores.forgotten.sum()),
        later=True,
    ),
    Column(
        "test_loss",
        float,
        "test loss",
        "mean cross-entropy on the test samples, with the current weights, without label smoothing",
        lambda m: m.test_loss,
        later=True,
    ),
    *STREAM,
)

COLUMNS = tuple(column.name for column in (*CONSTANT, *MEASURED))
# The columns that summary.csv has in every version.
REQUIRED = {"status", *(column.name for column in (*CONSTANT, *MEASURED) if not column.later)}
# Figures of the first row that reaches a target: name in summary.csv, column of metrics.csv.
CROSSING = {
    "seconds": "train_seconds",
    "samples": "samples_seen",
    "forward": "forward_samples",
    "backward": "backward_samples",
    "updates": "updates",
    "energy_l1": "energy_l1",
}
# Costs of the runs that chose a run's training samples; in summary.csv with the prefix `scoring_`.
SCORING = ("train_seconds", "forward_samples", "backward_samples")
# The statuses of a complete run.
COMPLETE = ("finished", "stopped", "diverged")

KINDS = {column.name: column.kind for column in (*CONSTANT, *MEASURED)}
LABELS = {column.name: column.label for column in (*CONSTANT, *MEASURED)}


def typed(name: str, text: str) -> Any:
    """Return the value of a cell of metrics.csv or summary.csv, None if it is empty.

    Raises:
        ValueError: The text is not of the column's type.
    """
    if text == "":
        return None
    kind = KINDS.get(name)
    figure, to, _ = name.partition("_to_")
    if to and figure in CROSSING:
        kind = KINDS[CROSSING[figure]]
    elif name.startswith("scoring_"):
        kind = KINDS.get(name.removeprefix("scoring_"))
    elif name == "best_test_accuracy":
        kind = float
    if kind is None:  # a setting or a checksum
        return text if name.endswith("sha256") else _plain(text)
    if kind is int and not text.lstrip("-").isdecimal():
        return float(text)  # written by other tools
    return kind(text)


def _plain(text: str) -> Any:
    """Return a setting as it was before it was written."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def markdown() -> str:
    """Return the documentation's table of columns."""
    constants = ", ".join(column.name for column in CONSTANT)
    lines = ["| column | meaning |", "|---|---|"]
    lines.append(f"| `{constants}` | constant in a run; `train_size` is the number of training samples in use |")
    return "\n".join([*lines, *(f"| `{column.name}` | {column.meaning} |" for column in MEASURED)])
