"""torchvision's classification models, untrained, fitted to the data's channels and classes."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from lazyexp.errors import UserError


def classifier(shape: tuple[int, ...], classes: int, arch: str, small: bool = False, **options: Any) -> nn.Module:
    """The network `arch` of torchvision.models for images of `shape` (channels, height, width), with its `options`.

    `small` gives a ResNet the stem for small images: a 3x3 convolution without stride or pooling, as for CIFAR in He
    et al. 2016 (arXiv 1512.03385, section 4.2), instead of 7x7 with stride 2 and pooling. Raises UserError.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if arch not in known:
        raise UserError(f"model.arch={arch}: must be one of {', '.join(known)}")
    if len(shape) != 3:
        raise UserError(f"model=torchvision: is for images, not for samples of shape {shape}")
    if arch in ("googlenet", "inception_v3"):  # without auxiliary outputs, and without a warning
        options = {"aux_logits": False, "init_weights": True, **options}
    model: nn.Module = models.get_model(arch, weights=None, num_classes=classes, **options)
    if small:
        if not isinstance(model, models.ResNet):
            raise UserError(f"model.options.small=true: is for ResNets, not for {arch}")
        model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    if shape[0] != 3:
        _take_channels(model, shape[0])
    return model


def _take_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for `channels` input channels, with weights of the same variance."""
    name, first = next((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    kept = {key: getattr(first, key) for key in inspect.signature(nn.Conv2d).parameters if hasattr(first, key)}
    fresh = nn.Conv2d(**{**kept, "in_channels": channels, "bias": first.bias is not None})
    fresh.weight.data.normal_(0, float(first.weight.detach().std()))
    if fresh.bias is not None and first.bias is not None:
        fresh.bias.data.copy_(first.bias.detach())
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, fresh)
