"""How exactly products of float32 matrices are computed, said explicitly: a GPU may round factors to 10 bits."""

from __future__ import annotations

from typing import Any

import torch

# Where PyTorch lets the rounding (TF32, or bfloat16 on a CPU) be chosen, from version 2.9 on by `fp32_precision`.
PLACES = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv")


def exact_on_a_gpu() -> None:
    """No TF32 in matrix products and convolutions: a run on a GPU then differs from the CPU's by rounding alone."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        for place in PLACES[:3]:
            _find(place).fp32_precision = "ieee"
    else:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def in_use() -> dict[str, str]:
    """The present choices, for run.json; `none` leaves it to PyTorch, whose default is float32 as it is."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return {place: str(_find(place).fp32_precision) for place in PLACES}
    tf32 = {"cuda.matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32}
    return {place: "tf32" if allowed else "ieee" for place, allowed in tf32.items()}


def _find(place: str) -> Any:
    owner: Any = torch.backends
    for name in place.split("."):
        owner = getattr(owner, name)
    return owner
