#!/usr/bin/env python3
"""Host time of one kernel launch without the driver's own: the launcher against a stub libcuda that keeps the arguments.

    python tests/bench/launch_cost.py [--torch]

--torch takes the addresses from torch tensors on the CPU, whose data_ptr() is a part of the cost, instead of from the test's own objects.
The best of several rounds is printed, since a shared machine only ever adds time. numba's launcher: 113 to 164 µs for 4 arrays and 2 numbers.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS, LAUNCHES = 7, 20_000
# kernels that do nothing, and how many of their arguments are tensors
SIGNATURES: tuple[tuple[Callable[..., None], int], ...] = (
    (lambda a: None, 0),
    (lambda a, b, c, d: None, 2),
    (lambda a, b, c, d, e, f, g, h, i, j: None, 7),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch", action="store_true", help="arguments are torch tensors on the CPU")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "cuda")]
    import stub

    if "VSRV_STUB" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            # the loader reads LD_LIBRARY_PATH once, when a process starts
            environment = {**stub.build(Path(folder)), "VSRV_STUB": "1", "VSRV_CACHE_DIR": f"{folder}/cache"}
            status = os.spawnve(os.P_WAIT, sys.executable, [sys.executable, *sys.argv], environment)
        sys.exit(status)
    measure(stub, arguments.torch)


def measure(stub: Any, with_torch: bool) -> None:
    from cuda.bindings import driver

    from vsrv.kernels.cuda.launcher import LoadedKernel
    from vsrv.kernels.cuda.source import KernelSource

    tensor: Any = stub.FakeTensor(4096)
    if with_torch:
        import torch

        tensor = torch.zeros(4)
    recorder = stub.Stub()
    print(
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {'torch' if with_torch else 'plain'} tensors"
    )
    for function, pointers in SIGNATURES:
        scalars = function.__code__.co_argcount - pointers
        source = KernelSource("k", function, ("*f32",) * pointers + ("i32",) * scalars, 128, 0, ())
        kernel = LoadedKernel(driver, source, None, driver.CUfunction(stub.FUNCTION), stub.FakeDevice())
        recorder.expect(source.arguments)
        values = (*[tensor] * pointers, *range(scalars))
        before = recorder.launches
        best = min(_round(kernel, values) for _ in range(ROUNDS))
        assert recorder.launches - before == ROUNDS * LAUNCHES
        print(f"{pointers:2} tensors, {scalars} numbers: {best * 1e6:.2f} µs a launch")


def _round(kernel: Any, values: tuple[Any, ...]) -> float:
    grid = (132, 1, 1)
    began = time.perf_counter()
    for _ in range(LAUNCHES):
        kernel(grid, *values)
    return (time.perf_counter() - began) / LAUNCHES


if __name__ == "__main__":
    main()
