"""Prose is plain English: no word of the glossary's left column in docstrings, comments, messages, help and pages.

Of identifiers, the names of functions and classes are checked, tests included. Strings of one word are keys.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
from pages import ROOT

WORDS = (
    r"who|whoever|everybody|nobody|somebody|anybody|brought along|told|mend(?:ed|s|ing)?|"
    r"judg(?:e|ed|es|ing|ements?)|visit(?:ed|s)?|weighs|sleep(?:s|ing|er|ers)?|asleep|awake|"
    r"of (?:ours|one's own)|left alone|stands? in|goes on|go on|is believed|opponents?|rivals?|the doors?|"
    r"arena|races?|story|learners?|peers?|watcher|surely|said|spoken|robbed|buried|in the midst"
)
FORBIDDEN = re.compile(rf"\b(?:{WORDS})\b", re.IGNORECASE)
# Phrases in which a word is meant as usual.
ALLOWED = re.compile(r"race conditions?|data races?|stands? in for|time\.sleep\(|\bsleep\(|sleep \d", re.IGNORECASE)
ALLOWED_NAMES = {"QueueWatcher"}  # submitit's word
IDENTIFIER = re.compile(r"""[rbfRBF]*(["'])[\w.]*\1""")  # a key, not prose
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".sh", ".toml", ".cff", ".ipynb"}
FOLDERS = ("lazyexp", "conf", "scripts", "tests", "examples", "docs", ".github", ".ci")
FILES = ("README.md", "CONTRIBUTING.md", "pyproject.toml", "CITATION.cff", "mkdocs.yml", "CHANGELOG.md")
# Whole files that are exempt, with the reason.
EXEMPT = {
    "tests/docs/test_language.py": "lists the words",
    "CHANGELOG.md": "names what older versions had",
    "docs/results/index.md": "explains former names in CSV files",
    "mkdocs.yml": "name of the logo",
}


def pages() -> list[Path]:
    found = [ROOT / name for name in FILES if (ROOT / name).exists()]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def prose(path: Path) -> list[tuple[int, str]]:
    """The numbered lines of a page, or of the comments and strings of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return [
        (token.start[0] + offset, line)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in kinds
        if not IDENTIFIER.fullmatch(token.string)
        for offset, line in enumerate(PLACEHOLDER.sub("", token.string).splitlines())
    ]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_prose_is_plain(path):
    if path.relative_to(ROOT).as_posix() in EXEMPT:
        pytest.skip(EXEMPT[path.relative_to(ROOT).as_posix()])
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:140]}"
        for number, line in prose(path)
        if FORBIDDEN.search(ALLOWED.sub("", line))
    ]
    assert not hits, "\n".join(hits)


def test_names_are_plain():
    hits = []
    for path in pages():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")) if path.suffix == ".py" else ast.Module([])):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in ALLOWED_NAMES:
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", node.name).replace("_", " ")
                hits += [f"{path.relative_to(ROOT)}: {node.name}"] * bool(FORBIDDEN.search(words))
    assert not hits, "\n".join(hits)


def test_exempt_files_exist():
    assert all((ROOT / name).exists() for name in EXEMPT)


@pytest.mark.parametrize(
    "line, found",
    [
        ("Everybody learns.", True),
        ("the samples that sleep", True),
        ("a race condition", False),
        ("whole weights", False),
        ("a race", True),
    ],
)
def test_words_are_found(line, found):
    assert bool(FORBIDDEN.search(ALLOWED.sub("", line))) == found
