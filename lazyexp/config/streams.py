"""The keys `stream.*` and `memory.*`: what is presented when, and what is stored for replay.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lazyexp.config.fields import Freezable, require, setting
from lazyexp.config.registry import RULES

STREAMS = {
    "iid": "all samples, shuffled in every epoch",
    "classes": "in phases of classes, `epochs` passes each",
    "online": "every sample once, with or without phases",
}
MEMORIES = {
    "mistakes": "samples ever misclassified",
    "reservoir": "a uniform random sample",
    "balanced": "a uniform random sample of every class, equal sizes",
}


@dataclass
class StreamConfig(Freezable):
    """The keys `stream.*`."""

    name: str = setting("iid", "what is presented when", choices=STREAMS)
    phases: Any = setting(
        None, "classes of each phase, such as [[0,1,2],[3],[4]], or a number of equal phases; null: one phase"
    )
    base_rule: str | None = setting(None, "rule of the first phase, such as backprop; null: rule.name")
    present: str = setting(
        "new",
        "samples that a phase after the first presents",
        choices={"new": "those of its own classes", "all": "those of all classes so far"},
    )


@dataclass
class MemoryConfig(Freezable):
    """The keys `memory.*`."""

    name: str | None = setting(None, "samples stored for replay; null: none", choices=MEMORIES)
    capacity: int | None = setting(None, "stored samples at most; null: unlimited", at_least=1)
    replay_every: int | None = setting(None, "replay the store after so many new samples", at_least=1)
    growth: float | None = setting(
        None, "replay the store once it has grown by this share since the last replay", above=0
    )
    replay_epochs: int = setting(1, "passes over the store in a replay", at_least=1)
    forget: bool = setting(False, "mistakes: drop a stored sample once a replay classifies it correctly")
    restart_epochs: int = setting(
        0, "passes in which a new network is trained on the store alone, after the stream (GDumb); 0: off", at_least=0
    )


def check_time_limit(stream: StreamConfig, memory: MemoryConfig, max_seconds: float | None) -> None:
    """Refuse a time limit with phases: a schedule of the whole run's seconds is none of a phase. Raises UserError."""
    phases = stream.phases is not None or memory.restart_epochs > 0
    wanted = "null with stream.phases or memory.restart_epochs, where every phase has its own schedule"
    require(max_seconds is None or not phases, "max_seconds", max_seconds, wanted)


def check_stream(stream: StreamConfig, epochs: int | None, subset: str | None) -> None:
    """Raise UserError for keys of a stream that contradict each other or the rest of the settings."""
    phases = stream.phases
    if phases is not None:
        _check_phases(phases)
        require(stream.name != "iid", "stream.phases", phases, "null for stream=iid; set stream=classes or online")
    require(stream.name != "classes" or phases is not None, "stream.phases", "null", "set for stream=classes")
    if stream.name == "online":
        require(epochs in (None, 1), "epochs", epochs, "1 for stream=online, which presents every sample once")
        require(stream.present == "new", "stream.present", stream.present, "new for stream=online")
    require(phases is not None or stream.present == "new", "stream.present", stream.present, "new without phases")
    require(
        phases is not None or stream.base_rule is None,
        "stream.base_rule",
        stream.base_rule,
        "null without stream.phases",
    )
    require(stream.base_rule in (None, *RULES), "stream.base_rule", stream.base_rule, f"one of {', '.join(RULES)}")
    require(stream.name == "iid" or not subset, "dataset.subset", subset, f"null for stream={stream.name}")


def _check_phases(phases: Any) -> None:
    wanted = "a number of phases from 1, or a list of lists of classes, such as [[0,1],[2]]"
    if isinstance(phases, int) and not isinstance(phases, bool):
        require(phases >= 1, "stream.phases", phases, wanted)
        return
    lists = isinstance(phases, (list, tuple)) and all(isinstance(part, (list, tuple)) for part in phases)
    require(lists and len(phases) > 0, "stream.phases", phases, wanted)
    for number, part in enumerate(phases, 1):
        require(len(part) > 0, "stream.phases", phases, f"lists with at least one class; phase {number} has none")
        for label in part:
            valid = isinstance(label, int) and not isinstance(label, bool) and label >= 0
            require(valid, "stream.phases", phases, f"lists of class numbers from 0; {label!r} is none")
    given = [label for part in phases for label in part]
    twice = next((label for label in given if given.count(label) > 1), None)
    require(twice is None, "stream.phases", phases, f"lists without repeats; class {twice} is there twice")


def check_memory(memory: MemoryConfig) -> None:
    """Raise UserError for keys of a memory that contradict each other."""
    default = MemoryConfig()
    if memory.name is None:
        for key in ("capacity", "replay_every", "growth", "replay_epochs", "forget", "restart_epochs"):
            value = getattr(memory, key)
            require(value == getattr(default, key), f"memory.{key}", value, "unset without memory.name")
        return
    require(
        memory.growth is None or memory.replay_every is None,
        "memory.growth",
        memory.growth,
        "null with memory.replay_every: one of them starts a replay",
    )
    require(
        not memory.forget or memory.name == "mistakes",
        "memory.forget",
        memory.forget,
        f"false for memory={memory.name}; it is for memory=mistakes",
    )
    replays = memory.growth is not None or memory.replay_every is not None
    require(
        replays or memory.replay_epochs == 1,
        "memory.replay_epochs",
        memory.replay_epochs,
        "1 without memory.replay_every or memory.growth",
    )
