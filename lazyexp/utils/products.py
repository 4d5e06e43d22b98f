"""Products of float32 matrices on a CPU: which library computes them. All hand-derived engines call these functions.

PyTorch computes them with MKL, which runs AVX2 code on processors of AMD, whatever they have. oneDNN, which PyTorch
also contains, uses their AVX-512: about twice as fast for large products, slower for small ones, and equal up to the
order of summation. The choice follows from the processor and the shape alone, never from a measurement, so a resumed
run continues with the same arithmetic.

If the samples are in bfloat16 and there are 32 or more, the other factor is rounded, too; results are float32.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

BF16 = torch.bfloat16
# From here on oneDNN is faster where it has wider instructions: samples, and multiplications of the product. Below,
# its fixed cost of some 10 us per call is not recovered.
ROWS = 32
WORK = 2**23
# Largest relative difference between the two libraries in the self-check: the order of summation, not the precision.
TOLERANCE = 1e-5


def library() -> str:
    """The library of large float32 products on this machine, for run.json: `oneDNN`, or PyTorch's `default`."""
    return "oneDNN" if onednn_is_faster() else "default"


@cache
def onednn_is_faster() -> bool:
    """Whether large products go to oneDNN: an AMD processor with AVX-512, MKL as the default, and equal results."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and is_amd()
        and agrees()
    )


@cache
def is_amd() -> bool:
    """Whether the processor is one of AMD's."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return "AuthenticAMD" in platform.processor()


def agrees() -> bool:
    """Whether oneDNN's operator exists in this version of PyTorch and computes what `addmm` computes."""
    rng = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=rng) for shape in ((40, 70), (50, 70), (50,)))
    delta = torch.randn(40, 50, generator=rng)
    try:
        pairs = (
            (_onednn(x, weight, bias), torch.addmm(bias, x, weight.t())),
            (
                _onednn(delta.t(), x.t(), None),
                delta.t() @ x,
            ),
        )
    except Exception:  # a private operator: another version may lack it or call it differently
        return False
    return all(
        one.shape == other.shape and one.dtype == other.dtype and _distance(one, other) < TOLERANCE
        for one, other in pairs
    )


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """X weight^T + bias in float32, by oneDNN. PyTorch has no public function for it."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _rounds(x: Tensor, other: Tensor) -> bool:
    """Whether the product of x with `other` has bfloat16 factors: rounding the other one pays off for many rows."""
    return x.dtype == BF16 != other.dtype and len(x) >= ROWS


def _to_onednn(x: Tensor, outputs: int) -> bool:
    """Whether oneDNN computes the product of x (b, in) with `outputs` columns or rows."""
    return (
        len(x) >= ROWS
        and outputs >= ROWS
        and x.numel() * outputs >= WORK
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and onednn_is_faster()
    )


def affine(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor | None = None) -> Tensor:
    """X weight^T + bias, into `out` if it is given: (b, in), (out, in), (out,) -> (b, out)."""
    if _rounds(x, weight):
        result = torch.addmm(bias.to(BF16), x, weight.to(BF16).t())
        return result.to(weight.dtype) if out is None else out.copy_(result)
    x = x.to(weight.dtype)
    if _to_onednn(x, len(weight)):
        result = _onednn(x, weight, bias)
        return result if out is None else out.copy_(result)
    return torch.addmm(bias, x, weight.t(), out=out)


def matmul(x: Tensor, weight: Tensor) -> Tensor:
    """X weight: (b, out), (out, in) -> (b, in)."""
    if _rounds(x, weight):
        return (x @ weight.to(BF16)).to(weight.dtype)
    x = x.to(weight.dtype)
    return _onednn(x, weight.t(), None) if _to_onednn(x, weight.shape[1]) else x @ weight


def outer(delta: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """delta^T x, into `out` if it is given: (b, out), (b, in) -> (out, in), in the precision of delta."""
    if _rounds(x, delta):
        result = delta.to(BF16).t() @ x
        return result.to(delta.dtype) if out is None else out.copy_(result)
    x = x.to(delta.dtype)
    if _to_onednn(x, delta.shape[1]):
        result = _onednn(delta.t(), x.t(), None)
        return result if out is None else out.copy_(result)
    return torch.mm(delta.t(), x, out=out)


def add_outer(weight: Tensor, delta: Tensor, x: Tensor, alpha: float = 1.0, beta: float = 1.0) -> None:
    """weight <- beta weight + alpha delta^T x, in place."""
    if not _rounds(x, delta) and not _to_onednn(x.to(delta.dtype), delta.shape[1]):
        weight.addmm_(delta.t(), x.to(delta.dtype), beta=beta, alpha=alpha)
        return
    if beta != 1.0:
        weight.mul_(beta)
    weight.add_(outer(delta, x), alpha=alpha)
