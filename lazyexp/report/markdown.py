"""The report as Markdown."""

from __future__ import annotations

import html

from lazyexp.report.blocks import Block, Details, Figures, Heading, Items, Table, Text


def to_markdown(title: str, content: list[Block]) -> str:
    """Render the blocks as GitHub's Markdown, figures by relative path, folded sections under headings."""
    return "\n\n".join([*[f"# {title}"] * bool(title), *_parts(content)]) + "\n"


def _parts(content: list[Block]) -> list[str]:
    parts = []
    for block in content:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Items):
            parts.append("\n".join(f"- {line}" for line in block.lines))
        elif isinstance(block, Table):
            rows = [block.columns, ["---"] * len(block.columns), *block.rows]
            parts.append("\n".join("| " + " | ".join(_cell(text) for text in row) + " |" for row in rows))
        elif isinstance(block, Figures):
            parts += [f"![{figure.name}](figures/{figure.name}.png)\n\n{figure.caption}" for figure in block.figures]
        elif isinstance(block, Details):
            parts += [f"## {block.summary}", *_parts(block.blocks)]
    return parts


def _cell(text: str) -> str:
    """Text that stays in its cell and is not markup: names of folders can hold anything."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
