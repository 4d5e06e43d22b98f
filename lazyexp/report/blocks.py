"""The content of a report as blocks of text, tables and figures, rendered by `html` and `markdown`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lazyexp.report.formatting import DASH


@dataclass(frozen=True)
class Figure:
    """A figure in the report's folder of figures: the file name without its suffix, and its caption."""

    name: str
    caption: str
    wide: bool = False


@dataclass
class Heading:
    """A heading."""

    text: str


@dataclass
class Text:
    """A paragraph; text between backticks is code. `soft`: of less weight."""

    text: str
    soft: bool = False


@dataclass
class Items:
    """A list of sentences."""

    lines: list[str]


@dataclass
class Table:
    """A table with its columns and rows of text."""

    columns: list[str]
    rows: list[list[str]]

    def compact(self) -> list[Block]:
        """The table without empty columns, and with columns of one constant value as a line of text."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.columns)
        names = [" ".join(name.split()) for name in self.columns]
        missed = [i for i, cells in enumerate(columns) if cells and set(cells) == {DASH}]
        constant = [
            i
            for i, cells in enumerate(columns)
            if len(cells) > 2 and len(set(cells)) == 1 and cells[0] and i not in missed
        ]
        kept = [i for i, cells in enumerate(columns) if i not in (*constant, *missed) and any(cells)]
        same = "; ".join([*(f"{names[i]} {columns[i][0]}" for i in constant), *(f"{names[i]} never" for i in missed)])
        rows = [[row[i] for i in kept] for row in self.rows]
        return [
            Table([self.columns[i] for i in kept], rows),
            *[Text(f"In all rows: {same}.", soft=True)] * bool(same),
        ]


@dataclass
class Figures:
    """Figures side by side."""

    figures: list[Figure]


@dataclass
class Details:
    """A section that is folded at first."""

    summary: str
    blocks: list[Block] = field(default_factory=list)


Block = Heading | Text | Items | Table | Figures | Details
