"""The content of the report as blocks: the answer first, everything else in folded sections."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from lazyexp.report.blocks import Block, Details, Figure, Figures, Items, Table, Text
from lazyexp.report.comparisons import Comparison
from lazyexp.report.description import options_of, provenance, split_settings, what_was_run
from lazyexp.report.energy import energy_blocks
from lazyexp.report.formatting import count, setting_value
from lazyexp.report.groups import Group
from lazyexp.report.headline import Headline
from lazyexp.report.main_table import main_table
from lazyexp.report.methods import method_blocks
from lazyexp.report.read import Run, RunSet
from lazyexp.report.sections import final, schedule_blocks, speedup
from lazyexp.report.streams import stream_blocks
from lazyexp.report.summary import definitions, lead, sentences

SENTENCES = 6  # comparisons with a sentence before the fold
ROWS = 40  # rows of the main table before the fold
ABOUT_TABLE = (
    "Medians over seeds, in brackets 95 % bootstrap intervals; a dash is a target that the median run misses. "
    "Speedup: the baseline's training time to the target divided by the rule's. Selected: share of the presented "
    "samples that updated the weights."
)
ABOUT_SPEEDUP = (
    "Speedup along the curve: the baseline's cost divided by the rule's, up to the first evaluation that reaches the "
    "target. 2 means half the cost, 0 that only the rule missed the target, inf that only the baseline missed it; "
    "misses stay in every median. `{baseline}-0.1` is the final accuracy of the {baseline} run of the same seed "
    "minus 0.1 percentage points. In brackets: 95 % percentile bootstrap interval of the median over pairs with the "
    "same seed (with few seeds it is at most their range; with one there is none). A pair is undecided if a run that "
    "has not reached the target has not ended, or was ended by `stop_at`."
)
ABOUT_FINAL = (
    "Median over the runs that ended, with its 95 % bootstrap interval. Points below baseline: percentage points of "
    "test accuracy, paired by seed, so not the difference of the medians."
)
PROTOCOLS = {
    "matched": "rule and baseline at identical settings",
    "tuned": "every rule at its own best learning rate, epochs and batch size, chosen by validation accuracy",
}


@dataclass
class Content:
    """All that the page shows."""

    found: RunSet
    baseline: str
    groups: list[Group]
    headlines: list[Headline]
    speedups: pd.DataFrame
    comparisons: list[Comparison]
    times: pd.DataFrame
    energies: pd.DataFrame
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def blocks(content: Content) -> list[Block]:
    """The blocks of the page, in order."""
    runs = content.found.runs
    shown: list[Block] = [Text(what_was_run(runs), soft=True)]
    lines = sentences(content.headlines)
    common = lead(content.headlines)
    shown += [*[Text(common)] * bool(common), Items(lines[:SENTENCES])]
    if lines[SENTENCES:]:
        more = count(len(lines) - SENTENCES, "more comparison")
        shown.append(Details(f"{more} in words", [Items(lines[SENTENCES:])]))
    main = [*content.figures[:1]]
    shown += [Figures([Figure(one.name, one.caption, wide=True) for one in main])] * bool(main)
    shown += _main_table(content)
    shown.append(Text(f"{definitions(content.headlines)} {ABOUT_TABLE}".strip(), soft=True))
    figures = content.figures[1:]
    shown += [Details(f"Figures ({len(figures)})", [Figures(figures)])] * bool(figures)
    shown += _sections(content)
    shown.append(Details("Settings, machines and versions", _settings(runs, len(content.found.broken))))
    if content.notes:
        shown.append(Details("Notes", [Text(note) for note in content.notes]))
    if content.found.broken:
        rows = [[str(path), why] for path, why in content.found.broken]
        shown.append(Details(f"Left out ({len(rows)})", [Table(["folder", "reason"], rows)]))
    return shown


def _main_table(content: Content) -> list[Block]:
    table = main_table(content.headlines)
    if len(table.rows) <= ROWS:
        return table.compact()
    head = Table(table.columns, table.rows[: ROWS // 2])
    return [head, Details(f"All {len(table.rows)} rows of this table", table.compact())]


def _sections(content: Content) -> list[Block]:
    """The folded sections of tables."""
    sections: list[Block] = []
    used = [protocol for protocol in PROTOCOLS if any(group.protocol == protocol for group in content.groups)]
    for protocol in used:
        table = final([group for group in content.groups if group.protocol == protocol])
        inside = [Text(ABOUT_FINAL), *table.compact()]
        sections.append(Details(f"End of training, {protocol}: {PROTOCOLS[protocol]}", inside))
    for protocol in used:
        rows = content.speedups[content.speedups["protocol"] == protocol]
        inside = [Text(ABOUT_SPEEDUP.format(baseline=content.baseline)), *speedup(rows).compact()]
        sections.append(Details(f"Speedup along the curve, {protocol}: {PROTOCOLS[protocol]}", inside))
    if content.comparisons:
        inside = schedule_blocks(content.comparisons, content.times)
        sections.append(Details("Time and accuracy at the end of a schedule", inside))
    methods = method_blocks(content.comparisons)
    sections += [Details("Method comparison at the end of a schedule", methods)] * bool(methods)
    streams = stream_blocks([group for group in content.groups if group.protocol == "matched"])
    sections += [Details("Phases and stores", streams)] * bool(streams)
    energy = energy_blocks(content.energies, content.baseline)
    sections += [Details("Energy at equal accuracy: samples and synapses", energy)] * bool(energy)
    return sections


def _settings(runs: list[Run], left_out: int) -> list[Block]:
    common, varied = split_settings(runs)
    rows = [[key, setting_value(value)] for key, value in common.items() if value is not None]
    rows += [
        [key, "varied: " + ", ".join(setting_value(value) for value in values)] for key, values in varied.items()
    ]
    lines: list[Block] = [Text(line) for line in provenance(runs, left_out)]
    return [*lines, Table(["setting", "value"], rows), Table(["rule", "options"], options_of(runs))]
