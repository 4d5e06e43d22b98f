"""Subsets by the name of a run: `dataset.subset=matched` and `random`, and the cost of the runs that chose them.

Settings are plain dictionaries, as `dataclasses.asdict` and run.json have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lazyexp.config.run_id import NOT_IN_RUN_ID
from lazyexp.config.schema import DatasetConfig, PackingConfig, PlasticityConfig
from lazyexp.config.streams import MemoryConfig, StreamConfig
from lazyexp.data.subset import scorers
from lazyexp.errors import UserError
from lazyexp.rules import make_rule
from lazyexp.runs.columns import SCORING
from lazyexp.runs.reader import read_json, read_rows


@dataclass(frozen=True)
class Subset:
    """A resolved `dataset.subset`: the path of a learned.npz (or a pattern), the number of samples, and whether
    random samples replace those of the path.
    """

    path: str | None
    size: int | None
    random: bool = False


def resolve(settings: Mapping[str, Any]) -> Subset:
    """The subset that the settings of a run ask for.

    `matched` is the subset of the finished lazy run with the same settings in runs_dir; `random` has as many samples,
    drawn at random. `matched` with another `dataset.subset_score` than `learned` takes the scores of the finished
    backprop run of the same settings, and the size from the lazy one. Raises UserError if there is no such run.
    """
    data = settings["dataset"]
    subset, size = data["subset"], data["subset_size"]
    if subset not in ("matched", "random"):
        return Subset(subset, size)
    lazy = _matched(settings, "lazy")
    if data["subset_score"] == "learned":
        return Subset(str(lazy), size, subset == "random")
    if size is None:
        with np.load(lazy, allow_pickle=False) as archive:
            size = int((archive["learned"] > 0).sum())
    return Subset(str(_matched(settings, "backprop")), size)


def cost(settings: Mapping[str, Any], subset: Subset) -> dict[str, Any]:
    """The cost of the runs that chose a subset: their names joined by `+`, and sums of seconds and samples.

    Besides the run that scored the samples this is the lazy run whose size was taken, if it is another one. Empty if
    there is no subset or no summary.
    """
    if not subset.path:
        return {}
    folders = [path.parent for path in scorers(subset.path)]
    data = settings["dataset"]
    if data["subset"] in ("matched", "random") and data["subset_size"] is None:
        folders.append(_matched(settings, "lazy").parent)
    rows = [row for folder in dict.fromkeys(folders) for row in read_rows(folder / "summary.csv")]
    if not rows:
        return {}
    names = {name: "+".join(str(row.get(name)) for row in rows) for name in ("run_id", "rule")}
    return names | {name: sum(row.get(name) or 0 for row in rows) for name in SCORING}


def _matched(settings: Mapping[str, Any], rule: str) -> Path:
    """The learned.npz of the finished run of the plain `rule` with otherwise equal settings. Raises UserError."""
    wanted = _comparable(settings)
    for path in sorted(
        Path(settings["runs_dir"]).expanduser().glob(f"{settings['dataset']['name']}-{rule}-*/run.json")
    ):
        facts = read_json(path)
        other = facts.get("settings")
        if facts.get("status") not in ("finished", "stopped") or not isinstance(other, dict):
            continue
        if not all(isinstance(other.get(part), dict) for part in ("dataset", "rule")):
            continue
        # With options, the rule selects other samples.
        if _is_plain(other["rule"]) and not other["dataset"].get("subset") and _comparable(other) == wanted:
            return path.parent / "learned.npz"
    raise UserError(
        f"dataset.subset={settings['dataset']['subset']}: no finished run of rule={rule} with these settings in "
        f"{settings['runs_dir']}; do that one first, with dataset.subset=null"
    )


def _is_plain(rule: dict[str, Any]) -> bool:
    """Whether all options of a rule have their defaults; not if another version wrote options unknown here."""
    try:
        return not make_rule(rule).identity()
    except UserError:
        return False


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in which two matched runs are equal; those that an older version did not know are defaults."""
    kept = {key: value for key, value in settings.items() if key not in (*NOT_IN_RUN_ID, "rule")}
    plain = DatasetConfig()
    keys = ("subset", "subset_score", "subset_size", "subset_choice", "subset_cutoff")
    subset = {key: getattr(plain, key) for key in keys}
    data = {**asdict(DatasetConfig()), **kept["dataset"], **subset}
    defaults = {
        "plasticity": asdict(PlasticityConfig()),
        "packing": asdict(PackingConfig()),
        "stream": asdict(StreamConfig()),
        "memory": asdict(MemoryConfig()),
    }
    return {**defaults, **kept, "dataset": data}
