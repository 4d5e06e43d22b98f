"""Settings in which a rule is backprop: excluded from searches if known before, else credited to backprop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lazyexp.config.compose import parse
from lazyexp.config.quoting import override
from lazyexp.config.settings_files import preset_values
from lazyexp.report import BASELINE
from lazyexp.rules import make_rule

# (rule, epochs, batch size) -> whether every sample of every epoch is selected with weight 1, whatever the data.
Test = Callable[[Any, int, int], bool]


def _infobatch(rule: Any, epochs: int, batch_size: int) -> bool:
    return bool(rule.ratio == 0 or rule.anneal * epochs < 2)  # the first epoch drops nothing


def _composer(rule: Any, epochs: int, batch_size: int) -> bool:
    return bool(rule.keep == 1 or rule.interrupt == 1 or rule.begin >= rule.end)


def _revised(rule: Any, epochs: int, batch_size: int) -> bool:
    return bool(rule.revision_epochs >= epochs)


TESTS: dict[str, Test] = {
    "progressive": _revised,
    "smrd": _revised,
    "srd": lambda rule, epochs, _: rule.decay == 1 or rule.revision_epochs >= epochs - 1,  # epoch 0 presents all
    "early_stopping": lambda rule, epochs, _: rule.threshold == 0 or epochs < rule.average + 4,
    "selective_backprop": lambda rule, epochs, _: rule.beta == 0 or epochs == 1,
    "composer_selective_backprop": _composer,
    "infobatch": _infobatch,
    "bls": lambda rule, epochs, size: rule.method == "infobatch" and _infobatch(rule, epochs, size),
    "kakurenbo": lambda rule, epochs, _: rule.fraction == 0 or epochs == 1,
    "evolved_sampling": lambda rule, epochs, _: rule.keep == 1 or rule.anneal == 0.5,
    "order_dp": lambda rule, epochs, _: rule.subset == rule.top == 1,
    "top_loss": lambda rule, epochs, size: rule.q >= size,
    "repb": lambda rule, epochs, _: rule.ratio == 0 or epochs == 1,
    "rho_loss": lambda rule, epochs, _: rule.keep == 1,
}


def is_backprop(rule: Mapping[str, Any], epochs: int, batch_size: int) -> bool:
    """Whether a rule (its name and options) selects all samples by construction."""
    test = TESTS.get(rule["name"])
    return test is not None and test(make_rule(dict(rule)), epochs, batch_size)


def selects_all(summary: Mapping[str, Any]) -> bool:
    """Whether a run selected every sample of all its epochs. `summary` is its row of summary.csv.

    `backward_samples` equal to `samples_seen` is not enough: rules such as infobatch do not present what they drop,
    and `samples_seen` counts presented samples.
    """
    scheduled = round(float(summary["epoch"]) * int(summary["train_size"]))
    return int(summary["backward_samples"]) == int(summary["samples_seen"]) == scheduled


def as_backprop(overrides: Sequence[str]) -> list[str]:
    """The overrides with backprop as the rule, without options of the former rule and without packing.

    What a preset of the former rule sets besides, such as a batch size, is kept.
    """
    keys = {word: word.partition("=")[0].lstrip("+~") for word in overrides}
    kept = [word for word in overrides if not _of_rule(keys[word])]
    preset = preset_values(parse([word for word in overrides if keys[word] in ("rule", "rule.name")]))
    given = {keys[word] for word in kept}
    values = {key: value for key, value in preset.items() if not _of_rule(key) and key not in given}
    return [f"rule={BASELINE}", *(override(key, value) for key, value in values.items()), *kept]


def _of_rule(key: str) -> bool:
    return key in ("rule", "rule_label") or key.startswith(("rule.", "packing."))
