"""Which samples a run trains on when it is to train on those that another one learned from."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lazyexp.config import PLACES, DatasetConfig, Settings
from lazyexp.errors import UserError
from lazyexp.reader import read_json
from lazyexp.rules import make_rule


def resolve(config: Settings) -> tuple[DatasetConfig, bool]:
    """The data set's settings with the path of a learned.npz, and whether random samples replace its own.

    `dataset.subset` is such a path, or `matched`: that of the finished lazy run of the same settings in runs_dir,
    or `random`: as many samples as that run learned from, but any. Raises UserError if there is no such run.
    """
    wanted = config.dataset.subset
    if wanted not in ("matched", "random"):
        return config.dataset, False
    own = _comparable(asdict(config))
    for path in sorted(Path(config.runs_dir).expanduser().glob(f"{config.dataset.name}-lazy-*/run.json")):
        facts = read_json(path)
        other = facts.get("settings")
        if facts.get("status") not in ("finished", "stopped") or not isinstance(other, dict):
            continue
        if not all(isinstance(other.get(part), dict) for part in ("dataset", "rule")):
            continue
        # Plain lazy: one that sleeps or packs learns from other samples.
        plain = not make_rule(other["rule"]).identity()
        if plain and not other["dataset"].get("subset") and _comparable(other) == own:
            return replace(config.dataset, subset=str(path.parent / "learned.npz")), wanted == "random"
    raise UserError(
        f"dataset.subset={wanted}: no finished run of rule=lazy with these settings in {config.runs_dir}; "
        "do that one first, with dataset.subset=null"
    )


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in settings.items() if key not in (*PLACES, "rule")}
    return {**kept, "dataset": {**kept["dataset"], "subset": None}}
