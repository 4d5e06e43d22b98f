"""Forward and backward pass of an MLP without autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from lazyexp.config.schema import OptimizerConfig
from lazyexp.data import Samples
from lazyexp.utils.products import affine, matmul

Presented = TypeVar("Presented")
Selected = TypeVar("Selected")

# Called after an update of the first layer by W += deltas^T inputs: deltas (b, width), inputs (b, in), index (b,).
Changed = Callable[[Tensor, Tensor, Tensor], None]

# activation: (z into h), (dL/dh, z, h into dL/dz); the kernels that autograd calls.
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
# Where a module, a parameter and PyTorch itself keep hooks.
MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in MODULE_HOOKS)


class Layers:
    """The weights of an MLP as plain tensors that are changed in place.

    Shapes: weight (out, in), bias (out,), a batch (b, in). With z_l = h_(l-1) W_l^T + b_l and h_l = f(z_l), the
    gradient of the summed softmax cross-entropy is delta_L = softmax(z_L) - onehot,
    delta_l = (delta_(l+1) W_(l+1)) * f'(z_l), dW_l = delta_l^T h_(l-1), db_l = sum of delta_l over the batch.

    With `rounded`, the factors of all products but those of the last layer are in bfloat16.
    """

    def __init__(self, model: nn.Module, rounded: bool = False) -> None:
        assert isinstance(model, nn.Sequential)  # see `fit`
        linears = [layer for layer in model if isinstance(layer, nn.Linear)]
        self.weights = [layer.weight.detach() for layer in linears]
        self.biases = [layer.bias.detach() for layer in linears]
        self.rounded = rounded
        self.activate, self.differentiate = ACTIVATIONS[type(model[2])]
        self.inputs, self.classes = self.weights[0].shape[1], self.weights[-1].shape[0]
        self.width, self.depth = self.weights[0].shape[0], len(linears) - 1

    @staticmethod
    def fit(model: nn.Module) -> bool:
        """Whether the model computes what the built-in `mlp` computes, and nothing else happens on the way.

        Refuses other layers or options, unequal widths, parametrizations, shared or frozen parameters, instances with
        a `forward` of their own, and all hooks.
        """
        layers = list(model) if type(model) is nn.Sequential else []
        kinds = [type(layer) for layer in layers]
        if len(kinds) < 4 or kinds[0] is not nn.Flatten or kinds[2] not in ACTIVATIONS:
            return False
        if kinds[1:] != [nn.Linear, kinds[2]] * ((len(kinds) - 2) // 2) + [nn.Linear]:
            return False
        linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        expected = [parameter for layer in linears for parameter in (layer.weight, layer.bias)]
        default_options = all(repr(layer) == repr(type(layer)()) for layer in (layers[0], *layers[2::2]))
        return (
            default_options
            and all(type(parameter) is nn.Parameter and parameter.requires_grad for parameter in expected)
            and [id(parameter) for parameter in model.parameters()] == [id(parameter) for parameter in expected]
            and len({parameter.untyped_storage().data_ptr() for parameter in expected}) == len(expected)
            and len({parameter.dtype for parameter in expected}) == 1
            and len({layer.out_features for layer in linears[:-1]}) == 1
            and not _intervenes(model)
        )

    def factor(self, values: Tensor) -> Tensor:
        """Values of hidden units as a factor of a product: in bfloat16 if products are rounded."""
        return values.to(torch.bfloat16) if self.rounded else values

    def batch(self, samples: Samples, index: Tensor) -> tuple[Tensor, Tensor]:
        """Flat inputs (b, in), as a factor of a product, and targets (b,) of the samples `index` (b,)."""
        if self.rounded:
            return samples.rounded(index)
        inputs, targets = samples.batch(index)
        return inputs.flatten(1), targets

    def first(self, inputs: Tensor) -> Tensor:
        """Pre-activations of the first hidden layer: (b, in) -> (b, width)."""
        return affine(inputs, self.weights[0], self.biases[0])

    def rest(self, z: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """From the first pre-activations (b, width): all z, all h, and the logits (b, classes)."""
        zs, hs = [z], [torch.empty_like(z)]
        self.activate(z, hs[0])
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            zs.append(affine(self.factor(hs[-1]), weight, bias))
            hs.append(torch.empty_like(zs[-1]))
            self.activate(zs[-1], hs[-1])
        return zs, hs, affine(hs[-1], self.weights[-1], self.biases[-1])

    @torch.inference_mode()
    def logits(self, inputs: Tensor) -> Tensor:
        """The logits (b, classes) of inputs (b, ...)."""
        return self.rest(self.first(inputs.flatten(1)))[2]

    def backward(self, last: Tensor, zs: list[Tensor], hs: list[Tensor]) -> list[Tensor]:
        """The deltas of all layers, first to last, given the last one (b, classes)."""
        deltas = [last]
        for weight, z, h in zip(self.weights[:0:-1], zs[::-1], hs[::-1], strict=True):
            last_layer = weight is self.weights[-1]
            deltas.append(matmul(deltas[-1] if last_layer else self.factor(deltas[-1]), weight))
            self.differentiate(deltas[-1], z, h, deltas[-1])
        return deltas[::-1]


def _intervenes(model: nn.Module) -> bool:
    """Whether hooks, or a `forward` of an instance, would be skipped by computing the layers by hand."""
    modules, parameters = list(model.modules()), list(model.parameters())
    return (
        any(getattr(layer, name, None) for layer in modules for name in MODULE_HOOKS)
        or any(getattr(parameter, name, None) for parameter in parameters for name in TENSOR_HOOKS)
        or any(getattr(torch_module, name, None) for name in GLOBAL_HOOKS)
        or any("forward" in vars(layer) for layer in modules)
    )


def is_sgd(optimizer: OptimizerConfig) -> bool:
    """Whether the optimizer is torch.optim.SGD, without Nesterov momentum."""
    return optimizer.name == "sgd" and not optimizer._target_ and not optimizer.nesterov


def is_plain_sgd(optimizer: OptimizerConfig) -> bool:
    """Whether a step is w <- w - rate * gradient."""
    return is_sgd(optimizer) and optimizer.momentum == 0 and optimizer.weight_decay == 0


def divisor(presented: Presented, selected: Selected, reduction: str) -> Presented | Selected:
    """What the summed gradient of a batch is divided by, see the setting optimizer.reduction."""
    return presented if reduction == "batch" else selected


def on_device(values: list[float], like: Tensor) -> Tensor:
    """Numbers of the host in the precision and on the device of `like`; does not wait for a GPU."""
    made = torch.tensor(values, dtype=like.dtype)
    return made.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else made
