"""A GPU's memory and launcher on this machine: torch tensors of the CPU, and kernels that run in the block simulator.

Tensors behave as on a GPU (data_ptr, shape, stride, slices, bfloat16), so that tests pass what the engine passes. A kernel sees exactly
the memory between a tensor's first and last element: reading into a neighbour or into a row's padding behind the end is an IndexError.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import simulator
import torch
from numpy.typing import NDArray

from vsrv.kernels.cuda.device import Kernel
from vsrv.kernels.cuda.source import KernelSource, KernelSpec, parse_arch

_KINDS = {
    "u8": np.uint8,
    "u16": np.uint16,
    "u32": np.uint32,
    "i32": np.int32,
    "u64": np.uint64,
    "f32": np.float32,
}
_ALIGNMENT = 256  # of every allocation of the GPU's memory; kernels may rely on it


class SimulatedDevice:
    """vsrv.kernels.cuda.device.Device over the memory of this machine."""

    def __init__(self, arch: str = "sm_90a", num_multiprocessors: int = 4) -> None:
        self.arch, self.num_multiprocessors = parse_arch(arch), num_multiprocessors
        self.num_uploads, self.uploaded_bytes = 0, 0

    def zeros(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        kind = getattr(torch, dtype)
        size = int(np.prod(shape)) * kind.itemsize
        memory = torch.zeros(size + _ALIGNMENT, dtype=torch.uint8)
        start = -memory.data_ptr() % _ALIGNMENT
        return memory[start : start + size].view(kind).view(shape)

    def upload(self, target: torch.Tensor, values: NDArray[Any]) -> None:
        if not (target.is_contiguous() and values.flags.c_contiguous):
            raise ValueError("an upload copies contiguous memory")
        if target.nbytes != values.nbytes:
            raise ValueError(f"an upload of {values.nbytes} bytes to a tensor of {target.nbytes}")
        memory(target, np.uint8)[:] = values.reshape(-1).view(np.uint8)
        self.num_uploads, self.uploaded_bytes = self.num_uploads + 1, self.uploaded_bytes + values.nbytes

    def stream(self) -> int:
        return 0


class SimulatedLaunch:
    """vsrv.kernels.cuda.device.Launch: runs the blocks, and holds the arguments to their declared kinds.

    `seed` shuffles the order of blocks and threads; every launch takes the next one. `launches` keeps (kernel name, grid).
    """

    def __init__(self, seed: int = 0) -> None:
        self._seeds = random.Random(seed)
        self.launches: list[tuple[str, tuple[int, int, int]]] = []

    def __call__(self, source: KernelSource, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        if len(arguments) != len(source.arguments):
            raise TypeError(f"{source.name}: {len(arguments)} arguments for {len(source.arguments)} kinds")
        if min(grid) < 1 or max(grid[1:]) > 65535 or not 1 <= source.threads <= 1024:
            raise ValueError(f"{source.name}: no GPU launches a grid of {grid} x {source.threads}")
        values = tuple(
            _argument(source.name, kind, value)
            for kind, value in zip(source.arguments, arguments, strict=True)
        )
        self.launches.append((source.name, grid))
        simulator.run_kernel(
            source.function, grid, source.threads, source.shared_bytes, values, self._seeds.randrange(2**31)
        )


class SimulatedLoader:
    """vsrv.kernels.cuda.device.Loader: a kernel is its text, made with the simulator's instructions."""

    def __init__(self, seed: int = 0) -> None:
        self.launch = SimulatedLaunch(seed)

    def load(self, spec: KernelSpec) -> Kernel:
        source = spec.source(simulator)
        return lambda grid, *arguments: self.launch(source, grid, arguments)

    def load_all(self, specs: Sequence[KernelSpec]) -> list[Kernel]:
        return [self.load(spec) for spec in specs]


def memory(tensor: torch.Tensor | NDArray[Any], dtype: Any) -> NDArray[Any]:
    """The memory from a tensor's first to its last element, gaps between its rows included, as a flat array that shares it."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).reshape(-1).view(dtype)
    if tensor.numel() == 0:
        return np.zeros(0, dtype)
    extent = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.as_strided((extent,), (1,)).view(torch.uint8)
    return flat.numpy().view(dtype)


def _argument(name: str, kind: str, value: Any) -> Any:
    if not kind.startswith("*"):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise TypeError(f"{name}: {value!r} as a scalar {kind}")
        if kind == "f32":
            return np.float32(value)
        low, high = {"i32": (-(2**31), 2**31), "u32": (0, 2**32), "i64": (-(2**63), 2**63)}[kind]
        if int(value) != value or not low <= value < high:
            raise TypeError(f"{name}: {value!r} as {kind}")
        return np.uint32(value) if kind == "u32" else int(value)
    if not isinstance(value, (torch.Tensor, np.ndarray)):
        raise TypeError(f"{name}: {value!r} as a pointer {kind}")
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        raise TypeError(f"{name}: a kernel would read a copy of this array")
    dtype = np.dtype(_KINDS[kind[1:]])
    if value.dtype.itemsize != dtype.itemsize and 1 not in (value.dtype.itemsize, dtype.itemsize):
        raise TypeError(f"{name}: {value.dtype} memory as {kind}")
    return memory(value, dtype)
