"""The table of a search, and which of its trials no other trial beats."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lazyexp.errors import UserError
from lazyexp.report import BASELINE

COLUMNS = ["trial", "state", "status", "val_accuracy", "train_seconds", "samples_seen", "backward_samples"]
COLUMNS += ["selects_all", "rule", "seed", "run_id", "overrides"]
# By how much the validation accuracy of a borrowed trial may be below the best one of its search.
SLACK = (0.0, 0.001, 0.003)
TOLERANCE = 1e-9  # 0.98 - 0.001 is not 0.979 in binary


def complete(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that ended without diverging."""
    return trials[(trials["state"] == "complete") & (trials["status"] != "diverged")]


def degenerate(trials: pd.DataFrame) -> pd.Series:
    """For each trial, whether it selected all samples although its rule is not backprop."""
    return (trials["rule"] != BASELINE) & (trials["selects_all"].astype(str) == "True")


def front(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that no other one beats in both accuracy and seconds, fastest first."""
    done = complete(trials).sort_values(["train_seconds", "val_accuracy"], ascending=[True, False])
    former_best = done["val_accuracy"].cummax().shift(fill_value=-1.0)
    return done[done["val_accuracy"] > former_best]


def fastest(trials: pd.DataFrame, line: float) -> pd.Series | None:
    """The fastest trial whose validation accuracy reaches the line, None if none does."""
    reached = front(trials)
    reached = reached[reached["val_accuracy"] >= line - TOLERANCE]
    return reached.iloc[0] if len(reached) else None


def choose(trials: pd.DataFrame, slack: Sequence[float]) -> pd.DataFrame:
    """For each slack (in accuracy) the fastest trial that is at most so far below the best one; each trial once."""
    best = complete(trials)["val_accuracy"].max()
    chosen = [row for below in slack if (row := fastest(trials, best - below)) is not None]
    return pd.DataFrame(chosen, columns=trials.columns).drop_duplicates("trial")


def read_trials(folder: Path) -> pd.DataFrame:
    """The trials of a search. Raises UserError if trials.csv is missing or of something else."""
    try:
        trials = pd.read_csv(folder / "trials.csv")
        missing = [name for name in COLUMNS if name not in trials]
        if missing:
            raise ValueError(f"no column {missing[0]}: not written by this version of lazyexp-tune")
        for name in ("val_accuracy", "train_seconds", "seed"):
            trials[name] = pd.to_numeric(trials[name])
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: has no readable trials.csv ({reason})") from None
    return trials


def split_overrides(text: object, where: str) -> list[str]:
    """The overrides of a row of trials.csv, which are quoted as for a shell. Raises UserError."""
    try:
        return shlex.split(str(text))
    except ValueError as error:
        raise UserError(f"{where}: overrides in trials.csv cannot be read ({error})") from None
