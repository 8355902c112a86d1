"""Arrays in, arrays out: kernels by device. The interface is in `interface.py`, its specification in numpy in `reference.py`."""

from __future__ import annotations

from collections.abc import Callable

from vsrv import boot
from vsrv.errors import ConfigError
from vsrv.kernels.cuda.device import Device
from vsrv.kernels.interface import (
    AttentionMetadata,
    HeadShape,
    Kernels,
    KernelShapes,
    PackedLinear,
    SamplingState,
)

__all__ = [
    "AttentionMetadata",
    "HeadShape",
    "KernelShapes",
    "Kernels",
    "PackedLinear",
    "SamplingState",
    "is_compiled",
    "load",
    "load_cuda",
]


def is_compiled(device: str) -> bool:
    """Whether `load` will find the kernels of `device` in the cache (at least the most of them)."""
    return device == "cpu" and any(boot.private_copy("kernels/cpu").rglob("*.nbi"))


def load_cuda(device: Device, progress: Callable[[str], None]) -> Kernels:
    """The GPU's kernels but for the matrix products, which the owner of `device` adds. Raises ConfigError naming what is missing."""
    from vsrv.kernels.cuda.launcher import Launcher
    from vsrv.kernels.cuda.operations import cuda_kernels

    return cuda_kernels(device, Launcher(device, progress))


def load(device: str, num_threads: int) -> Kernels:
    """The kernels of `device`, "cpu"; those of a GPU come from `load_cuda`, since they need its owner."""
    if device != "cpu":
        raise ConfigError(f"no kernels for device {device!r}; use --device cpu or --device cuda")
    folder = str(boot.private_copy("kernels/cpu"))
    if folder not in __path__:
        __path__.insert(0, folder)
    import numba

    # NUMBA_CACHE_DIR and a .numba_config.yaml in the current folder name places that nobody has checked, and what numba loads is code
    numba.config.CACHE_DIR = numba.config.CACHE_LOCATOR_CLASSES = ""  # type: ignore[attr-defined]
    from vsrv.kernels.cpu.operations import cpu_kernels  # compiles at the first import, once for each build

    return cpu_kernels(num_threads)
