"""Arrays in, arrays out: kernels by device. The interface is in `interface.py`, its specification in numpy in `reference.py`."""

from __future__ import annotations

from vsrv import boot
from vsrv.errors import ConfigError
from vsrv.kernels.interface import AttentionMetadata, HeadShape, Kernels, PackedLinear, SamplingState

__all__ = [
    "AttentionMetadata",
    "HeadShape",
    "Kernels",
    "PackedLinear",
    "SamplingState",
    "is_compiled",
    "load",
]


def is_compiled(device: str) -> bool:
    """Whether `load` will find the kernels of `device` in the cache (at least the most of them)."""
    return device == "cpu" and any(boot.private_copy("kernels/cpu").rglob("*.nbi"))


def load(device: str, num_threads: int) -> Kernels:
    """The kernels of `device` ("cpu"). Raises ConfigError for a device that this version has no kernels for."""
    if device != "cpu":
        raise ConfigError(f"device {device!r} has no kernels in this version; use --device cpu")
    folder = str(boot.private_copy("kernels/cpu"))
    if folder not in __path__:
        __path__.insert(0, folder)
    from vsrv.kernels.cpu.operations import cpu_kernels  # compiles at the first import, once for each build

    return cpu_kernels(num_threads)
