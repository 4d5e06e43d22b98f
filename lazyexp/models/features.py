"""Frozen feature extractors: a trained network without its last layer."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lazyexp.errors import UserError


@dataclass(frozen=True)
class Features:
    """A frozen network in evaluation mode from pixels as stored (b, ...) to features (b, d), and its fingerprint."""

    extract: nn.Module
    sha256: str


class _Scaled(nn.Module):
    """A factor and an offset that move with the module to a device, and are in no state_dict."""

    scale: Tensor
    offset: Tensor

    def __init__(self, scale: float | Tensor, offset: float | Tensor) -> None:
        super().__init__()
        for name, value in (("scale", scale), ("offset", offset)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32), persistent=False)


class Affine(_Scaled):
    """x -> scale * x + offset, as float32; whole numbers of 64 bits are tokens and stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return x if x.dtype == torch.int64 else x.float() * self.scale + self.offset


class Unscale(_Scaled):
    """From the inputs of a network, scale * pixel + offset, to the pixels as they are stored."""

    def __init__(self, scale: float | Tensor, offset: float | Tensor, dtype: torch.dtype) -> None:
        super().__init__(scale, offset)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        pixels = (x - self.offset) / self.scale
        return (pixels if self.dtype.is_floating_point else pixels.round()).to(self.dtype)


def without_last_layer(model: nn.Module, what: str) -> nn.Module:
    """A frozen copy of `model` in evaluation mode, with its last nn.Linear replaced by the identity.

    The last one is that in the order in which the model defines its layers. Raises UserError if there is none.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    linears = [name for name, layer in frozen.named_modules() if isinstance(layer, nn.Linear)]
    if not linears or linears == [""]:
        raise UserError(f"model.features={what}: the network has no last nn.Linear behind other layers")
    parent, _, last = linears[-1].rpartition(".")
    setattr(frozen.get_submodule(parent), last, nn.Identity())
    return nn.Sequential(frozen, nn.Flatten())


def torchvision_features(path: Path) -> Features:
    """The network of a file of torchvision's weights, such as resnet18-f37072fd.pth, without its last layer.

    The file's name begins with the name of the network. Images are resized, cropped and normalised as torchvision
    documents for these weights. Raises UserError.
    """
    from torchvision import models

    what = str(path)
    known = [arch for arch in models.list_models(module=models) if path.name.startswith(arch)]
    if not known:
        raise UserError(f"model.features={what}: the file's name does not begin with a network of torchvision.models")
    arch = max(known, key=len)
    model = models.get_model(arch, weights=None)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load meets damaged files with many types of exceptions
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"model.features={what}: not the weights of {arch} ({reason})") from None
    transform = models.get_model_weights(arch).DEFAULT.transforms()  # nothing is downloaded
    return Features(nn.Sequential(Preset(transform), without_last_layer(model, what)), file_sha256(path))


class Preset(nn.Module):
    """The preprocessing that torchvision documents for its weights, for RGB images (b, 3, h, w) uint8."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        """The images as the network expects them."""
        if x.dim() != 4 or x.shape[1] != 3 or x.dtype != torch.uint8:
            raise UserError("model.features: torchvision's weights need images with 3 channels and values of 8 bits")
        scaled: Tensor = self.transform(x)
        return scaled


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
