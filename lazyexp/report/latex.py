"""Tables for a paper."""

from __future__ import annotations

from lazyexp.report.blocks import Table

ESCAPED = {
    "\\": r"\textbackslash ", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde ", "^": r"\textasciicircum ", "–": "--", "−": "$-$",
}  # fmt: skip


def to_latex(table: Table) -> str:
    """The table with the lines of the package booktabs."""
    head, *rows = [" & ".join(map(_escape, row)) + r" \\" for row in (table.columns, *table.rows)]
    lines = [rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}", r"\toprule", head, r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _escape(text: str) -> str:
    return "".join(ESCAPED.get(character, character) for character in text)
