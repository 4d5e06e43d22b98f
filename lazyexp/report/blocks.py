"""The content of a report as blocks of text, tables and figures, rendered by `html` and `markdown`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A figure in the report's folder of figures: the file name without its suffix, and its caption."""

    name: str
    caption: str
    wide: bool = False


@dataclass
class Heading:
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
    columns: list[str]
    rows: list[list[str]]

    def compact(self) -> list[Block]:
        """The table without empty columns, and with columns of one constant value as a line of text."""
        columns = list(zip(*self.rows, strict=True)) if self.rows else [()] * len(self.columns)
        constant = [i for i, cells in enumerate(columns) if len(cells) > 2 and len(set(cells)) == 1 and cells[0]]
        kept = [i for i, cells in enumerate(columns) if i not in constant and any(cells)]
        same = "; ".join(f"{self.columns[i]} {columns[i][0]}" for i in constant)
        rows = [[row[i] for i in kept] for row in self.rows]
        return [*[Text(f"In all rows: {same}.")] * bool(same), Table([self.columns[i] for i in kept], rows)]


@dataclass
class Figures:
    figures: list[Figure]


@dataclass
class Details:
    """A section that is folded at first."""

    summary: str
    blocks: list[Block] = field(default_factory=list)


Block = Heading | Text | Items | Table | Figures | Details
