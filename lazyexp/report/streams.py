"""Runs in phases and with a store: a row per run and phase, and the tables of the page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.report.blocks import Block, Table, Text
from lazyexp.report.formatting import DASH, with_interval
from lazyexp.report.groups import Group
from lazyexp.report.intervals import interval
from lazyexp.report.read import Run

COUNTED = (
    "samples_seen",
    "forward_samples",
    "backward_samples",
    "updates",
    "energy_l0",
    "energy_l1",
    "train_seconds",
)
MEASURED = (
    "memory_samples",
    "old_class_accuracy",
    "new_class_accuracy",
    "average_accuracy",
    "backward_transfer",
    "test_accuracy",
)
ABOUT = (
    "Old and new classes: test accuracy at the end of the last phase of classes, on the classes of the earlier "
    "phases and of this one. Average: mean over phases of the accuracy on their classes. Backward transfer: mean "
    "over the earlier phases of their accuracy at the end minus that when they ended (Lopez-Paz & Ranzato 2017). "
    "Stored: samples in the memory, its maximum. Store alone: test accuracy of a new network that was trained on "
    "the stored samples alone (memory.restart_epochs, GDumb). Samples, updates and M1: from the second phase on, "
    "where there are several. Medians over seeds, in brackets 95 % bootstrap intervals. phases.csv has a row per "
    "run and phase."
)


def in_phases(run: Run) -> bool:
    """Whether a run has several phases."""
    return bool((run.rows["phase"] > 1).any())


def stores(run: Run) -> bool:
    """Whether a run has a memory."""
    return bool(run.rows["memory_samples"].notna().any())


def phase_rows(run: Run) -> list[dict[str, Any]]:
    """What every phase of a run took, and its accuracies at its end."""
    found = []
    before = dict.fromkeys(COUNTED, 0.0)
    for phase, part in run.rows[run.rows["phase"].notna()].groupby("phase"):
        last = part.iloc[-1]
        restart = bool(np.isnan(last["new_class_accuracy"])) and phase > 1 and bool(restart_epochs(run))
        row: dict[str, Any] = {"phase": int(float(str(phase))), "store_alone": restart}
        row |= {name: float(last[name]) - before[name] for name in COUNTED}
        row |= {name: float(last[name]) for name in MEASURED}
        before = {name: float(last[name]) for name in COUNTED}
        found.append(row)
    return found


def restart_epochs(run: Run) -> int:
    """The setting `memory.restart_epochs`."""
    return int(run.settings.get("memory.restart_epochs") or 0)


def phase_table(groups: list[Group]) -> pd.DataFrame:
    """phases.csv: a row per run and phase; empty without phases and stores."""
    rows = [
        {"group": group.label, "rule": rule, "seed": run.seed, "run_id": run.run_id, **row}
        for group in groups
        for rule, runs in group.rules.items()
        for run in runs
        if in_phases(run) or stores(run)
        for row in phase_rows(run)
    ]
    return pd.DataFrame(rows)


def ends(run: Run) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The last phase of classes of a run, with its costs after the first phase; and the restart, if there was one."""
    rows = phase_rows(run)
    phases = [row for row in rows if not row["store_alone"]]
    later = phases[1:] or phases
    costs = {name: sum(row[name] for row in later) for name in COUNTED}
    return {**phases[-1], **costs}, next((row for row in rows if row["store_alone"]), None)


def stream_blocks(groups: list[Group]) -> list[Block]:
    """The section of the page, empty without phases and stores."""
    columns = ["group", "rule", "runs", "old classes (%)", "new classes (%)", "average (%)", "backward transfer (%)"]
    columns += ["test accuracy (%)", "stored", "store alone (%)", "samples", "updates", "energy M1"]
    rows = []
    for group in groups:
        for rule, runs in group.rules.items():
            some = [run for run in runs if run.complete and (in_phases(run) or stores(run))]
            if not some:
                continue
            found = [ends(run) for run in some]

            def shown(name: str, factor: float = 1.0, digits: int = 3, found: Any = found) -> str:
                values = [end[name] for end, _ in found if not math.isnan(end[name])]
                return (with_interval(interval(values), factor, digits) or DASH) if values else ""

            alone = [100 * restart["test_accuracy"] for _, restart in found if restart]
            stored = [float(run.rows["memory_samples"].max()) for run in some if stores(run)]
            cells = [group.label, rule, str(len(some))]
            cells += [shown(name, 100, 3) for name in ("old_class_accuracy", "new_class_accuracy")]
            cells += [shown("average_accuracy", 100, 3), shown("backward_transfer", 100, 3)]
            cells += [shown("test_accuracy", 100, 4), with_interval(interval(stored)) if stored else ""]
            cells += [with_interval(interval(alone), 1, 4) if alone else ""]
            rows.append([*cells, shown("samples_seen"), shown("updates"), shown("energy_l1")])
    return [Text(ABOUT), Table(columns, rows)] if rows else []
