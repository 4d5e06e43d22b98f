"""Sample-selection rules. One module per published method; `base` defines the interface."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from lazyexp.config.fields import check_setting
from lazyexp.config.imports import attribute_errors, resolve
from lazyexp.config.registry import RULES
from lazyexp.errors import UserError
from lazyexp.rules.base import Rule, RunInfo, ScoredBatch

__all__ = ["RULES", "Rule", "RunInfo", "ScoredBatch", "make_rule"]

REDUCTIONS = ("batch", "selected", "full_batch")


def make_rule(options: dict[str, Any]) -> Rule:
    """Make a rule from its options, e.g. `{"name": "confidence", "threshold": 0.9}`. Raises UserError.

    With a `_target_` it is an instance of the class at that import path.
    """
    options = dict(options)
    name, path = options.pop("name"), options.pop("_target_", None)
    if path is None and name not in RULES:
        raise UserError(f"rule.name={name}: must be one of {', '.join(RULES)}")
    kind = RULES[name] if path is None else resolve(path, "rule._target_")
    if not (isinstance(kind, type) and issubclass(kind, Rule)):
        raise UserError(f"rule._target_={path}: must be a class derived from lazyexp.Rule")
    if kind.reduction not in REDUCTIONS:
        raise UserError(f"rule._target_={path}: reduction={kind.reduction!r} must be one of {', '.join(REDUCTIONS)}")
    known = {entry.name: entry for entry in fields(kind) if entry.init}
    for key, value in options.items():
        if key not in known:
            raise UserError(f"rule.{key}: unknown option of rule {name} (options: {', '.join(known) or 'none'})")
        options[key] = _typed(known[key], value)
    if path is None:
        return _within_bounds(kind(**options))
    missing = [key for key, entry in known.items() if _has_no_default(entry) and key not in options]
    if missing:
        raise UserError(f"rule.{missing[0]}: must be set, rule {name} has no default for it")
    with attribute_errors(f"rule._target_={path}"):
        return _within_bounds(kind(**options))


def _within_bounds(rule: Rule) -> Rule:
    """The rule, after checking the bounds of its options and their combination."""
    for entry in fields(rule):
        check_setting(entry, f"rule.{entry.name}", getattr(rule, entry.name))
    rule.check()
    return rule


def _has_no_default(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _typed(entry: Field[Any], value: Any) -> Any:
    """The value, if it has the type of the option's default."""
    if entry.default is MISSING or entry.default is None:
        return value
    kind = type(entry.default)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"rule.{entry.name}={value}: must be of type {kind.__name__}")
    return value
