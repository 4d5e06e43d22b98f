"""lazyexp: train networks on the samples they misclassify, and measure what that costs and saves."""

from importlib import import_module

__version__ = "0.2.0"

TYPE_CHECKING = False  # as typing has it, without its import: Ctrl-C is not caught yet
if TYPE_CHECKING:
    from lazyexp.api import Run as Run
    from lazyexp.api import finished as finished
    from lazyexp.api import open as open
    from lazyexp.api import read as read
    from lazyexp.api import run as run
    from lazyexp.api import sweep as sweep
    from lazyexp.errors import UserError as UserError
    from lazyexp.loss import LazyLoss as LazyLoss
    from lazyexp.loss import MistakeGatedLoss as MistakeGatedLoss
    from lazyexp.loss import lazy_loss as lazy_loss
    from lazyexp.report.build import write_report as report
    from lazyexp.rules import Rule as Rule
    from lazyexp.rules import ScoredBatch as ScoredBatch
    from lazyexp.sampler import Indexed as Indexed
    from lazyexp.sampler import SpacedSampler as SpacedSampler

# Imported on access: `lazyexp --help` does without torch, and the loss and the sampler with torch alone.
_MODULES = {
    "Indexed": "sampler",
    "LazyLoss": "loss",
    "MistakeGatedLoss": "loss",
    "Rule": "rules",
    "Run": "api",
    "ScoredBatch": "rules",
    "SpacedSampler": "sampler",
    "UserError": "errors",
    "finished": "api",
    "lazy_loss": "loss",
    "open": "api",
    "read": "api",
    "run": "api",
    "sweep": "api",
}
__all__ = [*_MODULES, "report"]


def __getattr__(name: str) -> object:
    if name == "report":  # a package that can be called
        return import_module("lazyexp.report")
    if name in _MODULES:
        return getattr(import_module(f"lazyexp.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
