"""What was run: common and varied settings, machines and versions, in words and as rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from typing import Any

import pandas as pd

from lazyexp.config.schema import Config
from lazyexp.report.formatting import count, setting, setting_value
from lazyexp.report.read import Run
from lazyexp.report.settings import flat_settings

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


def options_of(runs: list[Run]) -> list[list[str]]:
    """Rows of rule and its options, for the table of all settings."""
    rows = {(run.rule, run.options) for run in runs}
    return [
        [rule, ", ".join(setting(key, value) for key, value in json.loads(options).items()) or "defaults"]
        for rule, options in sorted(rows)
    ]
