"""One rule's search: trials that are ordinary runs, a storage that survives a kill, tables of what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lazyexp.errors import UserError
from lazyexp.tune.space import Space, words
from lazyexp.utils.files import write_text

COLUMNS = ["trial", "state", "status", "val_accuracy", "train_seconds", "run_id", "overrides"]
# A trial is worth following if its validation accuracy is at most so far below the best one before it.
NEAR = 0.005


class Search:
    """The trials in `folder`: `fixed` overrides hold for all, `space` tells what is drawn.

    Two objectives: the last validation accuracy, to be large, and the seconds of training, to be small. Every trial
    of the storage counts but those that were cut off; these are run first when the search goes on, with their values.
    """

    def __init__(self, folder: Path, fixed: list[str], space: Space, seed: int) -> None:
        self.folder, self.fixed, self.space = folder, fixed, space
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
        self.study = optuna.create_study(
            study_name="search", storage=storage, directions=["maximize", "minimize"], load_if_exists=True
        )
        about = {"fixed": fixed, "space": space.entries, "start": space.start, "seed": seed}
        told = {**about, "sampler": "TPESampler", "optuna": optuna.__version__}
        former = self.study.user_attrs.get("about")
        if former is not None and former != json.loads(json.dumps(about)):
            raise UserError(f"{folder}: holds a search with other overrides, ranges or seed; set --folder")
        if former is None:
            self.study.set_user_attr("about", about)
            for point in space.points():
                self.study.enqueue_trial(point)
        write_text(folder / "about.json", json.dumps(told, indent=1) + "\n")
        self._again_what_was_cut_off()
        # Optuna does not store its sampler's state: a search that goes on draws from a seed of its own.
        # Without a constraint half of the trials would go to the fast end of the front, where nobody looks.
        self.study.sampler = optuna.samplers.TPESampler(seed=seed + len(self.counted()), n_startup_trials=8)

    def _again_what_was_cut_off(self) -> None:
        waiting = [trial.params for trial in self.study.get_trials(states=(TrialState.WAITING,))]
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
            if trial.params not in waiting:
                self.study.enqueue_trial(trial.params)

    def borrow(self, points: list[dict[str, Any]]) -> None:
        """Trials to begin with besides the space's own, as far as they are within its ranges; none of them twice."""
        asked = list(self.study.user_attrs.get("borrowed", []))
        for point in filter(self.space.holds, points):
            named = self.space.named(point)
            done = any(named.items() <= trial.params.items() for trial in self.counted())
            if named not in asked and not done:
                self.study.enqueue_trial(named)
                asked.append(named)
        self.study.set_user_attr("borrowed", asked)

    def counted(self) -> list[FrozenTrial]:
        """The trials that ended, by themselves or in an error of their settings."""
        ended = self.study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))
        return [trial for trial in ended if trial.state == TrialState.COMPLETE or "error" in trial.user_attrs]

    def next_trial(self, run: Any) -> dict[str, Any]:
        """One more trial. `run` (overrides) -> (`experiment.Report` or None, error). Returns its row."""
        trial = self.study.ask()
        overrides = [*self.fixed, *words(self.space.suggest(trial))]
        trial.set_user_attr("overrides", overrides)
        report, error = run(overrides)
        if error:
            trial.set_constraint("lag", 1.0)
            trial.set_user_attr("error", error)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_user_attr("status", report.status)
            trial.set_user_attr("run_id", report.folder.name)
            values = objectives(report.summary)
            trial.set_constraint("lag", self._best() - values[0] - NEAR)
            self.study.tell(trial, values)
        self.write()
        return self.table().iloc[-1].to_dict()

    def _best(self) -> float:
        return max((trial.values[0] for trial in self.counted() if trial.state == TrialState.COMPLETE), default=0.0)

    def table(self) -> pd.DataFrame:
        """A row per counted trial: COLUMNS, then the values drawn."""
        rows = []
        for trial in self.counted():
            overrides = trial.user_attrs.get("overrides", [])
            accuracy, seconds = trial.values if trial.state == TrialState.COMPLETE else (None, None)
            row = {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "status": trial.user_attrs.get("status") or trial.user_attrs.get("error"),
                "val_accuracy": accuracy,
                "train_seconds": seconds,
                "run_id": trial.user_attrs.get("run_id"),
                "overrides": " ".join(overrides),
            }
            drawn = dict(word.split("=", 1) for word in overrides[len(self.fixed) :])
            rows.append({**row, **drawn})
        return pd.DataFrame(rows, columns=[*COLUMNS, *self.space.names()])

    def write(self) -> None:
        table = self.table()
        write_text(self.folder / "trials.csv", table.to_csv(index=False))
        write_text(self.folder / "front.csv", front(table).to_csv(index=False))


def objectives(summary: dict[str, Any]) -> tuple[float, float]:
    """(validation accuracy, seconds) at the end of a run; a diverged one has learned nothing."""
    seconds = float(summary["train_seconds"])
    if summary["status"] == "diverged":
        return 0.0, seconds
    return float(summary["val_accuracy"]), seconds


def front(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that no other one beats in accuracy and seconds at once, fastest first."""
    done = trials[(trials["state"] == "complete") & (trials["status"] != "diverged")]
    done = done.sort_values(["train_seconds", "val_accuracy"], ascending=[True, False])
    former_best = done["val_accuracy"].cummax().shift(fill_value=-1.0)
    return done[done["val_accuracy"] > former_best]


def choose(trials: pd.DataFrame, slack: tuple[float, ...]) -> pd.DataFrame:
    """For each slack (in accuracy) the fastest trial that is at most so far below the best one; each trial once."""
    best = front(trials)
    if not len(best):
        return best
    chosen = [best[best["val_accuracy"] >= best["val_accuracy"].max() - one - 1e-12].iloc[0] for one in slack]
    return pd.DataFrame(chosen).drop_duplicates("trial")
