"""Which settings make a run another one, and the name that follows from them.

Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any

from lazyexp.config.schema import Config, ModelConfig, Settings

# Settings that say where, how safely and under which name a run is done; they cannot change its result.
NOT_IN_RUN_ID = ("data_dir", "runs_dir", "overwrite", "checkpoint_every", "rule_label", "tracker")
# Raised when the meaning of a setting changes, so that results from before are not taken for new ones.
SCHEMA = 3


def run_id(
    config: Settings, rule: dict[str, Any], device: str, data: str, sources: dict[str, Any] | None = None
) -> str:
    """The run's folder name: a readable part and a hash of everything that can change its result.

    The hash is of what differs from the defaults, so that a new key leaves finished runs valid. `rule` is the
    rule's `identity`, `device` the kind that computes ("cpu" or "cuda"), `data` a fingerprint of the samples, so
    that the same command on other data is another run. `sources`: the SHA-256 of what was brought along, by group.
    """
    ignored = (*NOT_IN_RUN_ID, "rule", "device", "dataset.path", "dataset.mirror")  # of the data, the content counts
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
    """What a run's name says of its network."""
    if model._target_ or model.arch:
        return model.arch or model.name
    return f"w{model.width}"


def differing(config: Any, prefix: str = "") -> dict[str, Any]:
    """The settings that are not at their defaults, with dotted keys."""
    different: dict[str, Any] = {}
    for entry in fields(Config if isinstance(config, Config) else config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            different.update(differing(value, f"{prefix}{entry.name}."))
        elif value != (entry.default_factory() if callable(entry.default_factory) else entry.default):
            different[prefix + entry.name] = value
    return different
