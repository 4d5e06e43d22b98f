"""The rules by name. To add one: a class, a line here, a file in conf/rule, a test."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lazyexp.errors import UserError
from lazyexp.rules.base import Backprop, Judged, Rule, RunInfo
from lazyexp.rules.controls import Random
from lazyexp.rules.dropout import MatchedDropout, ScalarDropout
from lazyexp.rules.early_stopping import EarlyStopping
from lazyexp.rules.mistakes import Confidence, Lazy, Progressive, Spaced, Sticky
from lazyexp.rules.peers import InfoBatch, Kakurenbo, TopLoss
from lazyexp.rules.sampling import EvolvedSampling, OrderDP
from lazyexp.rules.selective_backprop import ComposerSelectiveBackprop, SelectiveBackprop

RULES: dict[str, type[Rule]] = {
    "backprop": Backprop,
    "lazy": Lazy,
    "confidence": Confidence,
    "random": Random,
    "sticky": Sticky,
    "progressive": Progressive,
    "spaced": Spaced,
    "top_loss": TopLoss,
    "selective_backprop": SelectiveBackprop,
    "composer_selective_backprop": ComposerSelectiveBackprop,
    "infobatch": InfoBatch,
    "kakurenbo": Kakurenbo,
    "early_stopping": EarlyStopping,
    "evolved_sampling": EvolvedSampling,
    "order_dp": OrderDP,
    "smrd": MatchedDropout,
    "srd": ScalarDropout,
}

__all__ = ["RULES", "Judged", "Rule", "RunInfo", "make_rule"]


def make_rule(options: dict[str, Any]) -> Rule:
    """A rule from its options, e.g. `{"name": "confidence", "threshold": 0.9}`. Raises UserError."""
    options = dict(options)
    name = options.pop("name")
    if name not in RULES:
        raise UserError(f"rule.name={name}: must be one of {', '.join(RULES)}")
    kinds = {field.name: type(field.default) for field in fields(RULES[name])}
    for key, value in options.items():
        if key not in kinds:
            known = ", ".join(kinds) or "none"
            raise UserError(f"rule.{key}: unknown option of rule {name} (it has: {known})")
        if kinds[key] is float and type(value) is int:
            options[key] = value = float(value)
        if type(value) is not kinds[key]:
            raise UserError(f"rule.{key}={value}: must be of type {kinds[key].__name__}")
    rule = RULES[name](**options)
    rule.check()
    return rule
