"""The rules, built in or brought along, from their options."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

import torch
from torch import Tensor

from lazyexp.errors import UserError
from lazyexp.registry import RULES
from lazyexp.rules.base import Judged, Rule, RunInfo
from lazyexp.schema import check_setting
from lazyexp.target import blaming, resolve

__all__ = ["RULES", "Judged", "Rule", "RunInfo", "make_rule"]


def make_rule(options: dict[str, Any]) -> Rule:
    """A rule from its options, e.g. `{"name": "confidence", "threshold": 0.9}`. Raises UserError.

    With a `_target_` it is of the class at that import path, and its answers are checked for their shapes.
    """
    options = dict(options)
    name, path = options.pop("name"), options.pop("_target_", None)
    if path is None and name not in RULES:
        raise UserError(f"rule.name={name}: must be one of {', '.join(RULES)}")
    kind = RULES[name] if path is None else resolve(path, "rule._target_")
    if not (isinstance(kind, type) and issubclass(kind, Rule)):
        raise UserError(f"rule._target_={path}: must be a class derived from lazyexp.Rule")
    known = {entry.name: entry for entry in fields(kind) if entry.init}
    for key, value in options.items():
        if key not in known:
            raise UserError(f"rule.{key}: unknown option of rule {name} (it has: {', '.join(known) or 'none'})")
        options[key] = _typed(known[key], value)
    if path is None:
        return _within_bounds(kind(**options))
    missing = [key for key, entry in known.items() if _has_no_default(entry) and key not in options]
    if missing:
        raise UserError(f"rule.{missing[0]}: must be given, rule {name} has no default for it")
    with blaming(f"rule._target_={path}"):
        rule = _within_bounds(kind(**options))
    return _checked(rule, path)


def _within_bounds(rule: Rule) -> Rule:
    """The rule, if each of its options is within its bounds, and they go together."""
    for entry in fields(rule):
        check_setting(entry, f"rule.{entry.name}", getattr(rule, entry.name))
    rule.check()
    return rule


def _has_no_default(entry: Field) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _typed(entry: Field, value: Any) -> Any:
    """The value, if it is of the type of the option's default."""
    if entry.default is MISSING or entry.default is None:
        return value
    kind = type(entry.default)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"rule.{entry.name}={value}: must be of type {kind.__name__}")
    return value


def _checked(rule: Rule, path: str) -> Rule:
    """The rule, with its answers checked: what has another shape would be broadcast, and learn something else."""
    visit, weigh = rule.visit, rule.weigh

    def visit_checked(epoch: int) -> Tensor:
        order = visit(epoch)
        whole = isinstance(order, Tensor) and order.dim() == 1 and order.dtype == torch.int64
        if not whole or len(order) == 0 or int(order.min()) < 0 or int(order.max()) >= rule.info.samples:
            raise UserError(f"rule._target_={path}: visit must return (m,) int64, places of samples, at least one")
        return order

    def weigh_checked(judged: Judged) -> Tensor | None:
        weight = weigh(judged)
        if weight is not None and (not isinstance(weight, Tensor) or weight.shape != judged.targets.shape):
            shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
            raise UserError(f"rule._target_={path}: weigh must return None or ({len(judged.targets)},), not {shape}")
        return weight

    for name, answer in (("visit", visit_checked), ("weigh", weigh_checked)):
        object.__setattr__(rule, name, answer)  # a frozen dataclass, too
    return rule
