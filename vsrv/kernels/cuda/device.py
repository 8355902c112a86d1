"""What the kernels ask of whoever owns the device, and how they are launched. Tensors are duck-typed: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from vsrv.kernels.cuda.source import Arch, KernelSource

Tensor = Any
Grid = tuple[int, int, int]
# A specialisation's factory, its launch grid, its arguments in order: tensors for pointers, numbers for scalars.
Launch = Callable[[KernelSource, Grid, tuple[Any, ...]], None]


class Device(Protocol):
    """One GPU and its memory, owned by the engine thread."""

    arch: Arch
    num_multiprocessors: int

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Zeroed device memory; dtype is a torch name: "uint8", "int32", "float32", "bfloat16" …"""

    def upload(self, target: Tensor, values: NDArray[Any]) -> None:
        """Copy host values (contiguous, same number of bytes as `target`) in stream order; `values` may be reused at once."""

    def stream(self) -> int:
        """The handle of the stream that work goes to now (a capturing one during graph capture)."""
