"""What the tables take from lazyexp.report, imported here alone, and the format of cells."""

import math
from pathlib import Path

import pandas as pd

from lazyexp.report import BASELINE
from lazyexp.report.comparisons import Comparison, Configuration, comparisons, within_table
from lazyexp.report.energy import energy_blocks, energy_table
from lazyexp.report.formatting import DASH, number, with_interval
from lazyexp.report.groups import Group, matched_groups, rule_order, tuned_groups
from lazyexp.report.intervals import Interval, interval
from lazyexp.report.methods import standings as method_rows
from lazyexp.report.read import Run, read_runs
from lazyexp.report.scaling_figures import exponent
from lazyexp.report.speedups import crossing
from lazyexp.report.streams import ends, phase_table, stores
from lazyexp.report.style import looks
from lazyexp.report.tables import final_table, run_table, speedup_table

__all__ = [
    "BASELINE", "Comparison", "Configuration", "Group", "Run", "comparisons", "crossing", "ends",
    "energy_blocks", "energy_table", "exponent", "final_table", "interval", "looks", "markdown", "matched_groups",
    "method_rows", "number", "phase_table", "ratio", "read_runs", "rule_order", "run_table", "short",
    "speedup_table", "stores", "tuned_groups", "with_interval", "within_table", "without_dash",
    "write_summary",
]  # fmt: skip


def write_summary(groups: list[Group], output: Path) -> None:
    """Write summary.csv, a row per run, without the folders of the machine on which the runs were made."""
    run_table(groups).drop(columns="folder").to_csv(output / "summary.csv", index=False)


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def short(stat: Interval, factor: float = 1, digits: int = 3) -> str:
    """`median [low, high]`, without the brackets if they repeat the median."""
    text = with_interval(stat, factor, digits)
    middle = text.partition(" ")[0]
    return middle if text == f"{middle} [{middle}, {middle}]" else text


def ratio(row: pd.Series) -> str:
    """The speedup in a row of speedup.csv, or why there is none."""
    if math.isnan(row["median"]):
        reason = "both missed" if row["n_rule_missed"] else f"{BASELINE} missed"
        return "undecided" if row["n_pairs"] == 0 else reason
    return with_interval(Interval(row["median"], row["ci_low"], row["ci_high"]))


def without_dash(cells: list[str], column: int) -> list[str]:
    """The cells with `never` for the report's dash in this column, and nothing for it in the others."""
    return ["never" if i == column and cell == DASH else cell.replace(DASH, "") for i, cell in enumerate(cells)]
