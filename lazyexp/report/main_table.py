"""The one table before the fold: rules as rows, targets as columns, the fastest first."""

from __future__ import annotations

import math

from lazyexp.report.blocks import Table
from lazyexp.report.formatting import DASH, number, relative, setting_value, target_name, with_interval
from lazyexp.report.groups import varying_keys
from lazyexp.report.headline import Headline, Outcome
from lazyexp.report.speedups import MARGINS

KEYS = 3  # varying settings that have a column each; more are one column


def main_table(found: list[Headline]) -> Table:
    """A row per comparison and rule."""
    keys = varying_keys([one.settings for one in found]) if len(found) > 1 else []
    named = keys if len(keys) <= KEYS else ["comparison"]
    kinds = {one.kind for one in found}
    targets = _targets(found)
    headings = {one.target for one in found if one.target}
    goal = f" to {headings.pop()}" if len(headings) == 1 else ""
    columns = ["rule", *named, "test accuracy\n(%)", f"speedup\n{goal.strip()}".strip()]
    columns += [f"to\n{target_name(target)}\n(s)" for target in targets]
    columns += ["selected\n(%)", "training\n(s)", *(["time"] if len(kinds) > 1 else [])]
    rows = []
    for one in found:
        values = [setting_value(one.settings.get(key)) for key in keys] if named == keys else [one.name]
        for outcome in one.by_time():
            cells = [outcome.rule, *values, with_interval(outcome.accuracy, 100, 4), _speedup(outcome, one)]
            cells += [_seconds(outcome.seconds.get(target)) for target in targets]
            cells += [_percent(outcome.selected), _seconds(outcome.total_seconds)]
            rows.append([*cells, *([one.kind] if len(kinds) > 1 else [])])
    return Table(columns, rows)


def _targets(found: list[Headline]) -> list[str]:
    """Fixed accuracies, then those relative to the baseline."""
    fixed = sorted({target for one in found for target in one.accuracies if _is_number(target)}, key=float)
    margins = {one.target for one in found if one.target}
    margins |= {relative(one.baseline, margin) for one in found for margin in MARGINS if one.has_baseline}
    return fixed + sorted(margins, key=lambda target: -float(target.rpartition("-")[2]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _speedup(outcome: Outcome, one: Headline) -> str:
    if outcome.rule == one.baseline:
        return "1"
    ratio = outcome.speedups.get(one.target)
    if ratio is None or math.isnan(ratio.median):
        return "" if not one.target else "undecided"
    if ratio.median == 0:
        return DASH
    return f"{one.baseline} missed" if math.isinf(ratio.median) else with_interval(ratio)


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return "undecided" if math.isnan(value) else DASH if math.isinf(value) else number(value)


def _percent(value: float) -> str:
    return "" if math.isnan(value) else number(100 * value)
