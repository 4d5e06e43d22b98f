"""Choice of the engine: an ordered list, of which the first that fits is used."""

from __future__ import annotations

from dataclasses import replace

from lazyexp.config.schema import PackingConfig
from lazyexp.errors import UserError
from lazyexp.rules.baselines import Backprop
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.engine import Engine, EngineSpec, SpecEngine
from lazyexp.training.fast.adam import DirectAdam
from lazyexp.training.fast.adaptive import Adaptive
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.packed import Packed
from lazyexp.training.fast.plastic import Cached, Largest
from lazyexp.training.fast.rounds import Rounds

# Engines that change only some synapses, see the setting `plasticity`.
RESTRICTED: tuple[type[SpecEngine], ...] = (Largest, Cached)
# Hand-derived engines for MLPs, most specific first. `Direct` is last: it takes any SGD on a CPU.
FAST: tuple[type[SpecEngine], ...] = (DirectAdam, Deferred, Rounds, Adaptive, Direct)


def make_engine(name: str, spec: EngineSpec) -> Engine:
    """Make the engine for `spec`; `name` is the setting `engine`. Raises UserError where none fits."""
    if spec.block_size:
        reason = Packed.misfit(spec)
        if reason:
            raise UserError(reason)
        inner = make_engine(name, replace(spec, rule=Backprop(), packing=PackingConfig()))
        return Packed(spec, inner)
    restricted = spec.plasticity.name != "all"
    smoothed = spec.samples.label_smoothing > 0
    reason = "is for loss.label_smoothing=0"
    for kind in () if name == "autograd" or smoothed else RESTRICTED if restricted else FAST:
        misfit = kind.misfit(spec)
        if misfit is None:
            return kind(spec)
        reason = misfit
    if restricted:
        raise UserError(f"plasticity={spec.plasticity.name}: is for model=mlp with optimizer=sgd, without momentum")
    if name == "fast":
        raise UserError(f"engine=fast: {reason}; use engine=auto")
    return AutogradEngine(spec)


def engine_table() -> str:
    """Markdown table of the engines in the order in which they are tried."""
    inner: tuple[type[SpecEngine], ...] = (*RESTRICTED, *FAST, AutogradEngine)
    rows = [(Packed.__name__, Packed.applies), *((kind.__name__, kind.applies) for kind in inner)]
    return "\n".join(["| engine | used for |", "|---|---|", *(f"| `{name}` | {applies} |" for name, applies in rows)])
