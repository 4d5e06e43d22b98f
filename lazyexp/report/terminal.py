"""The first screen of the report as text for a terminal: the sentences and the main table."""

from __future__ import annotations

import shutil

from lazyexp.report.blocks import Table
from lazyexp.report.formatting import target_name
from lazyexp.report.headline import Headline
from lazyexp.report.main_table import main_table
from lazyexp.report.summary import lead, sentences

SENTENCES = 6
ROWS = 20


def first_screen(found: list[Headline], width: int | None = None) -> str:
    """The sentences on the comparisons and the main table, in at most `width` columns (default: the terminal's)."""
    width = shutil.get_terminal_size().columns if width is None else width
    lines = [lead(found), *sentences(found)[:SENTENCES]]
    text = [line.replace("`", "") for line in lines if line]
    table = main_table(found).compact()[0]
    assert isinstance(table, Table)
    goals = {f"to\n{target_name(one.target)}\n(s)" for one in found}
    return "\n".join([*text, "", *_fitting(table, width, goals), ""])


def _fitting(table: Table, width: int, goals: set[str]) -> list[str]:
    """The lines of a table; if it is too wide, columns of times to targets are left out, those of `goals` last."""
    kept = list(range(len(table.columns)))
    optional = [i for i in kept if table.columns[i].startswith("to\n")]
    optional.sort(key=lambda i: table.columns[i] in goals)
    while sum(_widths(table)[i] + 2 for i in kept) - 2 > width and optional:
        kept.remove(optional.pop(0))
    headings = [table.columns[i].split("\n") for i in kept]
    height = max(map(len, headings))
    head = [[words[line] if line < len(words) else "" for words in headings] for line in range(height)]
    rows = [[row[i] for i in kept] for row in table.rows[:ROWS]]
    widths = [_widths(table)[i] for i in kept]
    lines = [_line(cells, widths) for cells in [*head, *rows]]
    more = len(table.rows) - len(rows)
    return [*lines, *[f"{more} more rows in the report"] * bool(more)]


def _widths(table: Table) -> list[int]:
    cells = [[*heading.split("\n"), *column] for heading, *column in zip(table.columns, *table.rows, strict=True)]
    return [max(map(len, column)) for column in cells]


def _line(cells: list[str], widths: list[int]) -> str:
    """The first column to the left, the others to the right."""
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]).rstrip()
