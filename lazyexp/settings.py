"""Checked settings, of one run or of all runs of a sweep. Imports torch only when rules are checked."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tqdm.auto import tqdm

from lazyexp.config.compose import compose_settings, hydra_session, parse, unknown_keys
from lazyexp.config.imports import resolve
from lazyexp.config.messages import readable_errors, unknown_key
from lazyexp.config.schema import Settings
from lazyexp.config.settings_files import check_single
from lazyexp.config.validation import NUMBERS, check, check_value, custom_targets
from lazyexp.errors import UserError
from lazyexp.utils.terminal import NO_BAR


def settings_of(overrides: Sequence[str]) -> Settings:
    """The checked settings of the one run with these overrides. Raises UserError."""
    with hydra_session():
        check_single(parse(list(overrides)))
        return checked(compose_settings(list(overrides)))


def settings_of_job(overrides: Sequence[str]) -> Settings:
    """The same for a run of a sweep, which may have overrides that are for sweeps only."""
    with hydra_session():
        return checked(compose_settings(list(overrides)))


def checked(composed: DictConfig) -> Settings:
    """The settings as plain values, all keys known and all values checked. Raises UserError."""
    with readable_errors():
        unknown = unknown_keys(composed)
        if unknown:
            raise UserError(unknown_key(unknown[0]))
        plain: Any = OmegaConf.to_object(composed)
    settings = check(plain)
    _check_rule(settings)
    for group, path in custom_targets(settings).items():
        resolve(path, f"{group}._target_")
    return settings


def _check_rule(settings: Settings) -> None:
    from lazyexp.rules import make_rule

    rules = {f"rule={settings.rule['name']}": make_rule(settings.rule)}
    if settings.stream.base_rule:
        rules[f"stream.base_rule={settings.stream.base_rule}"] = make_rule({"name": settings.stream.base_rule})
    block_size = settings.packing.block_size
    for shown, rule in rules.items():
        if block_size and not rule.pointwise:
            raise UserError(
                f"packing.block_size={block_size}: must be 0 for {shown}; packing needs a rule that decides by a "
                "sample's own logits, such as lazy"
            )


def sweep_settings(jobs: list[list[str]], common: list[str]) -> list[Settings]:
    """The checked settings of a sweep's runs, once for runs that differ in plain numbers within bounds only.

    Composing takes about 0.1 s, so a thousand seeds are composed once. `common` are overrides that every run needs.
    Raises UserError.
    """
    representatives = {tuple(word for word in job if not _plain_number(word)): job for job in reversed(jobs)}
    distinct = dict.fromkeys(tuple(word for word in job if not _plain_number(word)) for job in jobs)
    bar = tqdm(distinct, desc="checking", unit=" settings", leave=False, delay=1, disable=NO_BAR)
    return [checked(compose_settings([*representatives[key], *common])) for key in bar]


def settings_of_each(jobs: list[list[str]], common: list[str]) -> list[Settings]:
    """The checked settings of every run of a sweep, composed once for runs that differ in plain numbers only.

    Raises UserError.
    """
    composed: dict[tuple[str, ...], DictConfig] = {}
    found = []
    for job in jobs:
        numbers = [word for word in job if _plain_number(word)]
        key = tuple(word for word in job if word not in numbers)
        if key not in composed:
            composed[key] = compose_settings([*job, *common])
        one = copy.deepcopy(composed[key])
        for word in numbers:
            name, _, value = word.partition("=")
            OmegaConf.update(one, name, NUMBERS[name](value))
        found.append(checked(one))
    return found


@cache
def _plain_number(word: str) -> bool:
    """Whether `word` sets a number that needs no check but that of its bounds. Raises UserError if it is outside."""
    key, _, value = word.partition("=")
    kind = NUMBERS.get(key)
    if kind is None or not re.fullmatch(r"\d+" if kind is int else r"\d+(\.\d+)?", value):
        return False
    check_value(key, kind(value))
    return True
