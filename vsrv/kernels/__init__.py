"""Arrays in, arrays out: kernels by device. The interface is in `interface.py`, its specification in numpy in `reference.py`."""

from __future__ import annotations

from vsrv.errors import ConfigError
from vsrv.kernels.interface import AttentionMetadata, HeadShape, Kernels, PackedLinear, SamplingState

__all__ = ["AttentionMetadata", "HeadShape", "Kernels", "PackedLinear", "SamplingState", "load"]


def load(device: str, num_threads: int) -> Kernels:
    """The kernels of `device` ("cpu"). Raises ConfigError for a device that this version has no kernels for."""
    if device != "cpu":
        raise ConfigError(f"device {device!r} has no kernels in this version; use --device cpu")
    from vsrv.kernels.cpu.operations import (
        cpu_kernels,  # compiles at the first import: about 40 s, once for each build
    )

    return cpu_kernels(num_threads)
