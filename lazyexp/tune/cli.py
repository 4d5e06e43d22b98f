"""The command `lazyexp-tune`: a search for one rule, or the last comparison between the searches of several."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from lazyexp.cli import execute, fail
from lazyexp.config.compose import checked, compose_settings, hydra_session, register
from lazyexp.errors import UserError

# How far below the best validation accuracy a point may be that is chosen for its speed.
SLACK = (0.0, 0.001, 0.003)
EPILOG = """examples:
  lazyexp-tune rule=lazy dataset=mnist dataset.val_size=10000 --trials 24 --folder runs/tune/lazy
  lazyexp-tune rule=backprop dataset=mnist dataset.val_size=10000 --trials 24 --folder runs/tune/backprop
  lazyexp-tune --finals runs/tune/lazy runs/tune/backprop --seeds 10 --folder runs/finals
The same command goes on with the trials that are missing. Every trial is an ordinary run in FOLDER/runs, chosen
by validation accuracy and seconds; test images play no part. The finals train the chosen points on all training
samples with fresh seeds, taking turns, and are read by lazyexp-report.
Why not hydra/sweeper=optuna: that plugin needs Optuna below 3 and cannot go on after a kill."""


def main() -> NoReturn:
    """Entry point; exits with 0, 1 (a final failed), 2 (user error) or 128 + signal."""
    parser = argparse.ArgumentParser(
        "lazyexp-tune", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="settings that hold for every trial; or folders with --finals")
    parser.add_argument("--finals", action="store_true", help="run the chosen points of these folders")
    parser.add_argument("--folder", type=Path, default=None, help="where to (runs/tune/<dataset>-<rule>)")
    parser.add_argument("--trials", type=int, default=24, help="trials in all (24)")
    parser.add_argument("--space", default="fair", help="ranges: a preset or a YAML file (fair)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler (0)")
    parser.add_argument(
        "--borrow",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="try the chosen points of these searches, too",
    )
    parser.add_argument("--seeds", type=int, default=10, help="finals: fresh seeds (10), from 100 on")
    parser.add_argument(
        "--slack", type=float, nargs="+", default=SLACK, help="finals: below the best (0 0.001 0.003)"
    )
    arguments = parser.parse_args()
    register()
    try:
        try:
            import optuna  # noqa: F401
        except ModuleNotFoundError:
            raise UserError('lazyexp-tune: Optuna is not installed; pip install "lazyexp[tune]"') from None
        sys.exit(finals(arguments) if arguments.finals else search(arguments))
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def search(arguments: argparse.Namespace) -> int:
    """All trials of one rule. Returns the exit code: trials that fail are results, too."""
    from lazyexp.tune.space import Space
    from lazyexp.tune.study import Search

    config = compose(arguments.overrides)
    if config.dataset.val_size == 0:
        raise UserError("dataset.val_size=0: trials are chosen by validation samples; set dataset.val_size")
    rule = str(config.rule["name"])
    folder = arguments.folder or Path("runs/tune") / f"{config.dataset.name}-{rule}"
    found = Search(folder, arguments.overrides, Space(arguments.space, rule), arguments.seed)
    found.borrow(borrowed(arguments.borrow, found.space.names()))
    while len(found.counted()) < arguments.trials:
        place = f"[{len(found.counted()) + 1}/{arguments.trials}]"
        found.next_trial(lambda overrides, place=place: attempt([*overrides, f"runs_dir={folder / 'runs'}"], place))
    found.write()
    columns = ["val_accuracy", "train_seconds", *found.space.names()]
    print(pd.read_csv(folder / "front.csv")[columns].to_string(index=False))
    print(f"{len(found.counted())} trials in {folder / 'trials.csv'}; those that no other one beats in front.csv")
    return 0


def borrowed(sources: list[Path], keys: list[str]) -> list[dict[str, Any]]:
    """What other searches chose, as far as it is asked for here: nobody has a better setting for want of trying."""
    from lazyexp.tune.study import choose

    points: list[dict[str, Any]] = []
    for source in sources:
        for _, row in choose(trials_of(source), SLACK).iterrows():
            given = {key: row[key] for key in keys if key in row and pd.notna(row[key])}
            points.append({key: value.item() if hasattr(value, "item") else value for key, value in given.items()})
    return points


def trials_of(source: Path) -> pd.DataFrame:
    """The trials of a search. Raises UserError."""
    try:
        return pd.read_csv(source / "trials.csv")
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: has no readable trials.csv ({error})") from None


def finals(arguments: argparse.Namespace) -> int:
    """The chosen points of every search with fresh seeds; seeds outside, so that all see the same machine.

    Returns the exit code, 1 if one of them failed.
    """
    from lazyexp.tune.study import choose

    folder = arguments.folder or Path("runs/finals")
    folder.mkdir(parents=True, exist_ok=True)
    chosen = []
    for source in arguments.overrides:
        trials = trials_of(Path(source))
        points = choose(trials, tuple(arguments.slack))
        chosen.append(points.assign(search=Path(source).name, trials=len(trials)))
    table = pd.concat(chosen, ignore_index=True)
    table.to_csv(folder / "chosen.csv", index=False)
    failed = 0
    for seed in range(100, 100 + arguments.seeds):
        for number, row in table.iterrows():
            # The order changes from seed to seed: nobody is always first on a cool machine.
            row = table.iloc[(int(str(number)) + seed) % len(table)]
            own = [f"seed={seed}", "dataset.val_size=0", f"runs_dir={folder / 'runs'}"]
            place = f"[{row['search']}, seed {seed}]"
            _, reason = attempt([*row["overrides"].split(), *own], place)
            if reason:
                failed = 1
                print(f"lazyexp-tune: {place}: {reason}", file=sys.stderr)
    return failed


def compose(overrides: list[str]) -> Any:
    with hydra_session():
        return checked(compose_settings(overrides))


def attempt(overrides: list[str], place: str) -> tuple[Any, str]:
    """One run: its report and "", or None and why there is none. Raises KeyboardInterrupt if asked to stop."""
    try:
        result = execute(compose(overrides), place)
    except UserError as error:
        return None, str(error)
    if result.get("signal") or result["code"] >= 128:
        raise KeyboardInterrupt
    return result.get("report"), result["error"]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
