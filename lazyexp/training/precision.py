"""Precision of products of float32 matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# The setting `precision` in the words of torch.set_float32_matmul_precision.
TORCH_NAMES = {"float32": "highest", "tf32": "high", "bfloat16": "medium"}


@contextmanager
def matmul_precision(name: str, device: torch.device) -> Iterator[None]:
    """Set the precision of float32 matrix products inside the block: float32, tf32 or bfloat16.

    `float32` is exact. `tf32` is for GPUs. `bfloat16` lets PyTorch round factors on a GPU. On a CPU PyTorch would do
    so for the smallest products, which it makes slower; there the engines round the factors of large ones.
    """
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(TORCH_NAMES[name if device.type == "cuda" else "float32"])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)


def in_use() -> dict[str, str]:
    """The precisions that hold outside `matmul_precision`, for run.json."""
    return {
        "float32_matmul": torch.get_float32_matmul_precision(),
        "cudnn": "tf32" if torch.backends.cudnn.allow_tf32 else "float32",
    }


def fastest_scoring_precision(mlp: bool, pixels: torch.Tensor, projected: bool = False) -> str:
    """What `packing.precision=auto` means for a model, its data and this machine: bfloat16, int8 or float32.

    bfloat16 where the CPU multiplies it (AVX512-BF16, AMX); int8 where it has only VNNI and the pixels are bytes.
    Both were measured to be several times as fast as float32 there (docs/performance.md). float32 on a GPU, where
    nothing was measured, and instead of int8 for scores that are `projected` on components, which are no bytes.
    """
    if not mlp or pixels.is_cuda:
        return "float32"
    if _has("avx512_bf16"):
        return "bfloat16"
    return "int8" if _has("vnni") and pixels.dtype == torch.uint8 and not projected else "float32"


def slow_precision_note(name: str, device: torch.device) -> str | None:
    """A note if the setting `precision` is slower here than float32."""
    if name != "bfloat16" or device.type == "cuda" or _has("avx512_bf16") or _has("amx_tile"):
        return None
    return (
        "note: precision=bfloat16: this processor does not multiply bfloat16; training is slower than in float32, "
        "with convolutions up to ten times"
    )


def _has(feature: str) -> bool:
    """Whether the processor has a feature, as far as this version of torch can tell."""
    return bool(getattr(torch.cpu, f"_is_{feature}_supported", bool)())
