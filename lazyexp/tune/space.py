"""The search space: read from a YAML file, checked, and sampled by Optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from lazyexp.config.quoting import override
from lazyexp.errors import UserError
from lazyexp.tune.keys import check_key

if TYPE_CHECKING:
    import optuna

PRESETS = Path(__file__).parent


@dataclass(frozen=True)
class Range:
    """The values of one key: `choices`, or numbers from `low` to `high`; with `when`, under these conditions only."""

    key: str
    choices: list[Any] | None = None
    low: Any = None
    high: Any = None
    log: bool = False
    when: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Optuna's name, different for each range: a learning rate of SGD is not one of Adam."""
        conditions = ", ".join(f"{key}={value}" for key, value in self.when.items())
        return f"{self.key} ({conditions})" if conditions else self.key

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the conditions hold for `values`."""
        return all(key in values and values[key] == value for key, value in self.when.items())

    def holds(self, value: Any) -> bool:
        """Whether the value is within the range."""
        if self.choices is not None:
            return value in self.choices
        return isinstance(value, (int, float)) and bool(self.low <= value <= self.high)

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value from Optuna; floats with four digits, so that they can be read and typed again."""
        if self.choices is not None:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return float(f"{trial.suggest_float(self.name, float(self.low), float(self.high), log=self.log):.4g}")

    def check(self) -> None:
        """Raise UserError with what is wrong."""
        if not isinstance(self.key, str):
            raise UserError("the key must be a name")
        if not isinstance(self.when, dict):
            raise UserError(f"when={self.when}: must be a mapping from key to value")
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise UserError("needs either choices or low and high")
            if not isinstance(self.choices, list) or not self.choices:
                raise UserError(f"choices={self.choices}: must be a list with at least one value")
            if not all(isinstance(value, (str, int, float, type(None))) for value in self.choices):
                raise UserError(f"choices={self.choices}: must be words, numbers, true, false or null")
            return
        for name in ("low", "high"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
                raise UserError(f"{name}={number}: must be a finite number; needs either choices or low and high")
        if self.low > self.high:
            raise UserError(f"low={self.low}: must be at most high={self.high}")
        if not isinstance(self.log, bool):
            raise UserError(f"log={self.log}: must be true or false")
        if self.log and self.low <= 0:
            raise UserError(f"low={self.low}: must be above 0 for a logarithmic range")


class Space:
    """The ranges for one rule, from the YAML file `path` or the preset of that name. Raises UserError.

    `fixed`: the values of keys that are given. They are not searched, and conditions on them use these values.
    """

    def __init__(self, path: str, rule: str, fixed: Mapping[str, Any] | None = None) -> None:
        self.path, self.rule, self.fixed = path, rule, dict(fixed or {})
        content = self._read()
        ranges = [*content["all"], *_entries(content["rules"].get(rule))]
        of_rules = [entry for entries in content["rules"].values() for entry in _entries(entries)]
        known = {entry["key"] for entry in [*ranges, *of_rules] if isinstance(entry, dict) and "key" in entry}
        self.ranges: list[Range] = []
        self._known = set(self.fixed)  # keys that a condition can be on
        for entry in ranges:
            self._add(entry, rule)
        self.start = content.get("start") or []
        for point in self.start:
            self._check_start(point, known)
        if not self.ranges:
            raise UserError(f"--space {path}: nothing to search; all of its keys are given on the command line")

    def _read(self) -> dict[str, Any]:
        file = Path(self.path)
        if "/" not in self.path and not self.path.endswith(".yaml"):
            file = PRESETS / f"{self.path}.yaml"
        try:
            content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
        except FileNotFoundError:
            known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
            raise UserError(f"--space {self.path}: no such file; presets: {known}") from None
        except Exception as error:  # YAML's and OmegaConf's errors have no common class
            raise UserError(f"--space {self.path}: {' '.join(str(error).split())[:150]}") from None
        if not isinstance(content, dict) or "all" not in content or set(content) - {"all", "rules", "start"}:
            raise UserError(f"--space {self.path}: must have the keys all and, if needed, rules and start")
        content["rules"] = content.get("rules") or {}
        lists = [content["all"], content.get("start") or [], *_values(content["rules"])]
        if not all(isinstance(entries, list) for entries in lists):
            raise UserError(f"--space {self.path}: all, start and every entry of rules must be lists")
        return content

    def _add(self, entry: Any, rule: str) -> None:
        """Check a range, and add it unless it is fixed or can never apply."""
        names = {item.name for item in fields(Range)}
        try:
            if not isinstance(entry, dict) or "key" not in entry or not set(entry) <= names:
                raise UserError(
                    f"needs a key and either choices or low and high; may have {', '.join(sorted(names))}"
                )
            found = Range(**entry)
            found.check()
            values = found.choices if found.choices is not None else [found.low, found.high]
            check_key(found.key, values, rule)
            unknown = [key for key in found.when if key not in self._known]
            if unknown:
                raise UserError(f"when: {unknown[0]} must be the key of an earlier entry")
            self._known.add(found.key)
        except UserError as error:
            raise UserError(f"--space {self.path}: {entry}: {error}") from None
        fixed = found.key in self.fixed
        impossible = any(key in self.fixed and self.fixed[key] != value for key, value in found.when.items())
        if not fixed and not impossible:
            self.ranges.append(found)

    def _check_start(self, point: Any, known: set[Any]) -> None:
        if not isinstance(point, dict):
            raise UserError(f"--space {self.path}: start: {point}: must be a mapping from key to value")
        for key in point:
            if key not in known:
                raise UserError(f"--space {self.path}: start: {key} is not a key of this space")
        for entry, value in self._given({**point, **self.fixed}):
            if entry.applies({**self.fixed, **point}) and not entry.holds(value):
                raise UserError(f"--space {self.path}: start: {entry.key}={value}: outside its range")

    def keys(self) -> list[str]:
        """The keys that are searched."""
        return list(dict.fromkeys(entry.key for entry in self.ranges))

    def points(self) -> list[dict[str, Any]]:
        """The first trials, under Optuna's names. Keys that they leave open are sampled."""
        found: list[dict[str, Any]] = []
        for point in self.start:
            # Without values for other conditions, such as the learning rate of another optimizer than the given one.
            fitting = {entry.key: value for entry, value in self._given({**self.fixed, **point})}
            named = self.named(fitting)
            if named not in found:
                found.append(named)
        return found

    def named(self, point: dict[str, Any]) -> dict[str, Any]:
        """The values at `point` that are searched there, under Optuna's names."""
        return {entry.name: value for entry, value in self._given({**point, **self.fixed})}

    def holds(self, point: dict[str, Any]) -> bool:
        """Whether the searched values at `point` are within their ranges."""
        return all(entry.holds(value) for entry, value in self._given({**point, **self.fixed}))

    def _given(self, point: dict[str, Any]) -> list[tuple[Range, Any]]:
        """The ranges that apply at `point` and have a value there."""
        return [(entry, point[entry.key]) for entry in self.ranges if entry.key in point and entry.applies(point)]

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """A value for every key that is searched in this trial."""
        values: dict[str, Any] = {}
        for entry in self.ranges:
            if entry.applies({**self.fixed, **values}):
                values[entry.key] = entry.suggest(trial)
        return values


def words(values: Mapping[str, Any]) -> list[str]:
    """The values as overrides."""
    return [override(key, value) for key, value in values.items()]


def _entries(entries: Any) -> list[Any]:
    return list(entries or [])


def _values(rules: Any) -> list[Any]:
    return [entries or [] for entries in rules.values()] if isinstance(rules, dict) else [None]
