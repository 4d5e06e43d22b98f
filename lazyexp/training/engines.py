"""Choice of the engine: an ordered list, of which the first that fits is used."""

from __future__ import annotations

from dataclasses import replace

from lazyexp.errors import UserError
from lazyexp.rules.baselines import Backprop
from lazyexp.training.autograd import AutogradEngine
from lazyexp.training.engine import Engine, EngineSpec
from lazyexp.training.fast.adam import DirectAdam
from lazyexp.training.fast.adaptive import Adaptive
from lazyexp.training.fast.deferred import Deferred
from lazyexp.training.fast.direct import Direct
from lazyexp.training.fast.packed import Packed
from lazyexp.training.fast.plastic import Cached, Largest
from lazyexp.training.fast.rounds import Rounds

# Hand-derived engines for MLPs, most specific first. `Direct` is the last: it takes any SGD on a CPU.
FAST: tuple[type[Engine], ...] = (DirectAdam, Deferred, Rounds, Adaptive, Direct)

# Engines that change only some synapses, see the setting `plasticity`.
RESTRICTED: tuple[type[Engine], ...] = (Largest, Cached)


def make_engine(name: str, spec: EngineSpec) -> Engine:
    """The engine for `spec`; `name` is the setting `engine`. Raises UserError where none fits."""
    if spec.block_size:
        reason = Packed.misfit(spec)
        if reason:
            raise UserError(reason)
        unpacked = replace(spec, rule=Backprop(), packing=type(spec.packing)())
        return Packed(spec, make_engine(name, unpacked))
    reasons = []
    kinds = FAST if spec.plasticity.name == "all" else RESTRICTED
    for kind in () if name == "autograd" else kinds:
        reason = kind.misfit(spec)
        if reason is None:
            return kind(spec)  # type: ignore[call-arg]
        reasons.append(reason)
    if spec.plasticity.name != "all":
        raise UserError(f"plasticity={spec.plasticity.name}: is for model=mlp with optimizer=sgd, without momentum")
    if name == "fast":
        raise UserError(f"engine=fast: {reasons[-1]}; use engine=auto")
    return AutogradEngine(spec)


def engine_table() -> str:
    """Markdown table of the engines in the order in which they are tried."""
    rows = [f"| `{kind.__name__}` | {kind.applies} |" for kind in (Packed, *RESTRICTED, *FAST, AutogradEngine)]
    return "\n".join(["| engine | used for |", "|---|---|", *rows])
