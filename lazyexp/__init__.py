"""lazyexp: what does a network gain when it learns only from its mistakes?"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["LazyLoss", "lazy_loss"]


def __getattr__(name: str) -> Any:
    # Not imported at once, so that `lazyexp --help` does without torch.
    if name in __all__:
        from lazyexp import loss

        return getattr(loss, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
