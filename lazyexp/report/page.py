"""What the report says, as blocks."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from lazyexp.report.arena import arena_blocks
from lazyexp.report.groups import CONTROL, Group
from lazyexp.report.races import Race
from lazyexp.report.read import MEASURES, Found
from lazyexp.report.render import Block, Figures, Heading, Items, Table, Text
from lazyexp.report.story import front_blocks, sentences
from lazyexp.report.style import Drawn
from lazyexp.report.synapses import energy_blocks
from lazyexp.report.tables import final_table
from lazyexp.report.words import ratio, shown

STORIES = 8  # races told in words
SHORT = ("seconds", "forward", "backward", "updates", "energy M1")
EXPLAINED = (
    "Speedup is backprop's cost divided by the rule's, up to the first evaluation that reaches the target: 2 means "
    "half the cost, 0 that the rule never got there and backprop did, inf the reverse; misses stay in every median. "
    "`backprop-0.1` is what backprop of the same seed ends with, less 0.1 percentage points. In brackets: 95 % "
    "percentile bootstrap interval of the median over pairs with the same seed (with few seeds it is at most their "
    "range; with one there is none). Pairs are undecided if a run that has not reached the target has not ended, or "
    "was ended by `stop_at`."
)
PROTOCOLS = {
    "matched": "matched: rule and backprop at identical settings",
    "tuned": "tuned: every rule at its own best learning rate, epochs and batch size, chosen by validation accuracy",
}


def blocks(
    found: Found,
    groups: list[Group],
    speedups: pd.DataFrame,
    races: list[Race],
    times: pd.DataFrame,
    energies: pd.DataFrame,
    drawn: list[Drawn],
    notes: list[str],
) -> list[Block]:
    """Everything that the report says, in order: the story, accuracy against seconds, tables, figures."""
    first = [figure for figure in drawn if figure.name.startswith("pareto_")]
    content: list[Block] = [Items(sentences(race)) for race in races[:STORIES]]
    if len(races) > STORIES:
        content.append(Text(f"… and {len(races) - STORIES} more comparisons, in the tables."))
    content += [Figures(first)] * bool(first)
    content += [Text(line) for line in summary(found, groups)]
    content += [Text(f"Note: {note}") for note in notes]
    content += [*arena_blocks(races), *front_blocks(races, times)] if races else []
    content += energy_blocks(energies)
    used = [protocol for protocol in PROTOCOLS if any(group.protocol == protocol for group in groups)]
    for protocol in used:
        content += [
            Heading(f"Final figures ({PROTOCOLS[protocol]})"),
            Text(
                "Median over the runs that ended, with its 95 % bootstrap interval. Below backprop: percentage "
                "points of test accuracy, paired by seed, so not the difference of the medians."
            ),
            final([group for group in groups if group.protocol == protocol]),
        ]
    for protocol in used:
        content += [Heading(f"Speedup over backprop ({PROTOCOLS[protocol]})"), Text(EXPLAINED)]
        content.append(speedup(speedups[speedups["protocol"] == protocol], protocol))
    others = [figure for figure in drawn if figure not in first]
    content += [Heading("Figures"), Figures(others)] * bool(others)
    if found.broken:
        content += [Heading("Left out"), Table(["folder", "why"], [[str(path), why] for path, why in found.broken])]
    return content


def summary(found: Found, groups: list[Group]) -> list[str]:
    """The first lines of the report: how many runs, how they ended, what was compared, where they ran."""
    runs = found.runs
    counts = pd.Series([run.status for run in runs]).value_counts()
    statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
    matched = [group for group in groups if group.protocol == "matched"]
    lines = [f"{len(runs)} runs ({statuses}), {len(found.broken)} folders left out."]
    rules = list(dict.fromkeys(rule for group in matched for rule in group.rules))
    lines.append(f"Compared: {', '.join(rules)}, in {len(matched)} groups of identical settings: ")
    lines[-1] += "; ".join(group.label for group in matched[:20]) + ("; …" if len(matched) > 20 else "") + "."
    lonely = [group.label for group in matched if not group.controls]
    if lonely:
        lines.append(f"No control (no backprop run) in: {'; '.join(lonely)}.")

    def different(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value or "unknown") for value in values}))

    lines.append(
        f"Ran on: {different(run.settings['hardware'] for run in runs)}; "
        f"threads: {different(run.settings['threads'] for run in runs)}; "
        f"lazyexp {different(run.versions.get('lazyexp') for run in runs)}, "
        f"commit {different(run.versions.get('commit') for run in runs)}, "
        f"torch {different(run.versions.get('torch') for run in runs)}."
    )
    return lines


def final(groups: list[Group]) -> Table:
    columns = [
        "protocol",
        "group",
        "rule",
        "n",
        "status",
        "test accuracy (%)",
        "below backprop",
        "seconds",
        "forward",
        "backward",
    ]
    columns += ["share that learned (%)", "updates", "energy M1", "settings chosen"]
    rows = []
    for row in final_table(groups):
        group: Group = row["group"]
        cells = [group.protocol, group.label, row["rule"], str(row["n"]), row["statuses"]]
        cells += [shown(row["test_accuracy"], 100, 4), "" if row["rule"] == CONTROL else shown(row["behind"], 1, 2)]
        cells += [shown(row[name]) for name in ("train_seconds", "forward_samples", "backward_samples")]
        cells += [shown(row["learned"], 100), shown(row["updates"]), shown(row["energy_l1"])]
        rows.append([*cells, group.choice.get(row["rule"], "")])
    return _without_empty(Table(columns, rows))


def speedup(table: pd.DataFrame, protocol: str) -> Table:
    """One row per group, rule and target; the measures side by side."""
    columns = ["protocol", "group", "rule", "target", *SHORT, "pairs", "rule missed", "backprop missed", "undecided"]
    rows = []
    for (group, rule, target), part in table.groupby(["group", "rule_label", "target"], sort=False):
        first = part.iloc[0]
        if first["note"]:
            rows.append([protocol, group, rule, str(first["note"]), *[""] * (len(columns) - 4)])
            continue
        cells = {row["measure"]: row for _, row in part.iterrows()}
        pairs = f"{first['n_pairs']}" + ("" if first["paired"] else " (unpaired)")
        ratios = [ratio(cells[name]) if name in cells else "" for name in MEASURES]
        counts = [str(first[name]) for name in ("n_rule_missed", "n_control_missed", "n_undecided")]
        rows.append([protocol, group, rule, target, *ratios, pairs, *counts])
    return Table(columns, rows)


def _without_empty(table: Table) -> Table:
    keep = [i for i in range(len(table.columns)) if any(row[i] for row in table.rows)]
    return Table([table.columns[i] for i in keep], [[row[i] for i in keep] for row in table.rows])
