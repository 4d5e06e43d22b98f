"""The command `lazyexp-report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lazyexp.errors import UserError
from lazyexp.report import BASELINE, MAX_GROUPS

EPILOG = """examples:
  lazyexp-report runs/headline                     report on all runs below runs/headline, in runs/headline/report/
  lazyexp-report runs --where rule=lazy,backprop --where model.width=1000
  lazyexp-report runs --baseline lazy              compare every rule with lazy instead of backprop
  lazyexp-report runs/backprop --cost-ratio 3.6    what a lazy rule could save at most, from a backprop run alone
  lazyexp-report runs --list                       status, accuracy and seconds of every run, also while they run
  lazyexp-report laptop/runs server/runs --out all runs on different machines are not compared with each other

files written: report.html (the entry; opens offline), report.md, speedup.csv (along the curve), pareto.csv and
within.csv (at the end of a schedule), energy.csv (if synapses were chosen), runs.csv (one row per run),
summary.tex (booktabs), figures/*.png, *.pdf and *.csv.
Runs that are still running or damaged are listed and never stop the report.
exit codes: 0 done, 2 user error (one line says what to do)
"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    command = argparse.ArgumentParser(
        prog="lazyexp-report",
        description="Tables, speedups over a baseline with intervals, and figures, from the runs below some folders.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folder with runs, at any depth")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="output folder (default: report/ in the first FOLDER)"
    )
    command.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this setting, rule, seed or status; several values with commas; may be repeated",
    )
    command.add_argument(
        "--baseline", default=BASELINE, metavar="RULE", help=f"rule to compare with (default: {BASELINE})"
    )
    command.add_argument(
        "--cost-ratio",
        type=float,
        metavar="R",
        help="cost of a backward pass and its step relative to a forward pass, for what a lazy rule could save "
        "according to a backprop run (default: 2, by counting products; measured by scripts/bench/paper_loop.py)",
    )
    command.add_argument("--list", action="store_true", help="list the runs and write nothing")
    command.add_argument(
        "--max-groups",
        type=int,
        default=MAX_GROUPS,
        metavar="N",
        help=f"draw curves for at most N groups (default: {MAX_GROUPS}); tables have all groups",
    )
    return command


def main() -> None:
    """Entry point; exits with 0 or 2 (user error)."""
    arguments = parser().parse_args()
    try:
        if arguments.list:
            from lazyexp.report.listing import list_runs

            print(list_runs(arguments.folders, arguments.where))
            return
        from lazyexp.report.build import write_report  # imported late: matplotlib takes a second

        page = write_report(
            arguments.folders,
            arguments.out,
            arguments.max_groups,
            arguments.where,
            arguments.baseline,
            arguments.cost_ratio,
        )
    except UserError as error:
        print(f"lazyexp: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    print(page)


if __name__ == "__main__":
    main()
