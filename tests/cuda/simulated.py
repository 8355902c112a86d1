"""The simulator as a loader of kernels: code that launches kernels runs unchanged on numpy arrays (device.Loader)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import simulator

from vsrv.kernels.cuda.device import Grid
from vsrv.kernels.cuda.source import KernelSource, KernelSpec

_DTYPES = {"u8": "u1", "u16": "u2", "u32": "u4", "i32": "i4", "f32": "f4", "u64": "u8"}
# kind → how the launcher packs it, what the simulator makes of it
_SCALARS = {
    "i32": ("i", simulator.i32),
    "u32": ("I", simulator.u32),
    "i64": ("q", simulator.i64),
    "f32": ("f", simulator.f32),
}


class SimulatedKernel:
    def __init__(self, source: KernelSource, seed: int) -> None:
        self.source, self.seed = source, seed

    def __call__(self, grid: Grid, *arguments: Any) -> None:
        """Arrays are contiguous numpy arrays of any type; the kernel sees them through its own pointer type, as on a GPU."""
        kinds = self.source.arguments
        assert len(arguments) == len(kinds), (
            f"{self.source.name} takes {len(kinds)} arguments, not {len(arguments)}"
        )
        seen = [_seen(kind, value) for kind, value in zip(kinds, arguments, strict=True)]
        source = self.source
        simulator.run_kernel(
            source.function, grid, source.threads, source.shared_bytes, tuple(seen), self.seed
        )


def _seen(kind: str, value: Any) -> Any:
    if not kind.startswith("*"):
        assert not isinstance(value, np.ndarray), f"an array for {kind}"
        packing, cast = _SCALARS[kind]
        struct.pack(packing, value)  # refuses what the launcher refuses
        return cast(value)
    assert isinstance(value, np.ndarray) and value.flags.c_contiguous, f"no contiguous array for {kind}"
    return value.reshape(-1).view(_DTYPES[kind[1:]])


class SimulatedLoader:
    """`seed` shuffles the order of blocks and threads."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def load(self, spec: KernelSpec) -> SimulatedKernel:
        return SimulatedKernel(spec.source(simulator), self.seed)

    def load_all(self, specs: Sequence[KernelSpec]) -> list[SimulatedKernel]:
        return [self.load(spec) for spec in specs]
