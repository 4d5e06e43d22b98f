"""The choice of finals: for every search and every accuracy line, the fastest trial that reaches the line.

Lines are measured from backprop's best validation accuracy: the median over its searches of the best in each. Every
rule and backprop itself are chosen by the same lines. A search of backprop that does not reach a line gives its most
accurate trial instead, so that no rule gains from it. A trial of a rule that selected all samples is a trial of
backprop: it is removed from its search and added, with backprop as the rule, to every search of backprop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd

from lazyexp.errors import UserError
from lazyexp.report import BASELINE
from lazyexp.tune.degenerate import as_backprop
from lazyexp.tune.fronts import complete, degenerate, fastest, read_trials, split_overrides

# Percentage points below backprop's best validation accuracy. The primary margin is fixed in advance.
PRIMARY = 0.1
EXPLORATORY = (0.0, 0.2, 0.3, 0.5)
# Settings of a trial that its final replaces.
REPLACED = ("seed", "dataset.val_size", "runs_dir")


@dataclass
class Searched:
    """A search: its name, the label of its rule, its completed trials (column `words`: the overrides as a list) and
    how many trials it had, those credited to backprop included."""

    name: str
    rule: str
    trials: pd.DataFrame
    number: int


def read_searches(sources: Sequence[Path]) -> list[Searched]:
    """The searches in the folders `sources`. Raises UserError."""
    if not sources:
        raise UserError("--finals: name the folders of at least one search")
    resolved = [source.resolve() for source in sources]
    if len(set(resolved)) < len(resolved):
        raise UserError("--finals: the same folder is named twice")
    names = [source.name for source in sources]
    found = []
    for source, name in zip(sources, names, strict=True):
        trials = read_trials(source)
        done = complete(trials)
        if not len(done):
            raise UserError(f"{source}: no trial was completed")
        rules = done["rule"].dropna().unique().tolist()
        if len(rules) != 1:
            raise UserError(f"{source}: has no readable trials.csv (trials of {len(rules)} rules)")
        words = [split_overrides(text, name) for text in done["overrides"]]
        name = name if names.count(name) == 1 else str(source)
        done = done.assign(words=words, trial=done["trial"].astype(str))
        found.append(Searched(name, str(rules[0]), done, int((trials["state"] == "complete").sum())))
    if all(search.rule != BASELINE for search in found):
        raise UserError(f"--finals: needs a search of rule={BASELINE}, from whose best accuracy lines are measured")
    return found


def credited(searches: Sequence[Searched]) -> list[Searched]:
    """The searches with degenerate trials removed from those of other rules and added to those of backprop.

    The name of an added trial is SEARCH/TRIAL.
    """
    added = []
    for search in searches:
        trials = search.trials[degenerate(search.trials)]
        names = [f"{search.name}/{trial}" for trial in trials["trial"]]
        words = [as_backprop(one) for one in trials["words"]]
        added.append(trials.assign(trial=names, words=words, rule=BASELINE))
    every = pd.concat(added)
    return [
        Searched(one.name, one.rule, pd.concat([one.trials, every]), one.number)
        if one.rule == BASELINE
        else Searched(one.name, one.rule, one.trials[~degenerate(one.trials)], one.number)
        for one in searches
    ]


def choose_by_lines(searches: Sequence[Searched], margins: Sequence[float]) -> pd.DataFrame:
    """A row per search and line: the chosen trial, or none (`trial` empty). `point` numbers different settings.

    A line that no search of backprop reaches is dropped.
    """
    searches = credited(searches)
    baseline = [search for search in searches if search.rule == BASELINE]
    best = median([float(search.trials["val_accuracy"].max()) for search in baseline])
    rows, points = [], dict[tuple[str, ...], int]()
    for margin in margins:
        line = best - margin / 100
        if all(fastest(search.trials, line) is None for search in baseline):
            continue
        for search in searches:
            row = {"margin": margin, "line": line, "rule": search.rule, "search": search.name}
            chosen = fastest(search.trials, line)
            row |= {"trials": search.number, "reaches": chosen is not None}
            if chosen is None and search.rule == BASELINE:
                chosen = fastest(search.trials, float(search.trials["val_accuracy"].max()))
            if chosen is not None:
                words = _without(chosen["words"], REPLACED)
                row |= {"point": points.setdefault(tuple(words), len(points)), "words": words}
                row |= {name: chosen[name] for name in ("trial", "val_accuracy", "train_seconds", "run_id")}
            rows.append(row)
    columns = ["margin", "line", "rule", "search", "trials", "reaches", "point", "trial", "val_accuracy"]
    table = pd.DataFrame(rows, columns=[*columns, "train_seconds", "run_id", "words"])
    return table.astype({"point": "Int64"})


def _without(words: Sequence[str], keys: Sequence[str]) -> list[str]:
    return [word for word in words if word.partition("=")[0].lstrip("+") not in keys]
