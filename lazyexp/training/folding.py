"""Training on principal components: the network's first layer takes components, the saved one takes inputs.

With r = V^T (x - m), a first layer (W', b') of components is the layer W = W' V^T, b = b' - W' V^T m of inputs: the
same function of every input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lazyexp.data import Data
from lazyexp.data.components import Components, ComponentSamples, principal_components
from lazyexp.errors import UserError
from lazyexp.training.clock import Clock
from lazyexp.training.fast.layers import Layers


def onto_components(data: Data, model: nn.Module, count: int, clock: Clock, seed: int = 0) -> None:
    """Replace inputs and first layer by their projections on `count` principal components of the training inputs.

    The new layer starts from the projection of the initial one, so that seeds, scale and learning rate keep their
    meaning. Components and training inputs are computed on the clock. Raises UserError.
    """
    if not Layers.fit(model):
        raise UserError(f"dataset.components={count}: is for model=mlp")
    assert isinstance(model, nn.Sequential)
    with clock:
        data.train.start_epoch(seed, 0)  # augmented samples are those of the first epoch
        components = principal_components(data.train, count, "dataset.components")
        data.train = ComponentSamples(data.train, components)
    data.test = ComponentSamples(data.test, components)
    if data.val is not None:
        data.val = ComponentSamples(data.val, components)
    first = model[1]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        new = nn.Linear(count, first.out_features).to(first.weight)
        new.weight.copy_(first.weight @ components.basis)
        new.bias.copy_(first.bias + first.weight @ components.mean)
    model[1] = new


def components_of(data: Data) -> Components | None:
    """The components that the data are projected on, if they are."""
    return data.train.components if isinstance(data.train, ComponentSamples) else None


def restore_components(data: Data, state: dict[str, Tensor]) -> None:
    """Project the data on the components of a checkpoint."""
    for samples in (data.train, data.test, data.val):
        if isinstance(samples, ComponentSamples):
            samples.restore(state)


def folded(state: dict[str, Any], components: Components) -> dict[str, Any]:
    """The state_dict of the network of inputs, from that of the network of components."""
    weight, bias = state["1.weight"].double(), state["1.bias"].double()
    full = weight @ components.basis.double().t()
    shifted = bias - full @ components.mean.double()
    return {**state, "1.weight": full.to(state["1.weight"]), "1.bias": shifted.to(state["1.bias"])}
