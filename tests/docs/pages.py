"""The project's pages, for the tests beside this file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code(page: Path, language: str) -> list[str]:
    """The page's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command in the page's shell blocks; loops are left out."""
    for block in code(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line and not line.startswith((" ", "#", "for ", "done")):
                yield shlex.split(line, comments=True)


def lazyexp_commands(page: Path) -> list[list[str]]:
    """The arguments of the page's `lazyexp` commands that train."""
    return [words[1:] for words in commands(page) if words and words[0] == "lazyexp" and "--help" not in words]
