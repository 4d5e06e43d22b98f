"""The mathematics of an MLP by hand: what autograd would do, without autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lazyexp.config.schema import OptimizerConfig

# activation: (z into h), (dL/dh, z, h into dL/dz); the very kernels that autograd calls.
_aten = torch.ops.aten
ACTIVATIONS: dict[type[nn.Module], tuple[Callable[..., object], Callable[..., object]]] = {
    nn.ReLU: (
        lambda z, h: torch.clamp_min(z, 0, out=h),
        lambda grad, z, h, out: _aten.threshold_backward.grad_input(grad, h, 0, grad_input=out),
    ),
    nn.LeakyReLU: (
        lambda z, h: _aten.leaky_relu.out(z, 0.01, out=h),
        lambda grad, z, h, out: _aten.leaky_relu_backward.grad_input(grad, z, 0.01, False, grad_input=out),
    ),
    nn.GELU: (
        lambda z, h: _aten.gelu.out(z, out=h),
        lambda grad, z, h, out: _aten.gelu_backward.grad_input(grad, z, grad_input=out),
    ),
    nn.Tanh: (
        lambda z, h: torch.tanh(z, out=h),
        lambda grad, z, h, out: _aten.tanh_backward.grad_input(grad, h, grad_input=out),
    ),
}


class Layers:
    """The weights of an MLP as plain tensors that are changed in place.

    Shapes: weight (out, in), bias (out,), a batch (b, in). With z_l = h_(l-1) W_l^T + b_l and h_l = f(z_l), the
    gradient of the summed softmax cross-entropy is delta_L = softmax(z_L) - onehot,
    delta_l = (delta_(l+1) W_(l+1)) * f'(z_l), dW_l = delta_l^T h_(l-1), db_l = sum of delta_l over the batch.
    """

    def __init__(self, model: nn.Module) -> None:
        assert isinstance(model, nn.Sequential)  # see `fit`
        linears = [layer for layer in model if isinstance(layer, nn.Linear)]
        self.weights = [layer.weight.detach() for layer in linears]
        self.biases = [layer.bias.detach() for layer in linears]
        self.activate, self.differentiate = ACTIVATIONS[type(model[2])]
        self.inputs, self.classes = self.weights[0].shape[1], self.weights[-1].shape[0]
        self.width, self.depth = self.weights[0].shape[0], len(linears) - 1

    @staticmethod
    def fit(model: nn.Module) -> bool:
        """Whether the model is an MLP of the kind that the built-in `mlp` is, whoever made it."""
        layers = list(model) if type(model) is nn.Sequential else []
        kinds = [type(layer) for layer in layers]
        if len(kinds) < 4 or kinds[0] is not nn.Flatten or kinds[2] not in ACTIVATIONS:
            return False
        if kinds[1:] != [nn.Linear, kinds[2]] * ((len(kinds) - 2) // 2) + [nn.Linear]:
            return False
        linears, activations = layers[1::2], layers[2::2]
        whole = all(layer.bias is not None for layer in linears) and all(p.requires_grad for p in model.parameters())
        apart = len({id(layer) for layer in linears}) == len(linears)
        as_usual = all(repr(layer) == repr(kinds[2]()) for layer in activations) and repr(layers[0]) == repr(
            nn.Flatten()
        )
        hooked = any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
        return (
            whole and apart and as_usual and not hooked and len({layer.out_features for layer in linears[:-1]}) == 1
        )

    def first(self, inputs: Tensor) -> Tensor:
        """Pre-activations of the first hidden layer: (b, in) -> (b, width)."""
        return torch.addmm(self.biases[0], inputs, self.weights[0].t())

    def rest(self, z: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """From the first pre-activations (b, width): all z, all h, and the logits (b, classes)."""
        zs, hs = [z], [torch.empty_like(z)]
        self.activate(z, hs[0])
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            zs.append(torch.addmm(bias, hs[-1], weight.t()))
            hs.append(torch.empty_like(zs[-1]))
            self.activate(zs[-1], hs[-1])
        return zs, hs, torch.addmm(self.biases[-1], hs[-1], self.weights[-1].t())

    def backward(self, last: Tensor, zs: list[Tensor], hs: list[Tensor]) -> list[Tensor]:
        """The deltas of all layers, first to last, given the last one (b, classes)."""
        deltas = [last]
        for weight, z, h in zip(self.weights[:0:-1], zs[::-1], hs[::-1], strict=True):
            deltas.append(deltas[-1] @ weight)
            self.differentiate(deltas[-1], z, h, deltas[-1])
        return deltas[::-1]


def is_plain_sgd(optimizer: OptimizerConfig) -> bool:
    """Whether a step is w <- w - rate * gradient."""
    return optimizer.name == "sgd" and optimizer.momentum == 0 and optimizer.weight_decay == 0


def divisor(presented: Any, learning: Any, reduction: str) -> Any:
    """What the summed gradient of a batch is divided by, see the setting optimizer.reduction."""
    return presented if reduction == "batch" else learning


def on_device(values: list[float], like: Tensor) -> Tensor:
    """Numbers of the host in the precision and on the device of `like`; does not wait for a GPU."""
    made = torch.tensor(values, dtype=like.dtype)
    return made.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else made
