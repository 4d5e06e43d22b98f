"""What the tables take from lazyexp.report, imported here alone."""

from lazyexp.report.arena import standings as method_rows
from lazyexp.report.fronts import Estimate
from lazyexp.report.races import Configuration, time_table, within_table
from lazyexp.report.races import Race as Comparison
from lazyexp.report.races import races as comparisons
from lazyexp.report.statistics import Interval, crossing, interval
from lazyexp.report.story import NEAR as MARGINS
from lazyexp.report.story import SELDOM as MAX_MISSED
from lazyexp.report.synapses import energy_blocks, energy_table
from lazyexp.report.words import number, ratio, shown

from lazyexp.report.groups import CONTROL as BASELINE
from lazyexp.report.groups import Group, matched_groups, rule_order, tuned_groups
from lazyexp.report.read import Run, read_runs
from lazyexp.report.style import looks
from lazyexp.report.tables import final_table, run_table, speedup_table

__all__ = [
    "BASELINE", "MARGINS", "MAX_MISSED", "Comparison", "Configuration", "Estimate", "Group", "Interval", "Run",
    "comparisons", "crossing", "energy_blocks", "energy_table", "final_table", "interval", "looks", "markdown",
    "matched_groups", "method_rows", "number", "ratio", "read_runs", "rule_order", "run_table", "short", "shown",
    "speedup_table", "time_table", "tuned_groups", "within_table",
]  # fmt: skip


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def short(stat: Interval, factor: float = 1, digits: int = 3) -> str:
    """`median [low, high]`, without the brackets if they repeat the median."""
    text = shown(stat, factor, digits)
    middle = text.partition(" ")[0]
    return middle if text == f"{middle} [{middle}, {middle}]" else text
