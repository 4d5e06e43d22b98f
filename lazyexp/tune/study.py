"""One rule's search: trials that are ordinary runs, and a storage that survives a kill."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lazyexp.errors import UserError
from lazyexp.report import BASELINE
from lazyexp.settings import settings_of
from lazyexp.tune.degenerate import TESTS, is_backprop, selects_all
from lazyexp.tune.fronts import COLUMNS, degenerate, front
from lazyexp.tune.seeds import relative
from lazyexp.tune.space import Space, words
from lazyexp.tune.trial import Outcome
from lazyexp.utils.files import write_text

# A trial is worth following if its validation accuracy is at most so far below the best one before it.
NEAR = 0.005
# Draws of one trial until a rule is not backprop by construction.
MOST_DRAWS = 50
DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]


class Search:
    """The trials in `folder`, which must be locked: overrides `fixed` hold for all, `space` says what is sampled.

    Two objectives: the last validation accuracy, to be maximized, and the seconds of training, to be minimized.
    Trials that were killed are repeated first when the search continues, with their values. Failed ones do not count.
    """

    def __init__(self, folder: Path, fixed: Sequence[str], space: Space, seed: int) -> None:
        self.folder, self.fixed, self.space = folder, list(fixed), space
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = _open(folder)
        ranges = [vars(entry) for entry in space.ranges]
        about = json.loads(json.dumps({"fixed": self.fixed, "space": ranges, "start": space.points(), "seed": seed}))
        former = self.study.user_attrs.get("about")
        if former not in (None, about) or (former is None and self.study.get_trials(deepcopy=False)):
            raise UserError(f"{folder}: holds a search with other overrides, ranges or seed; set --folder")
        if former is None:
            self.study.set_user_attr("about", about)
            for point in space.points():
                self.study.enqueue_trial(point)
        self._about = {**about, "sampler": "TPESampler", "optuna": optuna.__version__}
        self._write_about()
        self._repeat_killed()
        # Optuna does not store its sampler's state: a search that continues samples from another seed.
        # Without the constraint in `next_trial` half of the trials would go to the fast, inaccurate end of the front.
        seed = (seed + len(self.counted())) % 2**32
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)

    def _repeat_killed(self) -> None:
        waiting = [trial.params for trial in self._waiting()]
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)
            if trial.params not in waiting:
                self.study.enqueue_trial(trial.params)

    def repeat_failed(self) -> None:
        """Queue the values of failed trials again, once for each failure: the reason may be gone."""
        repeated = list(self.study.user_attrs.get("repeated", []))
        for trial in self.failed():
            if trial.number not in repeated:
                self.study.enqueue_trial(trial.params)
                repeated.append(trial.number)
        self.study.set_user_attr("repeated", repeated)

    def borrow(self, points: Sequence[dict[str, Any]], sources: Sequence[Path]) -> None:
        """Queue points of the searches `sources` that are within this one's ranges and were not tried or queued yet.

        Values are compared as they were trained with, which for a float differs from Optuna's.
        """
        tried = [self.space.named(trial.user_attrs["drawn"]) for trial in self.counted()]
        tried += [trial.system_attrs.get("fixed_params", {}) for trial in self._waiting()]
        for point in filter(self.space.holds, points):
            named = self.space.named(point)
            if not any(named.items() <= other.items() for other in tried):
                self.study.enqueue_trial(named)
                tried.append(named)
        former = self.study.user_attrs.get("borrowed_from", [])
        self.study.set_user_attr("borrowed_from", sorted({*former, *(relative(one, self.folder) for one in sources)}))
        self._write_about()

    def _waiting(self) -> list[FrozenTrial]:
        return self.study.get_trials(states=(TrialState.WAITING,))

    def _write_about(self) -> None:
        about = {**self._about, "borrowed_from": self.study.user_attrs.get("borrowed_from", [])}
        write_text(self.folder / "about.json", json.dumps(about, indent=1) + "\n")

    def counted(self) -> list[FrozenTrial]:
        """The completed trials."""
        return self.study.get_trials(states=(TrialState.COMPLETE,))

    def failed(self) -> list[FrozenTrial]:
        """The trials that ended in an error."""
        return [trial for trial in self.study.get_trials(states=(TrialState.FAIL,)) if "error" in trial.user_attrs]

    def next_trial(self, run: Callable[[list[str]], Outcome]) -> dict[str, Any]:
        """One more trial: `run` is called with its overrides. Returns its row of the table."""
        trial, overrides = self._ask()
        outcome = run(overrides)
        if outcome.result is None:
            trial.set_constraint("lag", 1.0)
            trial.set_user_attr("error", outcome.error)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            summary = outcome.result.summary
            trial.set_user_attr("status", outcome.result.status)
            trial.set_user_attr("run_id", outcome.result.folder.name)
            trial.set_user_attr("facts", facts(summary))
            values = objectives(summary)
            # A trial that counts as backprop's does not guide the search.
            trial.set_constraint("lag", 1.0 if counts_as_baseline(trial) else self._best() - values[0] - NEAR)
            self.study.tell(trial, values)
        self.write()
        return _row(self.study.trials[trial.number])

    def _ask(self) -> tuple[optuna.Trial, list[str]]:
        """The next trial and its overrides. Settings in which the rule is backprop are drawn again.

        Raises UserError if there are no others.
        """
        for _ in range(MOST_DRAWS):
            trial = self.study.ask()
            drawn = self.space.suggest(trial)
            overrides = [*self.fixed, *words(drawn)]
            trial.set_user_attr("overrides", overrides)
            trial.set_user_attr("drawn", drawn)
            if not self._excluded(overrides):
                return trial, overrides
            self.study.tell(trial, state=TrialState.FAIL)
        raise UserError(f"{' '.join(overrides)}: the rule is backprop there, as in all settings drawn")

    def _excluded(self, overrides: list[str]) -> bool:
        if self.space.rule not in TESTS:
            return False
        try:
            config = settings_of(overrides)
            return is_backprop(config.rule, config.epochs or 1, config.batch_size)
        except UserError:  # the trial records it
            return False

    def _best(self) -> float:
        return max((one.values[0] for one in self.counted() if not counts_as_baseline(one)), default=0.0)

    def table(self) -> pd.DataFrame:
        """A row per trial that ended: COLUMNS, then the sampled values."""
        ended = sorted([*self.counted(), *self.failed()], key=lambda trial: trial.number)
        return pd.DataFrame([_row(trial) for trial in ended], columns=[*COLUMNS, *self.space.keys()])

    def write(self) -> None:
        """Write trials.csv, and front.csv without the trials that count as backprop's."""
        table = self.table()
        write_text(self.folder / "trials.csv", table.to_csv(index=False))
        write_text(self.folder / "front.csv", front(table[~degenerate(table)]).to_csv(index=False))


def _open(folder: Path) -> optuna.Study:
    """The study in `folder`, new or continued. Raises UserError if its journal is damaged or of something else."""
    journal = folder / "study.journal"
    if (folder / "trials.csv").exists() and not journal.exists():
        raise UserError(f"{folder}: has a trials.csv without its study.journal; set --folder")
    _repair(journal)
    for left_over in folder.glob("study.journal.lock*"):  # of a killed process: this folder is locked
        left_over.unlink(missing_ok=True)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(study_name="search", storage=storage, directions=DIRECTIONS, load_if_exists=True)
        if study.directions != DIRECTIONS:
            raise ValueError("of another kind of search")
        study.get_trials()
    except OSError:
        raise
    except Exception as error:  # Optuna replays the journal without checking it
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise UserError(f"{journal}: is damaged ({reason}); move it away to start the search anew") from None
    return study


def _repair(journal: Path) -> None:
    """Cut off a last line that was not written completely; Optuna would append to it."""
    if journal.exists():
        content = journal.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with journal.open("r+b") as stream:
                stream.truncate(len(whole))


def _row(trial: FrozenTrial) -> dict[str, Any]:
    accuracy, seconds = trial.values if trial.state == TrialState.COMPLETE else (None, None)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "status": trial.user_attrs.get("status") or trial.user_attrs.get("error"),
        "val_accuracy": accuracy,
        "train_seconds": seconds,
        **trial.user_attrs.get("facts", {}),
        "run_id": trial.user_attrs.get("run_id"),
        "overrides": shlex.join(trial.user_attrs.get("overrides", [])),
        **trial.user_attrs.get("drawn", {}),
    }


def facts(summary: dict[str, Any]) -> dict[str, Any]:
    """What comparisons need: the rule (its label), the seed, and whether all samples were selected."""
    return {
        "samples_seen": int(summary["samples_seen"]),
        "backward_samples": int(summary["backward_samples"]),
        "selects_all": selects_all(summary),
        "rule": summary.get("rule_label") or summary["rule"],
        "seed": int(summary["seed"]),
    }


def counts_as_baseline(trial: FrozenTrial | optuna.Trial) -> bool:
    """Whether a trial of another rule selected all samples."""
    known = trial.user_attrs.get("facts", {})
    return bool(known.get("selects_all")) and known["rule"] != BASELINE


def objectives(summary: dict[str, Any]) -> tuple[float, float]:
    """(validation accuracy, seconds) at the end of a run; the accuracy of a diverged one is 0."""
    seconds = float(summary["train_seconds"])
    if summary["status"] == "diverged":
        return 0.0, seconds
    return float(summary["val_accuracy"]), seconds
