"""Runs with the stub libcuda as the driver, in a process of its own: `python launch_scenarios.py NAME` prints what happened as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import sample_kernels
import stub

from vsrv.errors import EngineError
from vsrv.kernels.cuda.launcher import Launcher
from vsrv.kernels.cuda.source import specialise

EVERY_KIND = specialise(sample_kernels.make_every_kind)
SCALE = specialise(sample_kernels.make_scale, n=4)
LARGE = specialise(sample_kernels.make_scale, n=4, shared_bytes=100_000)
GRID = (3, 2, 1)


def packing(driver: stub.Stub, launcher: Launcher) -> dict[str, Any]:
    kernel = launcher.load(EVERY_KIND)
    kinds = EVERY_KIND.describe().arguments
    driver.expect(kinds)
    out, table = stub.FakeTensor(0x7F00_1234_5600), stub.FakeTensor(2**63 + 8)
    seen = []
    for count in (-5, 7):  # twice: nothing of the first launch may be left
        kernel(GRID, 2**32 - 1, count, out, -(2**40), 0.1, 3, table)
        seen.append(driver.arguments.hex())
    return {"arguments": seen, "shape": driver.shape, "handles": driver.handles, "kernel": driver.kernel}


def loading(driver: stub.Stub, launcher: Launcher) -> dict[str, Any]:
    small = launcher.load(SCALE)
    before = driver.attribute
    launcher.load(LARGE)
    again = launcher.load_all([LARGE, SCALE, specialise(sample_kernels.make_scale, n=4)])
    return {
        "before": before,
        "after": driver.attribute,
        "same": again[1] is small and again[2] is small,
        "shared": again[0].source.shared_bytes,
    }


def refusals(driver: stub.Stub, launcher: Launcher) -> dict[str, Any]:
    """The words of every way in which the driver or the arguments can fail."""
    words: dict[str, Any] = {}

    def note(name: str, attempt: Any) -> None:
        try:
            attempt()
        except EngineError as error:
            words[name] = [error.code, str(error)]

    x, kernel = stub.FakeTensor(16), launcher.load(SCALE)
    driver.expect(SCALE.describe().arguments)
    note("too few", lambda: kernel(GRID, x, x, 1.0))
    note("no arguments", lambda: kernel(GRID))
    note("too many", lambda: kernel(GRID, x, x, 1.0, 2, 3))
    note("number for pointer", lambda: kernel(GRID, x, 5, 1.0, 2))
    note("tensor for number", lambda: kernel(GRID, x, x, 1.0, x))
    note("float for integer", lambda: kernel(GRID, x, x, 1.0, 2.5))
    note("integer too large", lambda: kernel(GRID, x, x, 1.0, 2**31))
    note("float too large", lambda: kernel(GRID, x, x, 10**400, 2))
    words["launches"] = driver.launches
    driver.fail("launch", 700)
    note("launch", lambda: kernel(GRID, x, x, 1.0, 2))
    driver.fail("launch", 0)
    kernel(GRID, x, x, 1.0, 2)  # and goes on where the driver does
    for call, error in (("attribute", 1), ("kernel", 500), ("load", 200)):
        driver.fail(call, error)
        note(call, lambda: launcher.load(LARGE))
        driver.fail(call, 0)
    return words


def main() -> None:
    lines: list[str] = []
    launcher = Launcher(stub.FakeDevice(), lines.append)  # type: ignore[arg-type]  # needs no memory
    happened = {"packing": packing, "loading": loading, "refusals": refusals}[sys.argv[1]](
        stub.Stub(), launcher
    )
    print(json.dumps({**happened, "progress": lines}))


if __name__ == "__main__":
    main()
