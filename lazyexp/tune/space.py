"""What is searched: read from a YAML file, asked from Optuna, and given back as words for `lazyexp`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf

from lazyexp.errors import UserError

PRESETS = Path(__file__).parent
ENTRY = {"key", "choices", "low", "high", "log", "when"}


class Space:
    """The ranges for one rule, from `path` or a preset of that name. Raises UserError."""

    def __init__(self, path: str, rule: str) -> None:
        file = PRESETS / f"{path}.yaml" if "/" not in path and not path.endswith(".yaml") else Path(path)
        try:
            content: Any = OmegaConf.to_container(OmegaConf.load(file))
            self.entries = [*content["all"], *((content.get("rules") or {}).get(rule) or [])]
            self.start = list(content.get("start") or [])
        except FileNotFoundError:
            known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
            raise UserError(f"--space {path}: no such file; presets: {known}") from None
        except Exception as error:
            raise UserError(f"--space {path}: {' '.join(str(error).split())[:150]}") from None
        for entry in self.entries:
            ranged = {"low", "high"} <= set(entry) and "choices" not in entry
            if "key" not in entry or not set(entry) <= ENTRY or ranged == ("choices" in entry):
                raise UserError(f"--space {path}: {entry}: needs a key and either choices or low and high")

    def names(self) -> list[str]:
        return list(dict.fromkeys(entry["key"] for entry in self.entries))

    def points(self) -> list[dict[str, Any]]:
        """The trials to begin with, under Optuna's names; keys that they leave open are drawn."""
        return [self.named(point) for point in self.start]

    def named(self, point: dict[str, Any]) -> dict[str, Any]:
        """The values of keys that are asked for at `point`, under Optuna's names."""
        return {_name(entry): point[entry["key"]] for entry in self._given(point)}

    def holds(self, point: dict[str, Any]) -> bool:
        """Whether the values at `point` are within the ranges."""
        values = [(entry, point[entry["key"]]) for entry in self._given(point)]
        return all(v in e["choices"] if "choices" in e else e["low"] <= v <= e["high"] for e, v in values)

    def _given(self, point: dict[str, Any]) -> list[dict[str, Any]]:
        """The entries that are asked for at `point`, and have a value there."""
        return [entry for entry in self.entries if entry["key"] in point and _asked(entry, point)]

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """A value for every key that is asked for in this trial."""
        values: dict[str, Any] = {}
        for entry in self.entries:
            if not _asked(entry, values):
                continue
            name, key = _name(entry), entry["key"]
            if "choices" in entry:
                values[key] = trial.suggest_categorical(name, entry["choices"])
            elif isinstance(entry["low"], int) and isinstance(entry["high"], int):
                values[key] = trial.suggest_int(name, entry["low"], entry["high"], log=bool(entry.get("log")))
            else:
                low, high = float(entry["low"]), float(entry["high"])
                values[key] = trial.suggest_float(name, low, high, log=bool(entry.get("log")))
        return values


def words(values: dict[str, Any]) -> list[str]:
    """The values as overrides; floats with four digits, so that they can be read and typed again."""
    return [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()]


def _asked(entry: dict[str, Any], values: dict[str, Any]) -> bool:
    return all(values.get(key) == wanted for key, wanted in (entry.get("when") or {}).items())


def _name(entry: dict[str, Any]) -> str:
    """One name for each range: a learning rate of SGD is not one of Adam."""
    conditions = ", ".join(f"{key}={value}" for key, value in (entry.get("when") or {}).items())
    return f"{entry['key']} ({conditions})" if conditions else entry["key"]
