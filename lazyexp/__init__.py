"""lazyexp: what does a network gain when it learns only from its mistakes?"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_PLACES = {
    "Indexed": "sampler",
    "LazyLoss": "loss",
    "Rule": "rules",
    "SpacedSampler": "sampler",
    "UserError": "errors",
    "finished": "api",
    "lazy_loss": "loss",
    "read": "api",
    "run": "api",
    "sweep": "api",
}
__all__ = [*_PLACES, "report"]


def __getattr__(name: str) -> Any:
    # Not imported at once, so that `lazyexp --help` does without torch.
    if name == "report":
        return import_module("lazyexp.report")
    if name in _PLACES:
        return getattr(import_module(f"lazyexp.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
