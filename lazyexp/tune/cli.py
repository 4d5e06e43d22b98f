"""The command `lazyexp-tune`: a hyperparameter search for one rule, or the final comparison of several searches."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from lazyexp.config.compose import register
from lazyexp.config.quoting import override
from lazyexp.errors import UserError
from lazyexp.report import BASELINE
from lazyexp.settings import settings_of
from lazyexp.tune.fronts import SLACK, choose, read_trials
from lazyexp.tune.keys import given_values
from lazyexp.tune.lines import EXPLORATORY, PRIMARY, read_searches
from lazyexp.tune.trial import FolderIsBusy, Outcome, attempt, locked

# A search gives up after so many failed trials in a row.
PATIENCE = 5
EPILOG = """examples:
  lazyexp-tune rule=lazy dataset=mnist dataset.val_size=10000 --trials 24 --folder runs/tune/lazy
  lazyexp-tune rule=backprop dataset=mnist dataset.val_size=10000 --trials 24 --folder runs/tune/backprop
  lazyexp-tune --finals runs/tune/lazy runs/tune/backprop --seeds 10 --folder runs/finals

A key given on the command line keeps its value and is not searched. The same command continues a search and repeats
trials that failed. Every trial is an ordinary run in FOLDER/runs, chosen by validation accuracy and seconds; the test
set plays no part. For each line below backprop's best validation accuracy, the finals take from every search the
fastest trial that reaches it, and train it on all training samples with fresh seeds, in turn. They may have several
searches of a rule, made with different --seed and --folder. Trials that select all samples count as backprop's.
hydra/sweeper=optuna is no alternative: that plugin needs Optuna below 3 and cannot continue after a kill."""


MARGINS = (
    "finals: exploratory lines, in percentage points below backprop's best validation accuracy, besides the primary "
    f"one at {PRIMARY:g} ({' '.join(f'{below:g}' for below in EXPLORATORY)})"
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message}; see lazyexp-tune --help")


def main() -> NoReturn:
    """Entry point; exits with 0, 1 (a final failed, or the folder is busy), 2 (user error) or 128 + signal."""
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = parse(sys.argv[1:])
        register()
        sys.exit(finals(arguments) if arguments.finals else search(arguments))
    except UserError as error:
        fail(str(error), 2)
    except FolderIsBusy as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}; the same command continues", 2)


def fail(message: str, code: int) -> NoReturn:
    """Exit with one line on standard error."""
    print(f"lazyexp-tune: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The checked command line; overrides can be before, between and after the options. Raises UserError."""
    parser = Parser(
        "lazyexp-tune",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("overrides", nargs="*", help="settings of every trial; with --finals: folders of searches")
    add("--finals", action="store_true", help="train the chosen points of these folders")
    add("--folder", type=Path, help="where results go (runs/tune/<dataset>-<rule>, or runs/finals)")
    add("--trials", type=int, default=24, help="number of completed trials (24)")
    add("--space", default="fair", help="ranges: the preset fair, methods or shifts, or a YAML file (fair)")
    add("--seed", type=int, default=0, help="seed of the sampler (0)")
    add("--borrow", nargs="+", default=[], metavar="DIR", help="also try the chosen points of these searches")
    add("--seeds", type=int, default=10, help="finals: number of fresh seeds, from 100 on (10)")
    add("--margins", nargs="+", metavar="POINTS", help=MARGINS)
    arguments = parser.parse_intermixed_args(list(words))
    # These options take several words, and argparse gives them overrides that follow, too.
    for name, belongs in (("borrow", _is_folder), ("margins", _is_number)):
        taken = list(getattr(arguments, name) or [])
        arguments.overrides += [word for word in taken if not belongs(word)]
        setattr(arguments, name, [word for word in taken if belongs(word)])
    arguments.borrow = [Path(folder).expanduser() for folder in arguments.borrow]
    margins = [float(number) for number in arguments.margins] or EXPLORATORY
    arguments.margins = list(dict.fromkeys([PRIMARY, *margins]))
    arguments.folder = arguments.folder and arguments.folder.expanduser()
    for name, lowest, highest in (("trials", 1, math.inf), ("seeds", 1, math.inf), ("seed", 0, 2**32 - 1)):
        _check_bounds(name, getattr(arguments, name), lowest, highest)
    for below in arguments.margins:
        _check_bounds("margins", below, 0, 100)
    return arguments


def _check_bounds(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        allowed = f"at least {lowest}" if highest == math.inf else f"from {lowest} to {highest}"
        raise UserError(f"--{name} {value}: must be {allowed}")


def _is_folder(word: str) -> bool:
    return "=" not in word or Path(word).is_dir()


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def search(arguments: argparse.Namespace) -> int:
    """All trials of one rule. Returns the exit code."""
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise UserError('Optuna is not installed; pip install "lazyexp[tune]"') from None
    from lazyexp.tune.space import Space
    from lazyexp.tune.study import Search

    given = given_values(arguments.overrides)
    config = settings_of(arguments.overrides)
    if config.dataset.val_size == 0:
        raise UserError("dataset.val_size=0: trials are chosen by validation samples; set dataset.val_size")
    rule = str(config.rule["name"])
    folder = arguments.folder or Path("runs/tune") / f"{config.dataset.name}-{rule}"
    space = Space(arguments.space, rule, given)
    borrowed = borrowed_points(arguments.borrow, space.keys())
    with locked(folder):
        found = Search(folder, arguments.overrides, space, arguments.seed)
        found.borrow(borrowed, arguments.borrow)
        if len(found.counted()) < arguments.trials:
            found.repeat_failed()
        failures = 0  # in a row
        while (done := len(found.counted())) < arguments.trials:
            row = found.next_trial(lambda overrides: train(overrides, folder))
            print(trial_line(row, done + 1, arguments.trials, space.keys()), flush=True)
            failures = failures + 1 if row["state"] == "fail" else 0
            if failures == PATIENCE:
                reason = f"the last {failures} trials failed: {row['status']}"
                fail(f"{reason}; the same command continues", 1 if done else 2)
        found.write()
        print_front(folder, space.keys())
        print(f"{done} trials in {folder / 'trials.csv'}; those that no other one beats in front.csv")
    return 0


def train(overrides: Sequence[str], folder: Path) -> Outcome:
    """One trial of the search in `folder`."""
    return attempt([*overrides, override("runs_dir", folder / "runs")])


def trial_line(row: dict[str, Any], number: int, total: int, keys: Sequence[str]) -> str:
    """How a trial ended, by what it is chosen by, and its sampled values."""
    values = " ".join(f"{key}={row[key]}" for key in keys if key in row)
    if row["state"] == "fail":
        return f"[{number}/{total}] failed: {row['status']} ({values})"
    figures = f"validation accuracy {row['val_accuracy']:.2%}, {row['train_seconds']:.2f} s"
    degenerate = row["selects_all"] and row["rule"] != BASELINE
    credited = f", selects all samples: counts as {BASELINE}'s" if degenerate else ""
    return f"[{number}/{total}] {row['status']}, {figures}{credited} ({values})"


def print_front(folder: Path, keys: Sequence[str]) -> None:
    """Print the table of the trials that no other one beats."""
    table = pd.read_csv(folder / "front.csv")
    columns = ["val_accuracy", "train_seconds", *(key for key in keys if table[key].notna().any())]
    print(
        table[columns].to_string(index=False, na_rep="") if len(table) else "no trial was completed without diverging"
    )


def borrowed_points(sources: Sequence[Path], keys: Sequence[str]) -> list[dict[str, Any]]:
    """What other searches chose, for the keys that are searched here, so that no rule lacks a good setting."""
    points: list[dict[str, Any]] = []
    for source in sources:
        for _, row in choose(read_trials(source), SLACK).iterrows():
            given = {key: row[key] for key in keys if key in row and pd.notna(row[key])}
            points.append({key: _as_typed(value) for key, value in given.items()})
    return points


def _as_typed(value: Any) -> Any:
    """A value of a table as Python's; pandas may read a float with an error in its last bit, which is undone."""
    value = value.item() if hasattr(value, "item") else value
    return float(f"{value:.15g}") if isinstance(value, float) else value


def finals(arguments: argparse.Namespace) -> int:
    """The final comparison. Returns the exit code, 1 if a run failed."""
    from lazyexp.tune import finals as comparison

    sources = [Path(word).expanduser() for word in arguments.overrides]
    folder = arguments.folder or Path("runs/finals")
    if arguments.borrow:
        raise UserError("--borrow: belongs to a search, not to --finals")
    read_searches(sources)  # before the folder is made
    with locked(folder):
        return comparison.finals(sources, folder, arguments.seeds, arguments.margins)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
