"""Isolation from global state: a run gives the same result whatever its caller has set or seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from lazyexp.utils.seeding import generator

AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def isolated(threads: int | None = None) -> Iterator[None]:
    """Set PyTorch's global state to its defaults inside the block and restore it afterwards.

    Covers autocast, gradient and inference mode, default dtype and device, deterministic algorithms, the flags of
    cuDNN, and the precision of float32 products. The number of threads is set to `threads`, or left as it is.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.callback(torch.set_autocast_enabled, device, True)
                torch.set_autocast_enabled(device, False)
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":  # only then: a device context slows every call into torch
            stack.enter_context(torch.device("cpu"))
        if torch.are_deterministic_algorithms_enabled():  # only then: the call imports the compiler, for seconds
            stack.callback(
                torch.use_deterministic_algorithms,
                True,
                warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            )
            torch.use_deterministic_algorithms(False)
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
        cudnn = torch.backends.cudnn
        for flag in ("deterministic", "benchmark", "allow_tf32"):
            stack.callback(setattr, cudnn, flag, getattr(cudnn, flag))
            setattr(cudnn, flag, False)
        if threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        yield


@contextmanager
def seeded(seed: int, *name: str | int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of PyTorch, NumPy and Python inside the block and restore them afterwards.

    For models that draw from them, as dropout does. The seed depends on `seed` and `name` alone.
    """
    number = generator(seed, *name).initial_seed()
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
