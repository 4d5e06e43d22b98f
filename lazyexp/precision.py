"""How exactly matrix products are computed while training, in PyTorch's own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Inside, products of float32 matrices are as exact as `name` says: highest, high or medium.

    As torch.set_float32_matmul_precision: `highest` is float32 throughout; `medium` lets factors be rounded to
    bfloat16, with sums in float32, where the processor has instructions for it (AMX, AVX512-BF16); TF32 on a GPU.
    """
    former = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)
