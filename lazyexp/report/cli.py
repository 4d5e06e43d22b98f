"""The command `lazyexp-report`: tables, speedups and figures from finished and half-finished runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from lazyexp.errors import UserError
from lazyexp.report.bars import speedup_bars
from lazyexp.report.figures import curves, forgetting, share_awake, share_learning, time_to_target
from lazyexp.report.groups import Group, label_rules, matched_groups, tuned_groups
from lazyexp.report.latex import to_latex
from lazyexp.report.page import blocks, final
from lazyexp.report.pareto import pareto
from lazyexp.report.pictures import histograms, image_run, images
from lazyexp.report.races import races, time_table, within_table
from lazyexp.report.read import Found, is_run, read_runs
from lazyexp.report.render import to_html, to_markdown
from lazyexp.report.style import Sheet
from lazyexp.report.synapses import energy_table
from lazyexp.report.tables import run_table, speedup_table
from lazyexp.utils.files import write_text

TITLE = "lazyexp report"
BARS = ("train_seconds",)  # the measures of which there are bars; the tables have all
COSTS = {"matched": ("train_seconds", "forward_samples", "updates", "energy_l1"), "tuned": ("train_seconds",)}
EPILOG = """examples:
  lazyexp-report runs                              report on all runs below runs/, written into runs/
  lazyexp-report runs/headline --out paper         the same, written into paper/
  lazyexp-report laptop/runs server/runs --out all several folders; runs on different machines are not compared

files written: report.html (one page, opens offline), report.md, speedup.csv, fronts.csv and within.csv (accuracy
against time), energy.csv (at equal accuracy, where synapses are chosen), summary.csv (one row per run), summary.tex
(booktabs), figures/*.png, *.pdf and *.csv.
Runs that are going on, torn or broken are named and do no harm.
exit codes: 0 done, 2 something to mend (one line says what)
"""


def write_report(folders: list[Path], out: Path | None = None, max_groups: int = 3) -> Path:
    """Reads the runs below `folders` and writes the report. Returns the path of report.html. Raises UserError.

    Without `out` it goes into the first of the folders that exists, or, where that is a run's own, beside it.
    Curves are drawn for the first `max_groups` groups of each protocol; tables have them all.
    """
    found = read_runs(folders)
    if not found.runs:
        reasons = "; ".join(f"{path}: {why}" for path, why in found.broken[:3]) or "no folder holds metrics.csv"
        raise UserError(
            f"no readable run below {', '.join(map(str, folders))} ({reasons}); "
            "name the folder that runs were written to (runs_dir), or make some with lazyexp"
        )
    out = _place(folders) if out is None else out
    if is_run(out):
        raise UserError(f"--out {out}: is a run's own folder, whose files would be overwritten; name another")
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(found, out, max_groups)
    except OSError as error:
        raise UserError(
            f"cannot write into {out}: {error.strerror or error}; name another folder with --out"
        ) from None


def _place(folders: list[Path]) -> Path:
    place = next(folder for folder in folders if folder.is_dir()).resolve()
    while is_run(place):
        place = place.parent
    return place


def _write(found: Found, out: Path, max_groups: int) -> Path:
    matched, tuned = matched_groups(found.runs), tuned_groups(found.runs)
    groups = matched + tuned
    speedups = speedup_table(groups)
    write_text(out / "speedup.csv", speedups.drop(columns="rule_label").to_csv(index=False))
    write_text(out / "summary.csv", run_table(groups).to_csv(index=False))
    competed = races(found.runs)
    times = time_table(competed)
    write_text(out / "fronts.csv", times.to_csv(index=False))
    write_text(out / "within.csv", within_table(competed).to_csv(index=False))
    sheet = Sheet(out / "figures", [run.rule for run in found.runs], list(label_rules(found.runs).values()))
    for race in competed[:max_groups]:
        pareto(race, sheet)
    notes = []
    crowded = sum(run.concurrent for run in found.runs)
    if crowded:
        notes.append(f"{crowded} of the runs went on beside others on their machine: do not compare their seconds.")
    for some in (matched, tuned):
        if some:
            drawn = _draw(some, speedups, sheet, max_groups)
            if drawn < len(some):
                notes.append(f"curves are drawn for {drawn} of {len(some)} {some[0].protocol} groups (--max-groups).")
    for data in sorted({str(run.settings["dataset.name"]) for run in found.runs}):
        shown = image_run([run for run in found.runs if run.settings["dataset.name"] == data])
        if shown:
            images(shown, sheet)
    notes += sheet.remarks
    energies = energy_table(found.runs)
    if len(energies):
        write_text(out / "energy.csv", energies.to_csv(index=False))
    content = blocks(found, groups, speedups, competed, times, energies, sheet.drawn, notes)
    write_text(out / "summary.tex", to_latex(final(groups)))
    write_text(out / "report.md", to_markdown(TITLE, content))
    page = out / "report.html"
    write_text(page, to_html(TITLE, content, sheet.folder))
    return page


def _draw(groups: list[Group], speedups: pd.DataFrame, sheet: Sheet, max_groups: int) -> int:
    """Bars of all groups and the curves of some, those first in which rules meet. Returns how many."""
    worth = [group for group in groups if len(group.rules) > 1] or groups
    for measure in BARS:
        speedup_bars(speedups, groups, sheet, measure)
    for group in worth[:max_groups]:
        for x in COSTS[group.protocol]:
            curves(group, sheet, x)
        time_to_target(group, sheet)
        if group.protocol == "matched":
            share_learning(group, sheet)
            share_awake(group, sheet)
    for group in [group for group in worth if group.protocol == "matched"][:1]:
        forgetting(group, sheet)
        histograms(group, sheet)
    return len(worth[:max_groups])


def main() -> None:
    """Entry point; exits with 0 or 2 (user error)."""
    parser = argparse.ArgumentParser(
        prog="lazyexp-report",
        description="Tables, speedups over backprop with intervals, and figures, from the runs below some folders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder with runs, at any depth")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the first DIR)")
    parser.add_argument(
        "--max-groups", type=int, default=3, metavar="N", help="draw curves for at most N groups (default: 3)"
    )
    arguments = parser.parse_args()
    try:
        page = write_report(arguments.folders, arguments.out, arguments.max_groups)
    except UserError as error:
        print(f"lazyexp: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    print(page)


if __name__ == "__main__":
    main()
