"""The columns of metrics.csv about phases and stored samples."""

from __future__ import annotations

from lazyexp.runs.column import Column

STREAM = (
    Column(
        "phase",
        int,
        "phase",
        "number of the phase of the stream, from 1; a run without phases is one phase",
        lambda m: m.phases.phase,
        later=True,
    ),
    Column(
        "memory_samples",
        int,
        "samples stored",
        "samples in the memory; empty without a memory",
        lambda m: m.memory_samples,
        later=True,
    ),
    Column(
        "old_class_accuracy",
        float,
        "accuracy on old classes",
        "on the test samples of the classes of earlier phases; empty in the first phase",
        lambda m: m.phases.old,
        later=True,
    ),
    Column(
        "new_class_accuracy",
        float,
        "accuracy on new classes",
        "on the test samples of the classes of this phase; empty in the phase of `memory.restart_epochs`",
        lambda m: m.phases.new,
        later=True,
    ),
    Column(
        "backward_transfer",
        float,
        "backward transfer",
        "mean over the earlier phases: test accuracy on their classes now minus when they ended (Lopez-Paz & Ranzato "
        "2017); empty in the first phase",
        lambda m: m.phases.backward_transfer,
        later=True,
    ),
    Column(
        "average_accuracy",
        float,
        "average accuracy over phases",
        "mean over the phases so far of the test accuracy on their classes",
        lambda m: m.phases.average,
        later=True,
    ),
    Column(
        "phase_accuracies",
        str,
        "accuracies of the phases",
        "test accuracy on the classes of each phase so far, separated by spaces; `-` without test samples",
        lambda m: " ".join("-" if value is None else f"{value:.6g}" for value in m.phases.by_phase),
        later=True,
    ),
)
