"""Build-time hooks of the documentation: generated tables and the pages outside docs/.

A page asks for a table by `<!-- generated: NAME -->`. CONTRIBUTING.md and CHANGELOG.md become pages of the site.
"""

from __future__ import annotations

import re
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # document the checkout, not an installed version

from lazyexp.config.fields import BOUNDS, default_of, walk  # noqa: E402
from lazyexp.config.registry import DATASETS, RULES  # noqa: E402
from lazyexp.config.schema import Config  # noqa: E402
from lazyexp.runs.columns import markdown as columns  # noqa: E402
from lazyexp.training.engines import engine_table  # noqa: E402

PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are stored in the project's root."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        # Links from the root become links from docs/; the examples are one page.
        text = re.sub(r"\]\(docs/", "](", text)
        text = re.sub(r"\]\(examples/[^)]*\)", "](examples.md)", text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the generated tables."""
    return re.sub(r"<!-- generated: (\w+) -->", lambda match: TABLES[match[1]](), markdown)


def option_tables() -> str:
    """One table per group of settings."""
    groups: dict[str, list[tuple[str, Field]]] = {"General": []}
    for key, entry in walk(Config):
        if key != "rule":
            group, _, _ = key.rpartition(".")
            groups.setdefault(group or "General", []).append((key, entry))
    return "\n\n".join(
        f"## {name if name == 'General' else f'`{name}`'}\n\n{table(entries)}" for name, entries in groups.items()
    )


def rule_option_tables() -> str:
    """One table per rule with options."""
    parts = []
    for name in RULES:
        options = [(f"rule.{entry.name}", entry) for entry in fields(RULES[name])]
        text = table(options) if options else "No options."
        parts.append(f"### [`{name}`](rules.md#{name}) {{#rule-{name}}}\n\n{text}")
    return "\n\n".join(parts)


def column_table() -> str:
    """The columns of metrics.csv; names that share a row are set one by one, so that the row can wrap."""
    return re.sub(r"(?m)^\| `([^`]*)`", lambda match: f"| `{match[1].replace(', ', '`, `')}`", columns())


def dataset_table() -> str:
    """Defaults of the data sets."""
    rows = [
        f"| `{name}` | {data.epochs} | {data.eval_every:,} | {', '.join(f'{target:g}' for target in data.targets)} |"
        for name, data in DATASETS.items()
    ]
    return "\n".join(["| `dataset=` | `epochs` | `eval_every` | `targets` |", "|---|---|---|---|", *rows])


def table(entries: list[tuple[str, Field]]) -> str:
    """A row per setting: key, default, meaning with choices or bounds."""
    rows = [f"| `{key}` | `{shown(default_of(entry))}` | {meaning(entry)} |" for key, entry in entries]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def meaning(entry: Field) -> str:
    """The help text of a setting, its choices and its bounds."""
    text, choices = entry.metadata.get("help", ""), entry.metadata.get("choices")
    if choices:
        meanings = choices if isinstance(choices, dict) else dict.fromkeys(choices, "")
        listed = ", ".join(f"`{choice}` ({why})" if why else f"`{choice}`" for choice, why in meanings.items())
        text += f": {listed}"
    bounds = ", ".join(
        f"{words} {entry.metadata[name]:g}" for name, (words, _) in BOUNDS.items() if name in entry.metadata
    )
    if bounds:
        text += f" ({entry.metadata.get('wanted', bounds)})"
    # Placeholders such as train/<class> are not HTML.
    return re.sub(r"<(\w+)>", r"&lt;\1&gt;", text.strip()).replace("|", "\\|")


def shown(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, str):
        return value or '""'
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


TABLES = {
    "options": option_tables,
    "rule_options": rule_option_tables,
    "datasets": dataset_table,
    "columns": column_table,
    "engines": engine_table,
}
