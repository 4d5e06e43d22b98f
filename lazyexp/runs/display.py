"""The end of a run on standard output."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Protocol

from lazyexp.runs.columns import CROSSING


class Result(Protocol):
    """How a run ended; see `lazyexp.experiment.RunResult`."""

    @property
    def folder(self) -> Path: ...
    @property
    def status(self) -> str: ...
    @property
    def summary(self) -> dict[str, Any]: ...
    @property
    def repeated(self) -> bool: ...
    @property
    def signal(self) -> int: ...


def exit_code(result: Result) -> int:
    """0, or 128 + signal for an interrupted run."""
    return 128 + (result.signal or signal.SIGINT) if result.status == "interrupted" else 0


def end_text(title: str, result: Result) -> str:
    """How a single run ended, with a table of its final figures."""
    hint = "; overwrite=true repeats it" if result.repeated else ""
    lines = [f"{title}: {_status(result)}{hint}"]
    if result.summary.get("test_accuracy"):
        lines.append(summary_table(result.summary))
    lines.append(f"  {result.folder}")
    if result.status == "interrupted":
        lines.append("  the same command continues it")
    return "\n".join(lines)


def end_line(title: str, result: Result) -> str:
    """How a run of a sweep ended, in one line."""
    row = result.summary
    if not row.get("test_accuracy"):
        return f"{title}: {_status(result)}"
    return (
        f"{title}: {_status(result)}, test accuracy {float(row['test_accuracy']):.2%}, "
        f"{float(row['train_seconds']):.2f} s of training, {int(row['backward_samples']):,} samples backpropagated, "
        f"{int(row['updates']):,} updates"
    )


def _status(result: Result) -> str:
    return f"{result.status} before" if result.repeated else result.status


def summary_table(summary: dict[str, Any]) -> str:
    """Return the final figures of a run as lines of text."""

    def number(key: str) -> float:
        return float(summary.get(key) or 0)

    def share(key: str, of: str) -> str:
        return f"{number(key):,.0f} ({number(key) / max(number(of), 1):.2%})"

    lines = [
        ("test accuracy", f"{number('test_accuracy'):.2%} (best {number('best_test_accuracy'):.2%})"),
        ("training seconds", f"{number('train_seconds'):.2f}"),
        ("samples presented", f"{number('samples_seen'):,.0f}"),
        ("samples forwarded", f"{number('forward_samples'):,.0f}"),
        ("samples backpropagated", share("backward_samples", "samples_seen")),
        ("distinct samples selected", share("distinct_learned", "train_size")),
        ("updates", share("updates", "updates_possible")),
    ]
    if summary.get("val_accuracy"):
        lines.insert(1, ("validation accuracy", f"{number('val_accuracy'):.2%}"))
    if summary.get("energy_l1"):
        for norm in ("l1", "l0"):
            spent, least = number(f"energy_{norm}"), number(f"energy_{norm}_min")
            ratio = f", {spent / least:.3g} times the direct path" if least else ""
            lines.append((f"energy M{norm[1]}", f"{spent:.4g}{ratio}"))
    for key in summary:
        if key.startswith("seconds_to_"):
            lines.append(_crossing(summary, key.removeprefix("seconds_to_")))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in lines)


def _crossing(summary: dict[str, Any], target: str) -> tuple[str, str]:
    title = f"to {float(target):.2%}".replace("0%", "%").replace(".%", "%")
    values: dict[str, Any] = {name: summary.get(f"{name}_to_{target}") for name in CROSSING}
    if not values["seconds"]:
        return title, "not reached"
    return title, (
        f"{float(values['seconds']):.2f} s, {int(values['samples']):,} samples, "
        f"{int(values['backward']):,} backpropagated, {int(values['updates']):,} updates"
    )
