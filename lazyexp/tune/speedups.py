"""Speedups over backprop at equal validation lines, with intervals over searches and seeds.

The seconds of a rule at a line: the median over its searches of the median over the seeds of that search's chosen
setting. A search of a rule without a trial that reaches the line, and a run that diverged, count as infinitely slow.
Settings were chosen by validation accuracy; seconds and test accuracy are those of the finals.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from lazyexp.report import BASELINE
from lazyexp.report.intervals import NESTED, nested_interval
from lazyexp.tune.lines import PRIMARY

COLUMNS = ["margin", "kind", "rule", "searches", "reached", "seeds", "seconds", "baseline_seconds", "speedup"]
COLUMNS += ["speedup_low", "speedup_high", "interval", "test_accuracy", "behind", "behind_low", "behind_high"]


def speedups(chosen: pd.DataFrame, finals: pd.DataFrame) -> pd.DataFrame:
    """A row per line and rule, from the tables chosen.csv and finals.csv.

    `searches`, `reached`: number of searches, and of those with a trial at the line. `behind`: percentage points of
    test accuracy below backprop's settings at the same line, over the searches that have one. A line at which no
    final of backprop has ended is dropped.
    """
    rows = []
    for margin, at_line in chosen.groupby("margin", sort=False):
        rules = {str(rule): _runs(some, finals) for rule, some in at_line.groupby("rule", sort=False)}
        baseline = rules.get(BASELINE, [])
        if not any(np.isfinite(seconds).any() for seconds, _ in baseline):
            continue
        for rule, runs in rules.items():
            if runs:
                row = {"margin": margin, "kind": "primary" if margin == PRIMARY else "exploratory", "rule": rule}
                row["reached"] = int(at_line.loc[at_line["rule"] == rule, "reaches"].sum())
                rows.append(row | _row(baseline, runs, rule == BASELINE))
    return pd.DataFrame(rows, columns=COLUMNS).sort_values("margin", key=_primary_first, kind="stable")


Runs = list[tuple[np.ndarray, np.ndarray]]


def _runs(searches: pd.DataFrame, finals: pd.DataFrame) -> Runs:
    """For each search (seeds,) seconds and test accuracies; infinite and NaN if no trial reached the line."""
    found = []
    for _, search in searches.iterrows():
        if pd.isna(search["point"]):
            found.append((np.array([math.inf]), np.array([math.nan])))
            continue
        runs = finals[finals["point"] == search["point"]]
        lost = runs["status"] == "diverged"
        if search["rule"] != BASELINE:
            lost |= runs["selects_all"].astype(bool)  # backprop, and not the rule
        if len(runs):
            accuracy = runs["test_accuracy"].mask(runs["status"] == "diverged", 0.0)
            found.append((runs["train_seconds"].mask(lost, math.inf).to_numpy(float), accuracy.to_numpy(float)))
    return found


def _row(baseline: Runs, runs: Runs, same: bool) -> dict[str, object]:
    seconds = [one for one, _ in runs]
    accuracy = [one for _, one in runs if not np.isnan(one).all()]
    row: dict[str, object] = {"searches": len(runs)}
    row["seeds"] = min((len(one) for one in accuracy), default=0)
    row["seconds"] = np.median([np.median(one) for one in seconds])
    row["baseline_seconds"] = np.median([np.median(one) for one, _ in baseline])
    if accuracy:
        row["test_accuracy"] = np.median([np.median(one) for one in accuracy])
    if same:
        return row
    stat, row["interval"] = nested_interval([one for one, _ in baseline], seconds, lambda base, own: base / own)
    row |= {"speedup": stat.median, "speedup_low": stat.low, "speedup_high": stat.high}
    if accuracy:
        others = [one for _, one in baseline if not np.isnan(one).all()]
        stat, _ = nested_interval(others, accuracy, lambda base, own: 100 * (base - own))
        row |= {"behind": stat.median, "behind_low": stat.low, "behind_high": stat.high}
    return row


def _primary_first(margins: pd.Series) -> pd.Series:
    return margins.where(margins != PRIMARY, -1.0)


def speedup_lines(table: pd.DataFrame) -> list[str]:
    """The table for a terminal: the primary line, then the exploratory ones, fastest rule first."""
    lines = []
    for margin, rows in table.groupby("margin", sort=False):
        kind = "fixed in advance" if margin == PRIMARY else "exploratory"
        lines += ["", f"speedup at {margin:g} percentage points below {BASELINE}'s best validation accuracy ({kind})"]
        shown = [cells(row) for _, row in rows.sort_values("seconds").iterrows()]
        lines += pd.DataFrame(shown).to_string(index=False).splitlines()
    return [*lines, "", *explained(table)]


def cells(row: pd.Series) -> dict[str, str]:
    """A row of the table as text."""
    compared = not pd.isna(row["speedup"]) or not pd.isna(row["interval"])
    return {
        "rule": str(row["rule"]),
        "searches at the line": f"{row['reached']:.0f} of {row['searches']:.0f}",
        "seeds": f"{row['seeds']:.0f}",
        "seconds": _text(row["seconds"]),
        "speedup": bracket(row, "speedup") if compared else "1",
        "test accuracy %": _text(100 * row["test_accuracy"]),
        "points behind": (bracket(row, "behind") if row["seeds"] else "") if compared else "0",
    }


def bracket(row: pd.Series, name: str) -> str:
    """`median (low to high)`."""
    if pd.isna(row[name]):
        return "undecided"
    if name == "speedup" and row["speedup_high"] == 0:
        return "line not reached"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return _text(row[name]) + ("" if pd.isna(low) else f" ({_text(low)} to {_text(high)})")


def _text(value: float) -> str:
    return "never" if math.isinf(value) else "" if math.isnan(value) else f"{value:.2f}"


def explained(table: pd.DataFrame) -> list[str]:
    """What the brackets are."""
    found = []
    if (table["interval"] == NESTED).any():
        found.append("brackets: 95 % nested bootstrap over searches, then seeds; test samples are not resampled")
    if (table["interval"].dropna() != NESTED).any():
        names = ", ".join(dict.fromkeys(table[table["interval"].notna() & (table["interval"] != NESTED)]["rule"]))
        found.append(
            f"brackets of {names}: the range over all pairs of runs, not 95 % (fewer than five searches or seeds)"
        )
    return found
