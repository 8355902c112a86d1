"""What the kernels ask of whoever owns the device, and how they are launched. Tensors are duck-typed: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from vsrv.kernels.cuda.source import Arch, KernelSource, KernelSpec

Tensor = Any
Grid = tuple[int, int, int]


class Kernel(Protocol):
    """A loaded kernel. Whoever launches it keeps it: finding it again for each launch would cost more than the launch."""

    def __call__(self, grid: Grid, *arguments: Any) -> None:
        """Launch on the device's stream; arguments in order, tensors for pointers and numbers for scalars."""


# How a part that holds several kernels launches one of them: its source, the grid, the arguments in order.
Launch = Callable[[KernelSource, Grid, tuple[Any, ...]], None]


class Loader(Protocol):
    """Makes kernels ready: launcher.Launcher on a GPU, the simulator's in tests."""

    def load(self, spec: KernelSpec) -> Kernel:
        """The kernel's handle, the same one for an equal spec. Compiles where nobody has done so before; not during graph capture."""

    def load_all(self, specs: Sequence[KernelSpec]) -> Sequence[Kernel]:
        """Handles of several kernels; what must be compiled is compiled side by side."""


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
