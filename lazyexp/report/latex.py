"""Tables for a paper."""

from __future__ import annotations

import pandas as pd

from lazyexp.report.render import Table


def to_latex(table: Table) -> str:
    """The table with the rules of the package booktabs."""
    styler = pd.DataFrame(table.rows, columns=table.columns).style.hide(axis="index")
    return styler.format(escape="latex").format_index(escape="latex", axis=1).to_latex(hrules=True)
