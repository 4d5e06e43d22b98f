"""The answer in words: one sentence per comparison."""

from __future__ import annotations

import math

import numpy as np

from lazyexp.report import BASELINE
from lazyexp.report.formatting import count, number, with_interval
from lazyexp.report.headline import CURVE, SCHEDULE, Headline, Outcome
from lazyexp.report.intervals import Interval
from lazyexp.report.prediction import prediction

FEW = 3  # competing rules up to which each has its own sentence


def sentences(found: list[Headline]) -> list[str]:
    """One sentence per comparison, or per rule if there is one comparison of few rules."""
    if len(found) == 1:
        return _alone(found[0])
    goal = "" if lead(found) else None
    return [f"{one.name}: {_among_others(one, goal)}" for one in found]


def lead(found: list[Headline]) -> str:
    """What the sentences of several comparisons have in common, empty if they differ."""
    goals = {(one.target, one.kind) for one in found}
    if len(found) < 2 or len(goals) > 1 or not found[0].target:
        return ""
    return f"Training time to {found[0].target} {found[0].kind}, compared with `{found[0].baseline}`:"


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


def _among_others(one: Headline, goal: str | None) -> str:
    """A comparison in a list of comparisons; `goal` is empty if the line above the list names it."""
    if not one.has_baseline or not one.competitors:
        return _without_pair(one)
    goal = f" to {one.target} {one.kind}" if goal is None else goal
    if len(one.competitors) > FEW:
        fastest = one.by_time()[0]
        return f"`{fastest.rule}` is the fastest{goal}; of the competing rules {_tally(one)}."
    return f"{', '.join(_short(rule, one) for rule in one.competitors)}{goal}."


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
        return f"Only `{one.baseline}` was run. {_prediction(one)}".strip()
    best = max(one.outcomes, key=lambda rule: float(np.nan_to_num(rule.accuracy.median)))
    return (
        f"No `{one.baseline}` run to compare with; `{best.rule}` ends with the best test accuracy "
        f"({100 * best.accuracy.median:.4g} %)."
    )


def _prediction(one: Headline) -> str:
    """What a lazy rule could save, if the only rule is backprop."""
    if one.baseline != BASELINE:
        return ""
    batch_size = one.settings.get("batch_size")
    return prediction(one.outcomes[0].mistakes, int(batch_size or 1), one.cost_ratio)


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
