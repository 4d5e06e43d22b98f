"""The first lines of a report: what was run, and one sentence per comparison."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from lazyexp.config.schema import Config
from lazyexp.report.formatting import count, number, setting, setting_value, with_interval
from lazyexp.report.headline import CURVE, SCHEDULE, Headline, Outcome
from lazyexp.report.intervals import Interval
from lazyexp.report.read import Run
from lazyexp.report.settings import flat_settings

FEW = 3  # competing rules up to which each has its own sentence
# Settings that the line of what was run puts into words.
IN_WORDS = (
    "dataset.name", "dataset.train_size", "model.name", "model.width", "model.depth", "model.activation",
    "batch_size", "optimizer.name", "optimizer.lr", "optimizer.schedule", "epochs", "eval_every", "hardware",
    "threads", "device", "data",
)  # fmt: skip


def what_was_run(runs: list[Run]) -> str:
    """The common settings of all runs in words, then those that vary."""
    common, varied = split_settings(runs)
    parts = [_data(runs, common), _model(common), _training(common)]
    seeds = sorted({run.seed for run in runs})
    parts.append(f"seeds {', '.join(map(str, seeds))}" if len(seeds) < 12 else count(len(seeds), "seed"))
    defaults = _defaults()
    others = [key for key, value in common.items() if key not in IN_WORDS and value != defaults.get(key)]
    parts += [setting(key, common[key]) for key in others if common[key] is not None]
    if common.get("hardware"):
        threads = f", {count(int(common['threads']), 'thread')}" if common.get("threads") else ""
        parts.append(f"{common['hardware']}{threads}")
    text = "; ".join(part for part in parts if part)
    varied = {key: values for key, values in varied.items() if key != "data"}
    if varied:
        text += ". Varied: " + "; ".join(f"{key} {_values(values)}" for key, values in varied.items())
    return f"{text}."


def split_settings(runs: list[Run]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Settings that are the same in all runs, and the values of the others."""
    common: dict[str, Any] = {}
    varied: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = list({str(value): value for value in (run.settings.get(key) for run in runs)}.values())
        if len(values) == 1:
            common[key] = values[0]
        else:
            varied[key] = values
    return common, varied


@cache
def _defaults() -> dict[str, Any]:
    return flat_settings({key: value for key, value in asdict(Config()).items() if key != "rule"})


def _values(values: list[Any]) -> str:
    try:
        values = sorted(values)
    except TypeError:
        values = sorted(values, key=str)
    shown = [setting_value(value) for value in values]
    return ", ".join(shown) if len(shown) <= 8 else f"{shown[0]} to {shown[-1]} ({len(shown)} values)"


def _data(runs: list[Run], common: dict[str, Any]) -> str:
    sizes = {run.train_size for run in runs}
    size = sizes.pop() if len(sizes) == 1 else math.nan
    samples = "" if math.isnan(size) else f"{size:,.0f} training samples"
    name = str(common.get("dataset.name") or "")
    return f"{name} ({samples})" if name and samples else name or samples


def _model(common: dict[str, Any]) -> str:
    name, depth = common.get("model.name"), common.get("model.depth")
    if name == "mlp" and depth is not None:
        width = f" of {common['model.width']:,} units" if common.get("model.width") else ""
        activation = f" ({common['model.activation']})" if common.get("model.activation") else ""
        return f"MLP with {count(int(depth), 'hidden layer')}{width}{activation}"
    width = f", width {common['model.width']}" if common.get("model.width") and name else ""
    return f"{name or ''}{width}"


def _training(common: dict[str, Any]) -> str:
    parts = []
    if common.get("batch_size"):
        parts.append(f"batch size {common['batch_size']}")
    optimizer = str(common.get("optimizer.name") or "").upper() if common.get("optimizer.name") == "sgd" else ""
    optimizer = optimizer or str(common.get("optimizer.name") or "")
    if common.get("optimizer.lr"):
        schedule = f" ({common['optimizer.schedule']} schedule)" if common.get("optimizer.schedule") else ""
        optimizer = f"{optimizer} at learning rate {common['optimizer.lr']:g}{schedule}".strip()
    parts.append(optimizer)
    if common.get("epochs"):
        parts.append(count(int(common["epochs"]), "epoch"))
    if common.get("eval_every"):
        parts.append(f"evaluated every {count(int(common['eval_every']), 'sample')}")
    return ", ".join(part for part in parts if part)


def provenance(runs: list[Run], left_out: int) -> list[str]:
    """How many runs there are, how they ended, and which machines and versions made them."""

    def different(values: Iterable[object]) -> str:
        return ", ".join(sorted({str(value or "unknown") for value in values}))

    counts = pd.Series([run.status for run in runs]).value_counts()
    statuses = ", ".join(f"{n} {status}" for status, n in counts.items())
    lines = [f"{count(len(runs), 'run')} ({statuses}); {count(left_out, 'folder')} left out."]
    lines.append(
        f"Machines: {different(run.settings['hardware'] for run in runs)}; "
        f"threads: {different(run.settings['threads'] for run in runs)}; "
        f"lazyexp {different(run.versions.get('lazyexp') for run in runs)}, "
        f"commit {different(run.versions.get('commit') for run in runs)}, "
        f"torch {different(run.versions.get('torch') for run in runs)}."
    )
    shared = sum(run.concurrent for run in runs)
    if shared:
        lines.append(
            f"{count(shared, 'run')} shared their machine with other runs; their wall-clock times are not comparable."
        )
    return lines


def sentences(found: list[Headline]) -> list[str]:
    """One sentence per comparison, or per rule if there is one comparison of few rules."""
    if len(found) == 1:
        return _alone(found[0])
    return [f"{one.name}: {_among_others(one)}" for one in found]


def _alone(one: Headline) -> list[str]:
    if not one.has_baseline or not one.competitors:
        return [_without_pair(one)]
    if len(one.competitors) <= FEW:
        return [sentence(rule, one) for rule in one.competitors]
    reached = [rule for rule in one.competitors if rule.reaches(one.target)]
    if not reached:
        return [f"No rule reliably reaches {one.target} {one.kind} ({_tally(one)})."]
    fastest = min(reached, key=lambda rule: rule.seconds.get(one.target, math.inf))
    return [f"{sentence(fastest, one)} It is the fastest of {len(one.competitors)} rules: {_tally(one)}."]


def _among_others(one: Headline) -> str:
    """A comparison in a list of comparisons, whose target is defined once below the list."""
    if not one.has_baseline or not one.competitors:
        return _without_pair(one)
    if len(one.competitors) > FEW:
        fastest = one.by_time()[0]
        return f"`{fastest.rule}` is the fastest to {one.target} {one.kind}; of the others {_tally(one)}."
    return f"to {one.target} {one.kind}, {', '.join(_short(rule, one) for rule in one.competitors)}."


def _short(rule: Outcome, one: Headline) -> str:
    kind, ratio = verdict(rule, one.target), rule.speedups.get(one.target, Interval())
    what = f"`{rule.rule}`"
    if kind == "missed":
        return f"{what} misses the target{_of_pairs(rule, one)}"
    if kind == "undecided" or math.isinf(ratio.median):
        return f"{what} is undecided" if kind == "undecided" else f"only {what} reaches it"
    if kind == "unclear" and ratio.known:
        return f"{what} does not differ clearly ({with_interval(ratio, 1, 2)})"
    stat = ratio if ratio.median >= 1 else Interval(*_inverse(ratio))
    return f"{what} is {with_interval(stat, 1, 2)} times {'faster' if ratio.median >= 1 else 'slower'}"


def _without_pair(one: Headline) -> str:
    if one.has_baseline:
        return f"Only `{one.baseline}` was run."
    best = max(one.outcomes, key=lambda rule: float(np.nan_to_num(rule.accuracy.median)))
    return (
        f"No `{one.baseline}` run to compare with; `{best.rule}` ends with the best test accuracy "
        f"({100 * best.accuracy.median:.4g} %)."
    )


def _tally(one: Headline) -> str:
    verdicts = [verdict(rule, one.target) for rule in one.competitors]
    counts = ((verdicts.count(key), words) for key, words in VERDICTS.items())
    return ", ".join(f"{n} {words}" for n, words in counts if n)


def _of_pairs(rule: Outcome, one: Headline) -> str:
    share = rule.missed[one.target]
    if one.kind == CURVE:
        return f" in {round(share * rule.pairs)} of {count(rule.pairs, 'pair')}"
    return f" in {100 * share:.0f} % of the bootstrap resamples" if share < 1 else ""


VERDICTS = {
    "faster": "faster than the baseline",
    "slower": "slower",
    "unclear": "not clearly different",
    "missed": "without reaching the target reliably",
    "undecided": "undecided",
}


def verdict(rule: Outcome, target: str) -> str:
    """faster, slower, unclear (the interval contains 1, or there is none), missed or undecided."""
    ratio = rule.speedups.get(target)
    if ratio is None:
        return "undecided"
    if not rule.reaches(target):
        return "missed"
    if math.isnan(ratio.median):
        return "undecided"
    if not ratio.known or ratio.low <= 1 <= ratio.high:
        return "unclear"
    return "faster" if ratio.low > 1 else "slower"


def sentence(rule: Outcome, one: Headline) -> str:
    """What one rule gains or loses in training time, as the figure beside it shows."""
    kind, ratio = verdict(rule, one.target), rule.speedups.get(one.target, Interval())
    what, baseline = f"`{rule.rule}`", f"`{one.baseline}`"
    goal = f"{one.target} ({100 * one.accuracies[one.target]:.4g} %) {one.kind}"
    if kind == "missed":
        return f"{what} does not reliably reach {goal}: it misses it{_of_pairs(rule, one) or ' always'}."
    if kind == "undecided":
        return f"{what}: undecided, no pair of runs has ended."
    if math.isinf(ratio.median):
        return f"{what} reaches {goal}, and {baseline} does not."
    faster = ratio.median > 1
    times, low, high = (ratio.median, ratio.low, ratio.high) if faster else _inverse(ratio)
    interval = f"(95 % interval {number(low, 2)} to {number(high, 2)})" if ratio.known else "(one seed: no interval)"
    if kind == "unclear" and ratio.known:
        return f"{what} and {baseline} do not differ clearly in time to {goal}: speedup {with_interval(ratio, 1, 2)}."
    if ratio.median == 1:
        return f"{what} takes exactly as long as {baseline} to reach {goal} {interval}."
    if faster:
        return f"{what} is {number(times, 2)} times faster than {baseline} to {goal} {interval}."
    return f"{what} takes {number(times, 2)} times as long as {baseline} to {goal} {interval}."


def _inverse(ratio: Interval) -> tuple[float, float, float]:
    """Ratio and interval of the reverse comparison."""
    median, low, high = (math.inf if value == 0 else 1 / value for value in (ratio.median, ratio.high, ratio.low))
    return median, low, high


def definitions(found: list[Headline]) -> str:
    """What the target and the two kinds of time mean, for those in use."""
    parts = []
    for kind in (CURVE, SCHEDULE):
        same = [one for one in found if one.kind == kind and one.target]
        if not same:
            continue
        margin = same[0].target.rpartition("-")[2]
        if kind == CURVE:
            text = f"the test accuracy at which the `{same[0].baseline}` run of the same seed ends"
        else:
            text = f"the best median test accuracy of any `{same[0].baseline}` configuration"
        percent = f" ({100 * same[0].accuracies[same[0].target]:.4g} %)" if len(same) == 1 else ""
        parts.append(f"Target `{same[0].target}`: {text}, minus {margin} percentage points{percent}.")
        parts.append(
            "Along the curve: up to the first evaluation that reaches it, at identical settings."
            if kind == CURVE
            else "At the end of a schedule: by the fastest configuration that ends there."
        )
    return " ".join(parts)


def options_of(runs: list[Run]) -> list[list[str]]:
    """Rows of rule and its options, for the table of all settings."""
    rows = {(run.rule, run.options) for run in runs}
    return [
        [rule, ", ".join(setting(key, value) for key, value in json.loads(options).items()) or "defaults"]
        for rule, options in sorted(rows)
    ]
