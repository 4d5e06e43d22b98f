"""lazyexp: what does a network gain when it learns only from its mistakes?"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_PLACES = {"LazyLoss": "loss", "lazy_loss": "loss", "Indexed": "sampler", "SpacedSampler": "sampler"}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    # Not imported at once, so that `lazyexp --help` does without torch.
    if name in __all__:
        return getattr(import_module(f"lazyexp.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
