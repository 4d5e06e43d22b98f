"""The table of a search: which trials no other trial beats, and which of them are chosen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lazyexp.errors import UserError

COLUMNS = ["trial", "state", "status", "val_accuracy", "train_seconds", "run_id", "overrides"]
# By how much the validation accuracy of a trial chosen for its speed may be below the best one.
SLACK = (0.0, 0.001, 0.003)


def front(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that no other one beats in both accuracy and seconds, fastest first."""
    done = trials[(trials["state"] == "complete") & (trials["status"] != "diverged")]
    done = done.sort_values(["train_seconds", "val_accuracy"], ascending=[True, False])
    former_best = done["val_accuracy"].cummax().shift(fill_value=-1.0)
    return done[done["val_accuracy"] > former_best]


def choose(trials: pd.DataFrame, slack: Sequence[float]) -> pd.DataFrame:
    """For each slack (in accuracy) the fastest trial that is at most so far below the best one; each trial once."""
    best = front(trials)
    if not len(best):
        return best
    lowest = [best["val_accuracy"].max() - below - 1e-12 for below in slack]
    chosen = [best[best["val_accuracy"] >= bound].iloc[0] for bound in lowest]
    return pd.DataFrame(chosen).drop_duplicates("trial")


def read_trials(
    folder: Path, columns: Sequence[str] = ("state", "status", "val_accuracy", "train_seconds", "trial")
) -> pd.DataFrame:
    """The trials of a search. Raises UserError if trials.csv is missing or of something else."""
    try:
        trials = pd.read_csv(folder / "trials.csv")
        missing = [name for name in columns if name not in trials]
        if missing:
            raise ValueError(f"no column {missing[0]}: not written by lazyexp-tune")
        for name in ("val_accuracy", "train_seconds"):
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
