"""Blocks of text, tables and figures as one self-contained HTML page and as Markdown."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from pathlib import Path

from lazyexp.report.style import Drawn

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --soft: #444; --line: #ddd; --head: #f4f4f4;
  --miss: #fdecea; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181b; --soft: #b5b5b5; --line: #3a3d42;
  --head: #24272c; --miss: #54201b; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { background: var(--head); } td.miss { background: var(--miss); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-size: .85rem; color: var(--soft); }
figure img { width: 100%; height: auto; background: #fff; border-radius: 4px; }
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="icon" href="data:,"><style>{style}</style></head>
<body>
{body}
</body></html>
"""


@dataclass
class Heading:
    text: str


@dataclass
class Text:
    text: str


@dataclass
class Items:
    """Lines that belong together; the first one leads."""

    lines: list[str]


@dataclass
class Table:
    columns: list[str]
    rows: list[list[str]]


@dataclass
class Figures:
    drawn: list[Drawn]


Block = Heading | Text | Items | Table | Figures


def to_markdown(title: str, content: list[Block]) -> str:
    """The blocks as GitHub's Markdown, figures by relative path."""
    parts = [f"# {title}"]
    for block in content:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Items):
            parts.append(
                "\n".join(block.lines[:1] + [f"- {line}" for line in block.lines[1:]]).replace("\n", "\n\n", 1)
            )
        elif isinstance(block, Table):
            rows = [block.columns, ["---"] * len(block.columns), *block.rows]
            parts.append("\n".join("| " + " | ".join(_cell(text) for text in row) + " |" for row in rows))
        else:
            parts += [f"![{figure.name}](figures/{figure.name}.png)\n\n{figure.caption}" for figure in block.drawn]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    """Text that stays in its cell, and is text: names of folders can hold anything."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def to_html(title: str, content: list[Block], figures: Path) -> str:
    """The blocks as a page that needs nothing but itself: images are data URIs."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for block in content:
        if isinstance(block, Heading):
            parts.append(f"<h2>{html.escape(block.text)}</h2>")
        elif isinstance(block, Text):
            parts.append(f"<p>{_html_text(block.text)}</p>")
        elif isinstance(block, Items):
            items = "".join(f"<li>{_html_text(line)}</li>" for line in block.lines[1:])
            parts.append(f"<p>{_html_text(block.lines[0])}</p><ul>{items}</ul>")
        elif isinstance(block, Table):
            parts.append(_html_table(block))
        else:
            parts.append(
                f'<div class="figures">{"".join(_html_figure(figure, figures) for figure in block.drawn)}</div>'
            )
    return PAGE.format(title=html.escape(title), style=STYLE, body="\n".join(parts))


def _html_text(text: str) -> str:
    pieces = html.escape(text).split("`")  # odd ones are code
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in table.columns)
    missed = [i for i, column in enumerate(table.columns) if column.endswith(" missed")]
    rows = []
    for row in table.rows:
        marks = [' class="miss"' if i in missed and cell not in ("", "0") else "" for i, cell in enumerate(row)]
        cells = "".join(f"<td{mark}>{html.escape(cell)}</td>" for mark, cell in zip(marks, row, strict=True))
        rows.append(f"<tr>{cells}</tr>")
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _html_figure(figure: Drawn, folder: Path) -> str:
    image = base64.b64encode((folder / f"{figure.name}.png").read_bytes()).decode()
    caption = html.escape(figure.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{image}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
