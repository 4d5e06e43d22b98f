#!/usr/bin/env python
"""Write the generated tables of docs/results/ from the runs of scripts/reproduce.sh.

    scripts/collect.py [runs/reproduce] [docs/results]

A page has its tables between `<!-- table: NAME -->` and `<!-- end -->`. NAME is a kind of table (see KINDS), or
FOLDER/KIND on a page with several folders of runs. The runs of page PAGE are in runs/reproduce/PAGE[/FOLDER]; their
CSV files and the figures that the page links to go to docs/results/PAGE[/FOLDER]. Tables whose runs are missing stay
as they are. Below a table stands how its runs were made: command, commit, machine, threads and dates.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tables.failure import failure
from tables.savings import savings
from tables.sections import energy, standings
from tables.streams import streams
from tables.sweep import sweep
from tables.trials import trials

# What makes a kind of table: (folder of runs, folder of CSV files) -> {kind: Markdown}.
KINDS: dict[str, Callable[[Path, Path], dict[str, str]]] = {
    **dict.fromkeys(("final", "costs", "times", "targets"), sweep),
    **dict.fromkeys(("phases", "stored", "saved", "exponents"), streams),
    "standings": standings,
    "savings": savings,
    "energy": energy,
    **dict.fromkeys(("speedups", "finals"), trials),
    **dict.fromkeys(("test_accuracy", "above_backprop", "worst_class", "calibration"), failure),
}
PAGES = {path.stem for path in (Path(__file__).resolve().parent.parent / "docs" / "results").glob("*.md")}
MARKED = re.compile(r"<!-- table: ([\w/]+) -->\n.*?<!-- end -->", re.DOTALL)


def main(runs: Path = Path("runs/reproduce"), docs: Path = Path("docs/results")) -> None:
    for path in sorted(docs.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        new = fill(page, runs / path.stem, docs / path.stem)
        if new != page:
            path.write_text(new, encoding="utf-8")


def fill(page: str, runs: Path, output: Path) -> str:
    """Return the page with new tables where there are runs; write CSV files and figures."""
    made: dict[tuple[str, Callable], dict[str, str]] = {}

    def table(match: re.Match[str]) -> str:
        folder, _, kind = match[1].rpartition("/")
        source, target, make = runs / folder, output / folder, KINDS[kind]
        if not source.is_dir():
            return match[0]
        if (folder, make) not in made:
            target.mkdir(parents=True, exist_ok=True)
            made[folder, make] = make(source, target)
            for path in target.glob("*_table.csv"):  # of tables that the page does not show
                if f"<!-- table: {folder}{'/' * bool(folder)}{path.stem.removesuffix('_table')} -->" not in page:
                    path.unlink()
            copy_figures(page, target.relative_to(output.parent).as_posix(), source, target)
            print(f"{source}: tables {', '.join(made[folder, make])}")
        return f"<!-- table: {match[1]} -->\n\n{made[folder, make][kind]}\n\n{origin(source)}\n\n<!-- end -->"

    return MARKED.sub(table, page)


def origin(source: Path) -> str:
    """How the runs of a folder were made, from their run.json files."""
    facts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(source.glob("**/run.json"))]

    def named(values: list[object]) -> str:
        return ", ".join(sorted({str(value) for value in values if value not in (None, "")})) or "not recorded"

    commits = named([(run.get("git_commit") or run.get("versions", {}).get("lazyexp", ""))[:10] for run in facts])
    machines = named([run.get("device") for run in facts])
    days = sorted({session["start"][:10] for run in facts for session in run.get("sessions", [])})
    dates = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "not recorded"
    part = "rules" if "methods" in source.parts else ""
    part = part or next((name for name in source.parts if name in PAGES), "")
    return (
        f"*Made by* `scripts/reproduce.sh {part}`*; commit or version: {commits}; machine: {machines}; "
        f"threads: {named([run.get('threads') for run in facts])}; {dates}.*"
    )


def copy_figures(page: str, link: str, source: Path, target: Path) -> None:
    """Copy the figures that the page links to as `link`/NAME.png from the report of these runs or of their finals."""
    for name in re.findall(rf"\({link}/([^/)]+\.png)\)", page):
        for figure in (source / "report/figures" / name, source / "finals/report/figures" / name):
            if figure.is_file():
                shutil.copyfile(figure, target / name)
                break
        else:
            print(f"{source}: the report has no figure {name}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
