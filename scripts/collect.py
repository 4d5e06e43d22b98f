"""Puts the outcome of scripts/reproduce.sh into docs/: tables between their markers, CSVs and one figure per sweep.

    python scripts/collect.py [runs/reproduce] [docs]

Nothing in docs/results.md between `<!-- NAME -->` and `<!-- end -->` is written by hand. Sweeps that are missing
are left as they are.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pandas as pd
from collect_energy import energy_grid
from collect_failure import failure
from collect_fair import fair

from lazyexp.report.arena import arena_blocks
from lazyexp.report.groups import CONTROL, Group, matched_groups, tuned_groups
from lazyexp.report.races import races
from lazyexp.report.read import Run, read_runs
from lazyexp.report.render import to_markdown
from lazyexp.report.statistics import Interval, crossing, interval
from lazyexp.report.tables import final_table, run_table, speedup_table
from lazyexp.report.words import ratio, shown

# The figure of a sweep's report that its section shows.
FIGURES = {
    "headline": "error_train_seconds_matched_all_runs",
    "shifts": "error_train_seconds_matched_all_runs",
    "equal_seconds": "pareto_emnist",
    "rules_emnist": "pareto_emnist",
    "rules_mnist": "pareto_mnist",
    "arena_emnist": "pareto_emnist",
    "arena_mnist": "pareto_mnist",
    "arena_fashion_mnist": "pareto_fashion_mnist",
}
TARGETS = ("backprop-0.2", "backprop-0.5")
# Sweeps whose table tells the seconds to given accuracies instead of speedups.
TIMED = ("shifts",)
# Sections with a table of their own, from a folder and into one.
SPECIAL = {"fair": fair, "shift_fight": fair, "arena_trials": fair, "failure": failure, "energy_grid": energy_grid}
# A section over several folders: those whose names begin so.
ARENA = "arena"


def main(runs: Path, docs: Path) -> None:
    page = docs / "results.md"
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"<!-- (\w+) -->", text):
        folders = [runs / name]
        if name == ARENA:
            folders = [folder for folder in sorted(runs.glob(f"{ARENA}_*")) if folder.name not in SPECIAL]
        if name == "end" or not folders or not all(folder.is_dir() for folder in folders):
            continue
        place = docs / "results" / name
        if name in SPECIAL:
            place.mkdir(parents=True, exist_ok=True)
            text = between(text, name, SPECIAL[name](folders[0], place))
            continue
        if name == ARENA:
            text = between(text, name, arena(folders, docs / "results"))
            continue
        found = read_runs(folders)
        matched, tuned = matched_groups(found.runs), tuned_groups(found.runs)
        speedups = speedup_table(matched + tuned)
        place.mkdir(parents=True, exist_ok=True)
        run_table(matched + tuned).to_csv(place / "summary.csv", index=False)
        speedups.drop(columns="rule_label").to_csv(place / "speedup.csv", index=False)
        if name in TIMED:
            table = times(found.runs)
        else:
            table = "\n\n".join(as_markdown(some, speedups) for some in (matched, tuned) if some)
        wanted = FIGURES.get(name) or next(
            (path.stem for path in sorted((runs / name / "figures").glob("speedup_train_seconds_matched_*.png"))), ""
        )
        picture = runs / name / "figures" / f"{wanted}.png"
        if picture.is_file():
            shutil.copyfile(picture, place / picture.name)
            table += f"\n\n![{name}](results/{name}/{picture.name})"
        print(f"{name}: {len(found.runs)} runs, {len(found.broken)} left out")
        text = between(text, name, table)
    page.write_text(text, encoding="utf-8")


def between(text: str, name: str, table: str) -> str:
    """The page with `table` between the markers of `name`."""
    before, _, rest = text.partition(f"<!-- {name} -->")
    return f"{before}<!-- {name} -->\n{table}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


def arena(folders: list[Path], place: Path) -> str:
    """The report's section over several folders, a figure of each, and their runs as CSVs."""
    found, figures = [], []
    for folder in folders:
        some = read_runs([folder]).runs
        found += some
        (place / folder.name).mkdir(parents=True, exist_ok=True)
        run_table(matched_groups(some)).to_csv(place / folder.name / "summary.csv", index=False)
        for picture in sorted((folder / "figures").glob("pareto_*.png")):
            shutil.copyfile(picture, place / folder.name / picture.name)
            figures.append(f"![{folder.name}](results/{folder.name}/{picture.name})")
    page = to_markdown("", arena_blocks(races(found))[1:])
    return "\n\n".join([page.partition("\n\n")[2].strip(), *figures])


def times(runs: list[Run]) -> str:
    """Seconds to every target, the median over those runs of a rule that reach it, and how many do; fastest first."""
    targets = sorted({target for run in runs for target in run.targets})
    columns = ["rule", "runs", "test accuracy %", "seconds", "forward", "learned from"]
    columns += [f"seconds to {100 * target:.3g} %" for target in targets]
    rows = []
    for rule in dict.fromkeys(run.rule for run in runs):
        own = [run for run in runs if run.rule == rule]
        values = {
            name: interval([run.final(name) for run in own])
            for name in ("test_accuracy", "train_seconds", "forward_samples", "backward_samples")
        }
        cells = [
            f"`{rule}`",
            str(len(own)),
            shown(values.pop("test_accuracy"), 100, 4),
            *map(_short, values.values()),
        ]
        for target in targets:
            reached = [(run, crossing(run, target)) for run in own]
            found = [run.columns["train_seconds"][row] for run, row in reached if row is not None]
            few = f"{len(found)} of {len(own)}"
            cells.append(_short(interval(found)) + f" ({few})" * (len(found) < len(own)) if found else few)
        rows.append((values["train_seconds"].median, cells))
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for _, cells in sorted(rows))])


def as_markdown(groups: list[Group], speedups: pd.DataFrame) -> str:
    """Final figures of every group and rule, with the speedup in seconds at two of backprop's own accuracies."""
    tuned = groups[0].protocol == "tuned"
    columns = ["setting", "rule", "runs", "test accuracy %", "points below", "seconds", "forward", "learned from"]
    columns += ["updates", "M1"]
    columns += [f"speedup to {target}" for target in TARGETS] + ["chosen"] * tuned
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in final_table(groups):
        group = row["group"]
        cells = [group.label, f"`{row['rule']}`", str(row["n"]), shown(row["test_accuracy"], 100, 4)]
        cells.append("" if row["rule"] == CONTROL else shown(row["behind"], 1, 2))  # paired by seed
        cells += [
            _short(row[key])
            for key in ("train_seconds", "forward_samples", "backward_samples", "updates", "energy_l1")
        ]
        cells += [_speedup(speedups, group, row["rule"], target) for target in TARGETS]
        cells += [group.choice.get(row["rule"], "")] * tuned
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(stat: Interval) -> str:
    """`shown`, without brackets that say no more than the number."""
    text = shown(stat)
    middle = text.partition(" ")[0]
    return middle if text == f"{middle} [{middle}, {middle}]" else text


def _speedup(table: pd.DataFrame, group: Group, rule: str, target: str) -> str:
    here = (table["protocol"] == group.protocol) & (table["group"] == group.label) & (table["rule_label"] == rule)
    rows = table[here & (table["target"] == target) & (table["measure"] == "train_seconds")]
    return "" if rows.empty else ratio(rows.iloc[0])


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(arguments[0] if arguments else Path("runs/reproduce"), arguments[1] if len(arguments) > 1 else Path("docs"))
