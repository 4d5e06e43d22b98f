"""The tables of a comparison under equal trials, for collect.py.

Of searches and finals as `reproduce.sh fair` leaves them: FOLDER/<data>-<rule> are searches,
FOLDER/finals-<data> the chosen points with fresh seeds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd

from lazyexp.report.groups import CONTROL
from lazyexp.report.races import LIMITS, Configuration, Race, races, time_table, within_table
from lazyexp.report.read import read_runs
from lazyexp.report.story import NEAR, SELDOM, within_block
from lazyexp.report.words import number, shown
from lazyexp.rules import make_rule

# What summary.csv of a final tells that is not the same for all.
COLUMNS = [
    "run_id",
    "rule",
    "rule_options",
    "seed",
    "epochs",
    "batch_size",
    "optimizer.name",
    "lr",
    "optimizer.momentum",
]
COLUMNS += ["optimizer.schedule", "optimizer.reduction", "train_seconds", "test_accuracy"]
COLUMNS += ["forward_samples", "backward_samples", "updates"]
# Of run.json: with what the finals were made.
MADE_WITH = ("versions", "device", "threads", "git_commit")


def fair(folder: Path, place: Path) -> str:
    """Writes CSVs and figures to `place`; returns the tables, a part for every data set."""
    parts, about = [], {}
    for finals in sorted(folder.glob("finals-*")):
        data = finals.name.removeprefix("finals-")
        runs = read_runs([finals]).runs
        (race,) = races(runs)
        rows = [pd.read_csv(run.folder / "summary.csv").iloc[0] for run in runs]
        table = pd.DataFrame(rows).assign(rule=[run.rule for run in runs])
        table[COLUMNS].sort_values(["rule", "run_id"]).to_csv(place / f"{data}_finals.csv", index=False)
        time_table([race]).to_csv(place / f"{data}_fronts.csv", index=False)
        within_table([race]).to_csv(place / f"{data}_within.csv", index=False)
        figure = finals / "figures" / f"pareto_{data}.png"
        shutil.copyfile(figure, place / figure.name)
        searches = sorted(folder.glob(f"{data}-*"))
        for search in searches:
            shutil.copyfile(search / "trials.csv", place / f"{search.name.replace('-', '_')}.csv")
        facts = json.loads((runs[0].folder / "run.json").read_text())
        about[data] = {
            "finals": {key: facts[key] for key in MADE_WITH if key in facts},
            "searches": {search.name: json.loads((search / "about.json").read_text()) for search in searches},
        }
        parts += [f"**{data}**", chosen(race), f"![Test error against seconds](results/{place.name}/{figure.name})"]
        parts += [along_the_front(race), within(race)]
    (place / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    return "\n\n".join(parts)


def chosen(race: Race) -> str:
    """All configurations of the finals, fastest first: medians (and ranges) over seeds."""
    rows = []
    for rule, some in race.rules.items():
        for one in some:
            point = one.point()
            low, high = 100 * point.accuracy.min(), 100 * point.accuracy.max()
            cells = [f"`{rule}`", settings(one), f"{100 * one.median('test_accuracy'):.2f} ({low:.2f} to {high:.2f})"]
            seconds = one.median("train_seconds")
            cells.append(f"{seconds:.2f} ({point.seconds.min():.2f} to {point.seconds.max():.2f})")
            cells += [f"{one.median(name):,.0f}" for name in ("forward_samples", "backward_samples", "updates")]
            rows.append((seconds, cells))
    n = max(len(one.runs) for some in race.rules.values() for one in some)
    head = f"Test accuracy and seconds, median (range) of {n} seeds, fastest first"
    columns = ["rule", "chosen", "test accuracy %", "seconds", "forward", "learned from", "updates"]
    return f"{head}\n\n{_table(columns, [cells for _, cells in sorted(rows)])}"


def settings(one: Configuration) -> str:
    """What was chosen, in words."""
    run = one.runs[0]
    known = run.settings
    name = known["optimizer.name"]
    momentum = known.get("optimizer.momentum")
    optimizer = (
        f"momentum {momentum:g}" if name == "sgd" and momentum else {"sgd": "SGD", "adam": "Adam"}.get(name, name)
    )
    words = [f"{known['epochs']} epochs", f"batch {known['batch_size']}", optimizer]
    words.append(f"rate {known['optimizer.lr']:g} {known['optimizer.schedule']}")
    words += ["per learner"] * (known.get("optimizer.reduction") == "selected")
    rule = json.loads((run.folder / "run.json").read_text())["settings"]["rule"]["name"]  # run.rule is a label
    plain = make_rule({"name": rule})
    words += [f"{key} {value}" for key, value in json.loads(run.options).items() if value != getattr(plain, key)]
    return ", ".join(words)


def along_the_front(race: Race) -> str:
    """For every rule the smallest margin that it keeps in 19 of 20 resamples, and the speedup there."""
    rows = []
    for rule in race.rivals():
        front, behind, missed = race.fronts[rule], race.behind(rule), []
        cells = ["never", "", ""]
        for margin in NEAR:
            target = race.below_control(margin)
            share = front.missed(target)
            if share <= SELDOM:
                times = [float(race.fronts[name].time_to(target)[0]) for name in (rule, CONTROL)]
                against = f"{number(times[0])} s against {number(times[1])} s"
                cells = [f"{margin:g}", shown(race.speedup(rule, target)), against]
                break
            missed.append(f"{margin:g}: {share:.0%}")
        paired = f"{-behind.median:+.2f} ({-behind.high:+.2f} to {-behind.low:+.2f})"
        rows.append([f"`{rule}`", *cells, ", ".join(missed), paired])
    columns = [
        "rule",
        "at backprop's best less",
        "speedup",
        "seconds",
        "nearer, missed in",
        "at its best, paired points",
    ]
    head = "Along the fronts: backprop's fastest configuration that reaches the accuracy over the rule's"
    return f"{head}\n\n{_table(columns, rows)}"


def within(race: Race) -> str:
    rows = [[f"`{row[1]}`", *row[2:]] for row in within_block([race]).rows]
    head = "Best test accuracy (%) within so many seconds"
    return f"{head}\n\n{_table(['rule', *(f'{limit} s' for limit in LIMITS)], rows)}"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
