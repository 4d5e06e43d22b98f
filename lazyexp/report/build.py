"""Read runs and write their report: tables, figures and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lazyexp.errors import UserError
from lazyexp.report import BASELINE, MAX_GROUPS
from lazyexp.report.comparisons import Comparison, comparisons, time_table, within_table
from lazyexp.report.curves import error_curves, forgetting, presented_share, selected_share, time_to_target
from lazyexp.report.energy import energy_table
from lazyexp.report.folders import is_run
from lazyexp.report.formatting import count
from lazyexp.report.groups import label_rules, matched_groups, tuned_groups
from lazyexp.report.headline import Headline, headlines
from lazyexp.report.html import to_html
from lazyexp.report.latex import to_latex
from lazyexp.report.markdown import to_markdown
from lazyexp.report.page import Content, blocks
from lazyexp.report.pareto_figure import pareto_figure
from lazyexp.report.prediction import COST_RATIO, predicted_speedup
from lazyexp.report.prediction_figure import DRAWN, prediction_figure
from lazyexp.report.read import Run, RunSet, read_runs
from lazyexp.report.sample_figures import histograms, sample_figures, trained_runs
from lazyexp.report.scaling_figures import scaling_figures
from lazyexp.report.sections import final
from lazyexp.report.select import select, selectable
from lazyexp.report.speedup_figure import speedup_figures
from lazyexp.report.stream_figures import accuracy_against_stored, stream_figures
from lazyexp.report.streams import in_phases, phase_table
from lazyexp.report.style import FigureFolder
from lazyexp.report.swept_figure import swept_figures
from lazyexp.report.tables import run_table, speedup_table
from lazyexp.report.terminal import first_screen
from lazyexp.utils.files import write_text
from lazyexp.utils.terminal import log

FOLDER = "report"  # within the first of the given folders
BARS = ("train_seconds",)  # the measures with bars; the tables have all
COSTS = {"matched": ("train_seconds", "forward_samples", "updates", "energy_l1"), "tuned": ("train_seconds",)}


@dataclass(frozen=True)
class MadeReport:
    """A report on disk: the path of report.html, and the main result of every comparison."""

    page: Path
    headlines: list[Headline]

    def text(self) -> str:
        """The report's sentences and first table, for the terminal."""
        return first_screen(self.headlines)


def write_report(
    folders: Sequence[Path],
    out: Path | None = None,
    max_groups: int = MAX_GROUPS,
    where: Sequence[str] = (),
    baseline: str = BASELINE,
    cost_ratio: float | None = None,
) -> Path:
    """As `make_report`. Returns the path of report.html."""
    return make_report(folders, out, max_groups, where, baseline, cost_ratio).page


def make_report(
    folders: Sequence[Path],
    out: Path | None = None,
    max_groups: int = MAX_GROUPS,
    where: Sequence[str] = (),
    baseline: str = BASELINE,
    cost_ratio: float | None = None,
) -> MadeReport:
    """Read the runs below `folders` and write the report. Raises UserError.

    Args:
        folders: folders with runs at any depth, or run folders themselves.
        out: output folder; by default `report/` in the first of the folders that exists, or beside it if it is a run.
        max_groups: curves are drawn for the first so many groups of each protocol; tables have all groups.
        where: conditions on settings such as `"rule=lazy,backprop"`.
        baseline: the rule that the others are compared with.
        cost_ratio: cost of a backward pass and its step relative to a forward pass, for the prediction from a
            backprop run; None: 2, by counting products.
    """
    if cost_ratio is not None and not 0 < cost_ratio < math.inf:
        raise UserError(f"--cost-ratio {cost_ratio:g}: must be a number greater than 0")
    found = read_runs(folders)
    if not found.runs:
        reasons = "; ".join(f"{path}: {why}" for path, why in found.broken[:3]) or "no folder holds metrics.csv"
        raise UserError(
            f"no readable run below {', '.join(map(str, folders))} ({reasons}); "
            "name the folder that runs were written to (runs_dir), or start some with lazyexp"
        )
    found.runs = select(found.runs, where, _selectable)
    if baseline != BASELINE and baseline not in (rules := set(label_rules(found.runs).values())):
        raise UserError(f"--baseline {baseline}: no such rule among the runs; there are {', '.join(sorted(rules))}")
    log(f"making the report of {count(len(found.runs), 'run')}")
    out = report_folder(folders) if out is None else out
    if is_run(out):
        raise UserError(f"--out {out}: is a run's folder, whose files would be overwritten; name another one")
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(found, out, max_groups, baseline, cost_ratio)
    except OSError as error:
        raise UserError(
            f"cannot write into {out}: {error.strerror or error}; name another folder with --out"
        ) from None


def report_folder(folders: Sequence[Path]) -> Path:
    """`report/` in the first folder that exists, or beside it if it is a run."""
    top = next(folder for folder in folders if folder.is_dir()).resolve()
    while is_run(top):
        top = top.parent
    return top / FOLDER


def _selectable(run: Run) -> dict[str, object]:
    return selectable(run.rule, run.options, run.seed, run.status, run.settings)


def _write(found: RunSet, out: Path, max_groups: int, baseline: str, cost_ratio: float | None) -> MadeReport:
    matched, tuned = matched_groups(found.runs, baseline), tuned_groups(found.runs, baseline)
    groups = matched + tuned
    speedups = speedup_table(groups)
    write_text(out / "speedup.csv", speedups.drop(columns="rule_label").to_csv(index=False))
    write_text(out / "runs.csv", run_table(groups).to_csv(index=False))
    compared = comparisons(found.runs, baseline)
    times = time_table(compared)
    write_text(out / "pareto.csv", times.to_csv(index=False))
    write_text(out / "within.csv", within_table(compared).to_csv(index=False))
    energies = energy_table(found.runs, baseline)
    if len(energies):
        write_text(out / "energy.csv", energies.to_csv(index=False))
    content = Content(
        found,
        baseline,
        groups,
        headlines(matched, compared, speedups, cost_ratio),
        speedups,
        compared,
        times,
        energies,
    )
    folder = FigureFolder(
        out / "figures", [run.rule for run in found.runs], label_rules(found.runs).values(), baseline
    )
    _draw(content, folder, max_groups)
    phases = phase_table(matched)
    if len(phases):
        write_text(out / "phases.csv", phases.to_csv(index=False))
    content.figures, content.notes = folder.figures, folder.notes
    write_text(out / "summary.tex", to_latex(final(groups)))
    page = blocks(content)
    title = f"{out.resolve().parent.name}: {', '.join(matched[0].rules) if len(matched[0].rules) <= 3 else 'report'}"
    write_text(out / "report.md", to_markdown(title, page))
    write_text(out / "report.html", to_html(title, page, folder.folder))
    return MadeReport(out / "report.html", content.headlines)


def _draw(content: Content, folder: FigureFolder, max_groups: int) -> None:
    """The headline's figure first, then those of comparisons and groups, the ones with several rules first."""
    swept_figures(content.headlines, folder, max_groups)
    drawn: set[object] = set()
    for one in content.headlines[:max_groups]:
        drawn.add(one.source)
        _headline_figure(one, folder)
    _prediction_figure(content.headlines[:max_groups], folder)
    for comparison in content.comparisons[:max_groups]:
        if comparison not in drawn:
            pareto_figure(comparison, folder)
    for protocol, costs in COSTS.items():
        groups = [group for group in content.groups if group.protocol == protocol]
        if not groups:
            continue
        for measure in BARS:
            speedup_figures(content.speedups, groups, folder, measure)
        several = [group for group in groups if len(group.rules) > 1] or groups
        for group in several[:max_groups]:
            for cost in costs:
                if group not in drawn or cost != "train_seconds":
                    error_curves(group, folder, cost)
            time_to_target(group, folder)
            if protocol == "matched":
                selected_share(group, folder)
                if not any(in_phases(run) for run in group.runs):
                    presented_share(group, folder)
        if protocol == "matched" and several[:max_groups]:
            forgetting(several[0], folder)
            histograms(several[0], folder)
        if len(several) > max_groups:
            shown = min(max_groups, len(several))
            folder.note(f"Curves are drawn for {shown} of {len(groups)} {protocol} groups (--max-groups).")
    matched = [group for group in content.groups if group.protocol == "matched"]
    stream_figures(matched[:max_groups], folder)
    accuracy_against_stored(content.found.runs, folder, max_groups)
    scaling_figures(content.found.runs, folder, max_groups)
    for data in sorted({str(run.settings["dataset.name"]) for run in content.found.runs}):
        runs = [run for run in content.found.runs if run.settings["dataset.name"] == data]
        sample_figures(trained_runs(runs, content.baseline), folder)


def _headline_figure(one: Headline, folder: FigureFolder) -> None:
    target = one.accuracies.get(one.target)
    if isinstance(one.source, Comparison):
        pareto_figure(one.source, folder, target)
    else:
        error_curves(one.source, folder, "train_seconds", target, wide=True)


def _prediction_figure(found: list[Headline], folder: FigureFolder) -> None:
    """What a lazy rule could save, where only backprop was run."""
    alone = [one for one in found if one.baseline == BASELINE and one.has_baseline and not one.competitors]
    ratio = (alone[0].cost_ratio if alone else None) or COST_RATIO
    shares = [(one.name, one.outcomes[0].mistakes) for one in alone]
    points = [(name, share, predicted_speedup(share, ratio)) for name, share in shares if not math.isnan(share)]
    if points:
        prediction_figure(folder, points, sorted({*DRAWN, ratio}))
