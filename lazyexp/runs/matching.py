"""Which run tells another one what to train on, and what that cost."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from lazyexp.config.run_id import NOT_IN_RUN_ID
from lazyexp.config.schema import DatasetConfig, PackingConfig, PlasticityConfig, Settings
from lazyexp.data.subset import scorers
from lazyexp.errors import UserError
from lazyexp.rules import make_rule
from lazyexp.runs.columns import SCORING
from lazyexp.runs.reader import read_json, read_rows


def resolve(config: Settings) -> tuple[DatasetConfig, bool]:
    """The data set's settings with the path of a learned.npz, and whether random samples replace its own.

    `dataset.subset` is such a path, several with wildcards, or `matched`: that of the finished lazy run of the same
    settings in runs_dir, or `random`: as many samples as that run learned from, but any. `matched` with another
    `dataset.subset_score` is the finished backprop run of the same settings, and the size is still that of the lazy
    one. Raises UserError if there is no such run.
    """
    data = config.dataset
    if data.subset not in ("matched", "random"):
        return data, False
    lazy = _matched(config, "lazy")
    if data.subset_score == "learned":
        return replace(data, subset=str(lazy)), data.subset == "random"
    size = data.subset_size
    if size is None:
        with np.load(lazy, allow_pickle=False) as archive:
            size = int((archive["learned"] > 0).sum())
    return replace(data, subset=str(_matched(config, "backprop")), subset_size=size), False


def cost(config: Settings, data: DatasetConfig) -> dict[str, Any]:
    """What the runs have cost that chose the subset of `data`, the resolved settings of `config`'s data set.

    Their names, joined by `+`, and sums of training seconds and of samples. Besides the run that scored the samples
    that is the lazy one whose size was taken, if it is another. Empty where nothing tells.
    """
    if not data.subset:
        return {}
    folders = [path.parent for path in scorers(data.subset)]
    if config.dataset.subset in ("matched", "random") and config.dataset.subset_size is None:
        folders.append(_matched(config, "lazy").parent)
    rows = [row for folder in dict.fromkeys(folders) for row in read_rows(folder / "summary.csv")]
    if not rows:
        return {}
    names = {name: "+".join(str(row.get(name)) for row in rows) for name in ("run_id", "rule")}
    return names | {name: sum(row.get(name) or 0 for row in rows) for name in SCORING}


def _matched(config: Settings, rule: str) -> Path:
    """The learned.npz of the finished run of `rule`, plain, with otherwise the same settings. Raises UserError."""
    own = _comparable(asdict(config))
    for path in sorted(Path(config.runs_dir).expanduser().glob(f"{config.dataset.name}-{rule}-*/run.json")):
        facts = read_json(path)
        other = facts.get("settings")
        if facts.get("status") not in ("finished", "stopped") or not isinstance(other, dict):
            continue
        if not all(isinstance(other.get(part), dict) for part in ("dataset", "rule")):
            continue
        # Plain lazy: one that sleeps or packs learns from other samples.
        plain = not make_rule(other["rule"]).identity()
        if plain and not other["dataset"].get("subset") and _comparable(other) == own:
            return path.parent / "learned.npz"
    raise UserError(
        f"dataset.subset={config.dataset.subset}: no finished run of rule={rule} with these settings in "
        f"{config.runs_dir}; do that one first, with dataset.subset=null"
    )


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if key not in (*NOT_IN_RUN_ID, "rule")}
    # A run that knows nothing of a setting had it at its default.
    data = {
        **asdict(DatasetConfig()),
        **kept["dataset"],
        "subset": None,
        "subset_score": "learned",
        "subset_size": None,
    }
    return {**{"plasticity": asdict(PlasticityConfig()), "packing": asdict(PackingConfig())}, **kept, "dataset": data}
