"""Every page: its commands are valid, its links lead somewhere, and the site builds."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from pages import PAGES, ROOT, commands, lazyexp_commands

from lazyexp.config.compose import compose_settings, hydra_session, register
from lazyexp.config.sweeps import expand
from lazyexp.settings import checked

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
# Parts in the user's own files.
PLACEHOLDERS = ("my_", "examples.", "characters.", "lazyexp.rules.margin.", "runs/")


def valid(arguments: list[str]) -> bool:
    """Whether nothing but the page's own files decides whether the command is valid."""
    return not any(
        word.startswith(("hydra", "--")) or re.search(rf"=['\"]?({'|'.join(map(re.escape, PLACEHOLDERS))})", word)
        for word in arguments
        if not word.startswith("runs_dir=")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name, marks=[pytest.mark.slow] if "results" in name else [])
        for page, name in zip(PAGES, NAMES, strict=True)
    ],
)
def test_commands_have_valid_settings(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    register()
    for arguments in filter(valid, lazyexp_commands(page)):
        overrides = [word for word in arguments if word != "-m"]
        with hydra_session():
            jobs = expand(overrides) if "-m" in arguments else [overrides]
            for job in (jobs[0], jobs[-1]):
                checked(compose_settings(job))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_scripts_and_sweeps_exist(page):
    for words in commands(page):
        for word in words:
            if re.match(r"(scripts|tests|examples)/\S+\.(py|sh)$", word):
                assert (ROOT / word).is_file(), word
    for name in re.findall(r"sweep=([a-z_]+)\b", page.read_text(encoding="utf-8")):
        assert (ROOT / "conf" / "sweep" / f"{name}.yaml").is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text(encoding="utf-8")):
        path = page.parent / link
        generated = ROOT / path.resolve().relative_to(ROOT).as_posix().replace("docs/", "", 1).upper()
        assert path.exists() or generated.with_suffix(".md").exists(), link


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "site" / "index.html").is_file()
