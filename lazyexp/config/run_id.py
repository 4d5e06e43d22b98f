"""The identity of a run: which settings can change its result, and the folder name that follows from them.

Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lazyexp.config.fields import default_of, value_at, walk
from lazyexp.config.schema import Config, ModelConfig, Settings

# Settings that change where, how safely and under which label a run is stored, but not its result.
NOT_IN_RUN_ID = ("data_dir", "runs_dir", "overwrite", "checkpoint_every", "rule_label", "tracker")
# Increased when the meaning of a setting changes, so that older results are not taken for new ones.
SCHEMA = 4


def run_id(
    config: Settings, rule: dict[str, Any], device: str, data: str, sources: dict[str, Any] | None = None
) -> str:
    """The run's folder name: a readable part, and a hash of everything that can change its result.

    Only what differs from the defaults is hashed, so that a new key leaves finished runs valid.

    Args:
        config: the checked settings.
        rule: `Rule.identity()`.
        device: type of the device, "cpu" or "cuda".
        data: fingerprint of the samples; the same command on other data is another run.
        sources: SHA-256 of the source of every custom part, by group.
    """
    ignored = (
        *NOT_IN_RUN_ID,
        "rule",
        "device",
        "dataset.path",
        "dataset.mirror",
        "model.features",
    )  # their content counts
    settings = {key: value for key, value in differing(config).items() if key not in ignored}
    settings.update(schema=SCHEMA, rule={"name": config.rule["name"], **rule}, device=device, data=data)
    if sources:
        settings.update(sources=sources, rule={**settings["rule"], "_target_": config.rule.get("_target_")})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:10]
    parts = (
        config.dataset.name,
        config.rule["name"],
        network_label(config.model),
        f"b{config.batch_size}",
        f"lr{config.optimizer.lr:g}",
        f"s{config.seed}",
        digest,
    )
    return "-".join(parts)


def network_label(model: ModelConfig) -> str:
    """The network's part of a run's name."""
    if model._target_ or model.arch:
        return model.arch or model.name
    return f"resnet{model.depth}" if model.name == "resnet" else f"w{model.width}"


def differing(config: Config) -> dict[str, Any]:
    """The settings that are not at their defaults, by dotted key."""
    defaults = {key: default_of(entry) for schema in (config, Config) for key, entry in walk(schema)}
    return {key: value_at(config, key) for key, default in defaults.items() if value_at(config, key) != default}
