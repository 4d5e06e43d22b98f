"""The report as one HTML page that opens offline: images and style are inside it, without scripts.

Links to the CSV and PDF files of the figures are relative to the page.
"""

from __future__ import annotations

import base64
import html
from functools import cache
from pathlib import Path

from lazyexp.report.blocks import Block, Figure, Figures, Heading, Items, Table, Text

LONG = 40  # characters from which the text of a cell is wrapped
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><style>{style}</style></head>
<body>
{body}
</body></html>
"""


def to_html(title: str, content: list[Block], figures: Path) -> str:
    """Render the blocks; `figures` is the folder of the images."""
    parts = [f"<h1>{html.escape(title)}</h1>", *(_block(block, figures) for block in content)]
    return PAGE.format(title=html.escape(title), style=style(), body="\n".join(parts))


@cache
def style() -> str:
    """The page's style sheet."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def _block(block: Block, figures: Path) -> str:
    if isinstance(block, Heading):
        return f"<h2>{html.escape(block.text)}</h2>"
    if isinstance(block, Text):
        return f"<p{' class=run' * block.soft}>{_text(block.text)}</p>"
    if isinstance(block, Items):
        if len(block.lines) == 1:
            return f'<p class="answer">{_text(block.lines[0])}</p>'
        return f'<ul class="answer">{"".join(f"<li>{_text(line)}</li>" for line in block.lines)}</ul>'
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figures):
        return f'<div class="figures">{"".join(_figure(figure, figures) for figure in block.figures)}</div>'
    inside = "\n".join(_block(part, figures) for part in block.blocks)
    return f"<details><summary>{html.escape(block.summary)}</summary>\n{inside}\n</details>"


def _text(text: str) -> str:
    pieces = html.escape(text).split("`")  # those at odd positions are code
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    rows = []
    for row in table.rows:
        cells = (f"<td{' class=long' * (len(cell) > LONG)}>{html.escape(cell)}</td>" for cell in row)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _figure(figure: Figure, folder: Path) -> str:
    """An image that a click or the space bar enlarges, with links to its data."""
    image = base64.b64encode((folder / f"{figure.name}.png").read_bytes()).decode()
    caption = html.escape(figure.caption)
    links = " ".join(
        f'<a href="{folder.name}/{figure.name}.{kind}">{kind.upper()}</a>' for kind in ("csv", "pdf", "png")
    )
    zoom = '<label><input type="checkbox" aria-label="enlarge">'
    zoom += f'<img alt="{caption}" src="data:image/png;base64,{image}">'
    wide = ' class="wide"' if figure.wide else ""
    return f"<figure{wide}>{zoom}</label><figcaption>{caption} {links}</figcaption></figure>"
