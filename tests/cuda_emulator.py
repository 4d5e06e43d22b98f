"""A pretend GPU: CPU tensors, some of whose storages are marked as living on cuda:0, under CUDA's rules.

    with pretend() as gpu:           # torch.cuda says there is a GPU; everything computes on the CPU
        ...
        gpu.launches, gpu.waits      # what a real one would have been asked to do

    python tests/cuda_emulator.py lazyexp rule=lazy device=cuda    # the program under it, counts to stderr
    python tests/cuda_emulator.py script scripts/bench.py --device cuda
    python tests/cuda_emulator.py pytest -m gpu

How it works. Every library call passes `Device`, a TorchDispatchMode. A storage carries a mark; a result is on the
GPU if an argument was. What raises on CUDA raises here: arguments on two devices (but for what PyTorch allows:
0-dimensional CPU numbers, CPU indices into a CUDA tensor), `numpy()`, a CPU generator for a CUDA tensor, and, while a
graph is captured, whatever makes the host wait. A capture notes the calls and puts back what they changed; a replay
makes them again on the same storages, which it holds weakly, so that a graph over memory that is gone is found. A
replay does not see a tensor that took an old one's place, just as on CUDA: the results differ from the CPU's.

What it counts. `launches`: calls that start at least one kernel (some more, see KERNELS), a graph's replay being
one; `nodes`: calls inside replayed graphs; `waits`: by kind, the times the host waits for the GPU. Copies from and to
memory that is not pinned wait; so do lengths that depend on data (nonzero, masks as indices) and numbers asked for.
What it cannot show: streams, race conditions, other rounding, memory, speed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import runpy
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

# Calls that start no kernel: views, and memory without content.
NO_KERNEL = frozenset(
    [
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "slice",
        "select",
        "alias",
        "detach",
        "squeeze",
        "unsqueeze",
        "expand",
        "as_strided",
        "split",
        "split_with_sizes",
        "permute",
        "_reshape_alias",
        "lift_fresh",
        "unbind",
        "chunk",
        "set_",
        "empty",
        "empty_like",
        "new_empty",
        "empty_strided",
        "new_empty_strided",
        "is_same_size",
        "sym_size",
        "narrow",
        "diagonal",
        "resize_",
        "is_pinned",
    ]
)
# Kernels of calls that need several (orders of magnitude; everything else counts as one).
KERNELS = {"count_nonzero": 2, "nonzero": 3, "sort": 3, "topk": 3, "convolution": 2, "convolution_backward": 4}
# Calls whose result's length, or whose result, the host must know.
WAITING = frozenset(
    [
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "unique_dim",
        "_unique2",
        "unique_consecutive",
        "bincount",
        "equal",
    ]
)
# Not marked as pointwise, but a 0-dimensional CPU tensor may stand beside CUDA tensors all the same.
LENIENT = frozenset(
    ["where", "masked_fill", "copy", "index_put", "_index_put_impl", "fill", "_to_copy", "clamp", "lerp"]
)
FACTORIES = [
    "zeros",
    "ones",
    "full",
    "empty",
    "arange",
    "rand",
    "randn",
    "randint",
    "randperm",
    "linspace",
    "eye",
    "tensor",
    "as_tensor",
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "rand_like",
    "randn_like",
]
MIXED = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
CAPTURING = "CUDA error: operation not permitted when stream is capturing"
CUDA = torch.device("cuda", 0)
# Calls that a CPU does not have.
SUBSTITUTES = {"aten::mm.dtype": lambda a, b, out_dtype: torch.mm(a.to(out_dtype), b.to(out_dtype))}


class Marks:
    """Marked storages. Not an attribute of Python's object of a storage: PyTorch 2.6 loses it now and then.

    As long as a weak reference is held here, no other storage takes that address.
    """

    def __init__(self) -> None:
        self.held: dict[int, StorageWeakRef] = {}
        self.limit = 1024

    def add(self, storage: Any) -> None:
        if len(self.held) >= self.limit:
            self.held = {address: held for address, held in self.held.items() if not held.expired()}
            self.limit = max(1024, 2 * len(self.held))
        self.held[storage._cdata] = StorageWeakRef(storage)

    def __contains__(self, storage: Any) -> bool:
        return storage._cdata in self.held


GPU, PINNED = Marks(), Marks()


def on_gpu(tensor: Tensor) -> bool:
    """Whether a tensor's memory is marked (tensors without memory are not)."""
    try:
        return tensor.untyped_storage() in GPU
    except (NotImplementedError, RuntimeError):
        return False


def _mark(tensor: Tensor) -> Tensor:
    GPU.add(tensor.untyped_storage())
    return tensor


def _tensors(values: Any) -> list[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    return [t for value in values for t in _tensors(value)] if isinstance(values, (list, tuple)) else []


def _mapped(values: Any, change: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """Nested arguments with everything of a kind changed."""
    if isinstance(values, kind):
        return change(values)
    if type(values) in (list, tuple):
        return type(values)(_mapped(value, change, kind) for value in values)
    if isinstance(values, dict):
        return {key: _mapped(value, change, kind) for key, value in values.items()}
    return values


@functools.lru_cache(None)
def _facts(function: Any) -> tuple[str, tuple[int, ...], tuple[str, ...], bool, bool]:
    """(name without its underscore, arguments written to by place and by name, composite?, takes CPU numbers?)."""
    name = function._schema.name.split("::")[1]
    name = name if name in NO_KERNEL or (name.startswith("_") and not name.endswith("_")) else name.rstrip("_")
    arguments = function._schema.arguments
    places = tuple(i for i, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write)
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), "CompositeImplicitAutograd")
    lenient = torch.Tag.pointwise in function.tags or name in LENIENT or name.startswith("_foreach")
    return name, places, tuple(arguments[i].name for i in places), composite, lenient


class Gpu:
    """The counts, and the capture going on, if any."""

    def __init__(self) -> None:
        self.capture: Recording | None = None
        self.forbid_waits = False  # torch.cuda.set_sync_debug_mode("error")
        self.reset()

    def reset(self) -> None:
        self.launches = self.replays = self.nodes = 0
        self.calls: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.sites: Counter[tuple[str, str]] = Counter()

    def wait(self, kind: str) -> None:
        """The host waits for the GPU. Raises RuntimeError where that is forbidden."""
        if self.capture is not None:
            raise RuntimeError(f"{CAPTURING} ({kind})")
        if self.forbid_waits:
            raise RuntimeError(f"called a synchronizing CUDA operation ({kind})")
        self.waits[kind] += 1
        frames = [
            f for f in traceback.extract_stack() if "lazyexp" in f.filename and "site-packages" not in f.filename
        ]
        self.sites[kind, f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"] += 1

    def launch(self, name: str) -> None:
        self.launches += KERNELS.get(name, 1)
        self.calls[name] += KERNELS.get(name, 1)

    def __str__(self) -> str:
        waits = ", ".join(f"{number} {kind}" for kind, number in self.waits.most_common())
        return (
            f"{self.launches} launches, of which {self.replays} graphs with {self.nodes} nodes; "
            f"{sum(self.waits.values())} waits ({waits})"
        )


class Held:
    """A tensor of a graph. Its memory is held weakly: a graph keeps no tensors alive except those that it made."""

    def __init__(self, tensor: Tensor) -> None:
        self.memory = StorageWeakRef(tensor.untyped_storage())
        self.layout, self.dtype = (tensor.storage_offset(), tensor.size(), tensor.stride()), tensor.dtype

    def get(self) -> Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.memory.cdata)
        if storage is None:
            raise RuntimeError("CUDA error: an illegal memory access (a graph over memory that was freed)")
        return ORIGINAL["empty"](0, dtype=self.dtype).set_(storage, *self.layout)


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return ORIGINAL["empty"](0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))


class Recording:
    """The calls of a capture; what they made is the graph's own, what they overwrote is put back."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.own: dict[int, torch.UntypedStorage] = {}
        self.before: dict[int, tuple[torch.UntypedStorage, Tensor]] = {}

    def note(self, function: Any, args: Any, kwargs: Any, written: list[Tensor], kernel: bool) -> Any:
        for tensor in written:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.own and storage._cdata not in self.before:
                self.before[storage._cdata] = (storage, ORIGINAL["clone"](_bytes(storage)))
        known = {tensor.untyped_storage()._cdata for tensor in _tensors([args, kwargs])}
        result = function(*args, **kwargs)
        for tensor in _tensors(result):
            storage = _mark(tensor).untyped_storage()
            if storage._cdata not in known:
                self.own[storage._cdata] = storage
        if kernel:

            def hold(t: Tensor) -> Any:
                return Held(t) if on_gpu(t) else t

            out = None if written else _mapped(result, hold)
            self.calls.append((function, _mapped(args, hold), _mapped(kwargs, hold), out))
        return result

    def end(self) -> None:
        for storage, content in self.before.values():
            _bytes(storage).copy_(content)
        for storage in self.own.values():  # a capture computes nothing: its results are undefined
            if storage.nbytes():
                _bytes(storage).fill_(255)
        self.before = {}


class Device(TorchDispatchMode):
    """Looks at every call: is it allowed, what does it cost, where does its result live?"""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, places, names, composite, lenient = _facts(function)
        if composite:  # its parts come by one by one
            with self:
                result = function.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
        tensors = _tensors([args, kwargs])
        if not any(on_gpu(tensor) for tensor in tensors):
            return function(*args, **kwargs)
        written = _tensors([args[i] for i in places if i < len(args)] + [kwargs[n] for n in names if n in kwargs])
        for value in [*args, *kwargs.values()]:
            if isinstance(value, torch.Generator):
                _check_generator(value)
        self._check(name, args, kwargs, tensors, written, lenient)
        function = SUBSTITUTES.get(function.name(), function)
        kernel = name not in NO_KERNEL
        if self.gpu.capture is not None:
            return self.gpu.capture.note(function, args, kwargs, written, kernel)
        if kernel:
            self.gpu.launch(name)
        result = function(*args, **kwargs)
        for tensor in _tensors(result):
            _mark(tensor)
        return result

    def _check(self, name: str, args: Any, kwargs: Any, tensors: Any, written: Any, lenient: bool) -> None:
        """Raises for mixed devices; counts what waits."""
        if name in WAITING:
            self.gpu.wait(name)
        if name in ("index", "index_put", "_index_put_impl_"):
            self._check_index(args)
        elif name == "copy":
            if on_gpu(args[0]) != on_gpu(args[1]):
                pinned = (args[1] if on_gpu(args[0]) else args[0]).untyped_storage() in PINNED
                if not (pinned and (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))):
                    self.gpu.wait("copy to the GPU" if on_gpu(args[0]) else "copy from the GPU")
        else:
            for tensor in tensors:
                number = lenient and tensor.dim() == 0 and not any(tensor is other for other in written)
                if not on_gpu(tensor) and not number:
                    raise RuntimeError(f"{MIXED} (when checking argument of shape {tuple(tensor.shape)} in {name})")

    def _check_index(self, args: Any) -> None:
        itself, indices, value = args[0], [i for i in args[1] if i is not None], args[2] if len(args) > 2 else None
        masks = [i for i in indices if i.dtype in (torch.bool, torch.uint8)]
        for index in indices:
            if on_gpu(index) and not on_gpu(itself):
                raise RuntimeError(
                    "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
                )
            if on_gpu(itself) and not on_gpu(index):
                self.gpu.wait("copy of an index to the GPU")
        # x[mask] = number is a masked fill; every other mask asks for the number of its elements.
        fill = value is not None and value.numel() == 1 and not on_gpu(value) and len(masks) == len(indices)
        if masks and not fill:
            self.gpu.wait("mask as an index")
        if value is not None and on_gpu(value) != on_gpu(itself) and not (on_gpu(itself) and value.numel() == 1):
            raise RuntimeError(f"{MIXED} (the value of an assignment)")


def _check_generator(generator: torch.Generator) -> None:
    if generator.device.type != "cuda":
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


def _is_cuda(device: Any) -> bool:
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if device.type == "cuda" and device.index:
        raise RuntimeError("CUDA error: invalid device ordinal")
    return device.type == "cuda"


ORIGINAL: dict[str, Any] = {"empty": torch.empty, "clone": Tensor.clone}


@contextlib.contextmanager
def pretend() -> Iterator[Gpu]:
    """torch with a GPU inside the block, and as it was behind it. The GPU's tensors do not outlive the block."""
    gpu, undo = Gpu(), []

    def patch(owner: Any, name: str, value: Any) -> None:
        # A class's inherited attribute is not its own: it must be deleted and not set again.
        own = name in vars(owner)
        old = vars(owner)[name] if own else None
        undo.append(lambda: setattr(owner, name, old) if own else delattr(owner, name))
        setattr(owner, name, value)

    try:
        _patch_tensors(gpu, patch)
        _patch_factories(gpu, patch)
        _patch_cuda(gpu, patch)
        with Device(gpu):
            yield gpu
    finally:
        for action in reversed(undo):
            action()


def _patch_tensors(gpu: Gpu, patch: Callable[[Any, str, Any], None]) -> None:
    """What tensors say of themselves, and how they move."""
    real = {n: getattr(Tensor, n) for n in ("to", "tolist", "numpy", "__array__", "clone", "detach", "pin_memory")}
    real_device = Tensor.device

    def move(tensor: Tensor, cuda: bool, dtype: torch.dtype | None, copy: bool, non_blocking: bool) -> Tensor:
        if on_gpu(tensor) == cuda:
            return real["to"](tensor, dtype or tensor.dtype, copy=copy)
        pinned = tensor.untyped_storage() in PINNED
        if not (cuda and pinned and non_blocking):
            gpu.wait("copy to the GPU" if cuda else "copy from the GPU")
        gpu.launch("copy")
        return Move.apply(tensor, cuda, dtype or tensor.dtype)

    class Move(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: Tensor, cuda: bool, dtype: torch.dtype) -> Tensor:
            ctx.back = (on_gpu(tensor), tensor.dtype)
            with _disable_current_modes():
                moved = real["to"](real["detach"](tensor), dtype, copy=True)
            return _mark(moved) if cuda else moved

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            cuda, dtype = ctx.back
            return move(gradient, cuda, dtype, False, False), None, None

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        flags = [a for a in args if isinstance(a, bool)] + [False, False]
        for argument in args:
            if isinstance(argument, torch.dtype):
                dtype = argument
            elif isinstance(argument, Tensor):
                device, dtype = argument.device, argument.dtype
            elif isinstance(argument, (str, torch.device)) or type(argument) is int:
                device = argument
        cuda = on_gpu(self) if device is None else _is_cuda(device)
        return move(self, cuda, dtype, kwargs.get("copy", flags[1]), kwargs.get("non_blocking", flags[0]))

    def tolist(self: Tensor) -> Any:
        if on_gpu(self):
            gpu.wait("tolist")
        with _disable_current_modes():
            return real["tolist"](self)

    def to_numpy(name: str) -> Callable[..., Any]:
        def convert(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            if on_gpu(self):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
            return real[name](self, *args, **kwargs)

        return convert

    def pin_memory(self: Tensor, *args: Any) -> Tensor:
        if on_gpu(self):
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        pinned = real["clone"](self)
        PINNED.add(pinned.untyped_storage())
        return pinned

    def deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            with torch.no_grad():
                new = real["clone"](real["detach"](self))
            parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(new, self.requires_grad) if parameter else new
            memo[id(self)].requires_grad_(self.requires_grad)
        return memo[id(self)]

    def apply(self: torch.nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> torch.nn.Module:
        """As on CUDA, a parameter stays the object it was and gets new memory."""
        for child in self.children():
            child._apply(change)
        for parameter in self._parameters.values():
            if parameter is not None:
                with torch.no_grad():
                    parameter.data = change(parameter)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = change(buffer)
        return self

    patch(Tensor, "device", property(lambda self: CUDA if on_gpu(self) else real_device.__get__(self)))
    patch(Tensor, "is_cuda", property(on_gpu))
    patch(Tensor, "is_cpu", property(lambda self: not on_gpu(self)))
    patch(Tensor, "get_device", lambda self: 0 if on_gpu(self) else -1)
    patch(Tensor, "to", to)
    patch(Tensor, "cuda", lambda self, device="cuda", non_blocking=False: to(self, device, non_blocking))
    patch(Tensor, "cpu", lambda self: to(self, "cpu"))
    patch(Tensor, "tolist", tolist)
    patch(Tensor, "numpy", to_numpy("numpy"))
    patch(Tensor, "__array__", to_numpy("__array__"))
    patch(Tensor, "pin_memory", pin_memory)
    patch(Tensor, "__deepcopy__", deepcopy)
    patch(torch.nn.Parameter, "__deepcopy__", deepcopy)
    patch(torch.nn.Module, "_apply", apply)
    real_one_hot = F.one_hot

    def one_hot(indices: Tensor, num_classes: int = -1) -> Tensor:
        """CUDA's asks nothing when the number of classes is given."""
        if not on_gpu(indices):
            return real_one_hot(indices, num_classes)
        number = int(indices.max()) + 1 if num_classes == -1 else num_classes
        return indices.new_zeros(*indices.shape, number).scatter_(-1, indices.unsqueeze(-1), 1)

    patch(F, "one_hot", one_hot)


def _patch_factories(gpu: Gpu, patch: Callable[[Any, str, Any], None]) -> None:
    """torch.zeros(..., device="cuda") and its kin."""

    def factory(name: str) -> Callable[..., Tensor]:
        real = getattr(torch, name)

        def make(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            if device is None:
                made = real(*args, **{**kwargs, **({"pin_memory": False} if kwargs.get("pin_memory") else {})})
                return made.pin_memory() if kwargs.get("pin_memory") else made
            cuda = _is_cuda(device)
            if cuda and isinstance(kwargs.get("generator"), torch.Generator):
                _check_generator(kwargs["generator"])
            if name in ("tensor", "as_tensor"):
                return real(*args, **kwargs).to(device)
            if cuda and gpu.capture is not None and name not in ("empty", "empty_like"):
                raise NotImplementedError(f"torch.{name} while capturing: use a tensor's new_{name}")
            with _disable_current_modes():
                made = real(*args, **kwargs)
            if cuda:
                if not name.startswith("empty"):
                    gpu.launch(name)
                return _mark(made)
            return made

        return make

    for name in FACTORIES:
        patch(torch, name, factory(name))


class Graph:
    """torch.cuda.CUDAGraph: `replay` makes the captured calls again, on the same memory."""

    gpu: Gpu

    def __init__(self, keep_graph: bool = False) -> None:
        self.recording: Recording | None = None

    def replay(self) -> None:
        if self.recording is None:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        self.gpu.launch("graph")
        self.gpu.replays += 1
        self.gpu.nodes += len(self.recording.calls)
        with _disable_current_modes(), torch.inference_mode():
            for function, args, kwargs, out in self.recording.calls:
                result = function(*_mapped(args, Held.get, Held), **_mapped(kwargs, Held.get, Held))
                if out is not None:
                    held: list[Held] = []
                    _mapped(out, held.append, Held)
                    for place, value in zip(held, _tensors(result), strict=True):
                        place.get().copy_(value)


def _patch_cuda(gpu: Gpu, patch: Callable[[Any, str, Any], None]) -> None:
    """torch.cuda, as far as the program uses it, and loading files onto the GPU."""

    class Stream:
        """There is but one order of things here."""

        device = CUDA

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def wait_stream(self, other: Any) -> None: ...
        def synchronize(self) -> None:
            gpu.wait("synchronize")

    class Event:
        """Times are the host's: there is but one order of things here."""

        def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
            self.at: float | None = None

        def record(self, stream: Any = None) -> None:
            self.at = time.perf_counter()

        def synchronize(self) -> None:
            gpu.wait("synchronize")

        def elapsed_time(self, other: Any) -> float:
            return (other.at - self.at) * 1000

    @contextlib.contextmanager
    def graph(made: Graph, *args: Any, **kwargs: Any) -> Iterator[None]:
        gpu.wait("begin of a capture")
        recording = gpu.capture = Recording()
        try:
            yield
        finally:
            gpu.capture = None
            with _disable_current_modes(), torch.inference_mode():
                recording.end()
        made.recording = recording

    class PretendGraph(Graph):
        pass

    PretendGraph.gpu = gpu
    current = Stream()

    def on_device(device: Any = None) -> Any:
        return contextlib.nullcontext(_is_cuda(CUDA if device is None else device))

    def set_debug(mode: str) -> None:
        gpu.forbid_waits = mode == "error"

    replaced = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda device=None: "pretend GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "current_device": lambda: 0,
        "set_device": _is_cuda,
        "device": on_device,
        "synchronize": lambda device=None: gpu.wait("synchronize"),
        # Random numbers come from the CPU's generator, which is saved and put back by itself.
        "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device="cuda": None,
        "Stream": Stream,
        "Event": Event,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: current,
        "CUDAGraph": PretendGraph,
        "graph": graph,
        "is_current_stream_capturing": lambda: gpu.capture is not None,
        "set_sync_debug_mode": set_debug,
        "empty_cache": lambda: None,
        "manual_seed_all": lambda seed: None,
        "memory_allocated": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "_lazy_init": lambda: None,
    }
    for name, value in replaced.items():
        patch(torch.cuda, name, value)
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        patch(torch.optim.Optimizer, name, lambda self: None)

    def restore(storage: Any, location: str) -> Any:
        if not location.startswith("cuda"):
            return None
        GPU.add(storage)
        return storage

    def tag(storage: Any) -> str | None:
        return "cuda:0" if storage in GPU else None

    registry = torch.serialization._package_registry
    before = list(registry)
    torch.serialization.register_package(1, tag, restore)
    patched = list(registry)
    registry[:] = before
    patch(torch.serialization, "_package_registry", patched)


def main() -> None:
    what, sys.argv = sys.argv[1], sys.argv[1:]
    with pretend() as gpu:
        try:
            if what == "pytest":
                import pytest

                sys.exit(pytest.main(sys.argv[1:]))
            elif what == "lazyexp":
                from lazyexp.cli import main as program

                program()
            elif what == "script":
                sys.argv = sys.argv[1:]
                runpy.run_path(sys.argv[0], run_name="__main__")
            else:
                sys.exit(f"{what}: lazyexp, script or pytest")
        finally:
            print(gpu, file=sys.stderr)


if __name__ == "__main__":
    main()
