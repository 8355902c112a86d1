"""Builds and drives the stub libcuda (stub_driver.c): what the driver would have been told, read back from the same process."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from vsrv.kernels.cuda.source import Arch, parse_arch

FUNCTION, STREAM = 0x5000, 0x77
BYTES = {"i32": 4, "u32": 4, "f32": 4, "i64": 8}


def build(folder: Path) -> dict[str, str]:
    """Compile the stub into `folder`; returns the environment for a process that finds it as the driver."""
    source = Path(__file__).with_name("stub_driver.c")
    library = folder / "libcuda.so.1"
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60
    )
    return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


class Stub:
    """The loaded stub's variables."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libcuda.so.1")

    def expect(self, kinds: tuple[str, ...]) -> None:
        """Tell it the kinds of the arguments that the next launches have."""
        sizes = (ctypes.c_int * 64).in_dll(self._library, "stub_sizes")
        for place in range(64):
            sizes[place] = 0 if place >= len(kinds) else 8 if kinds[place][0] == "*" else BYTES[kinds[place]]

    def fail(self, call: str, error: int) -> None:
        """Make "load", "kernel", "attribute" or "launch" answer this error; 0 ends it."""
        ctypes.c_int.in_dll(self._library, f"stub_fail_{call}").value = error

    @property
    def arguments(self) -> bytes:
        return bytes((ctypes.c_ubyte * 512).in_dll(self._library, "stub_arguments"))

    @property
    def shape(self) -> list[int]:
        """Grid, block, dynamic shared bytes."""
        return list((ctypes.c_uint * 7).in_dll(self._library, "stub_shape"))

    @property
    def handles(self) -> list[int]:
        """Function and stream."""
        return list((ctypes.c_uint64 * 2).in_dll(self._library, "stub_handles"))

    @property
    def launches(self) -> int:
        return ctypes.c_long.in_dll(self._library, "stub_launches").value

    @property
    def kernel(self) -> str:
        return bytes((ctypes.c_char * 256).in_dll(self._library, "stub_kernel")).split(b"\0")[0].decode()

    @property
    def attribute(self) -> list[int]:
        return list((ctypes.c_int * 2).in_dll(self._library, "stub_attribute"))


class FakeDevice:
    """What the launcher asks of a device."""

    arch: Arch = parse_arch("sm_90a")
    num_multiprocessors = 132

    def stream(self) -> int:
        return STREAM


class FakeTensor:
    def __init__(self, address: int) -> None:
        self._address = address

    def data_ptr(self) -> int:
        return self._address
