"""Loads cubins into the current CUDA context and launches them through cuda.bindings: about a microsecond of host time a launch.

numba's launcher takes over 100 µs (it types and wraps each argument). Here a kernel has one buffer for its arguments and one array of
pointers into it, both made at load time; a launch packs all arguments with one call and hands the array to the driver, which copies
the values before it returns, also into a graph that is being captured. Loading is not allowed during a capture: load first.
torch has initialised the context before. Everything here belongs to the engine thread.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

from vsrv.errors import ConfigError, EngineError
from vsrv.kernels.cuda import compile_helpers
from vsrv.kernels.cuda.cache import CubinCache
from vsrv.kernels.cuda.device import Device, Grid
from vsrv.kernels.cuda.source import KernelSource, KernelSpec
from vsrv.requirements import FOR_GPUS

_DEFAULT_SHARED_BYTES = (
    48 << 10
)  # what a block may have without asking (CUDA programming guide, "Shared Memory")
_COMPILED_FOR = 13000  # CUDA 13.0, as cuDriverGetVersion counts
_FORMATS = {"i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f"}


class LoadedKernel:
    """One kernel in the device's memory: `kernel(grid, *arguments)` puts it on the device's stream. Not for two threads at once."""

    __slots__ = (
        "_addresses",
        "_array",
        "_buffer",
        "_driver",
        "_function",
        "_launch",
        "_library",
        "_pack",
        "_pointers",
        "_shared_bytes",
        "_stream",
        "_threads",
        "source",
    )

    def __init__(
        self, driver: Any, source: KernelSource, library: Any, function: Any, device: Device
    ) -> None:
        self.source = source
        self._driver, self._library, self._function = driver, library, function
        self._launch, self._stream = driver.cuLaunchKernel, device.stream
        self._threads, self._shared_bytes = source.threads, source.shared_bytes
        self._pointers = tuple(place for place, kind in enumerate(source.arguments) if kind.startswith("*"))
        packer, offsets = _layout(source.arguments)
        self._buffer = ctypes.create_string_buffer(max(packer.size, 1))
        self._pack = packer.pack_into
        base = ctypes.addressof(self._buffer)
        self._array = (ctypes.c_void_p * max(len(offsets), 1))(*[base + offset for offset in offsets])
        self._addresses = ctypes.addressof(self._array)

    def __call__(self, grid: Grid, *arguments: Any) -> None:
        """Launch on `grid` blocks. Raises EngineError with the driver's words, or when the arguments do not fit the kernel."""
        values = list(arguments)
        try:
            for place in self._pointers:
                values[place] = values[place].data_ptr()
            self._pack(self._buffer, 0, *values)
        except (AttributeError, IndexError, OverflowError, struct.error) as error:
            kinds = ", ".join(self.source.arguments)
            raise EngineError(
                "kernel_arguments", f"kernel {self.source.name} takes ({kinds}): {error}"
            ) from error
        x, y, z = grid
        # fmt: off
        (error,) = self._launch(
            self._function, x, y, z, self._threads, 1, 1, self._shared_bytes, self._stream(), self._addresses, 0
        )
        # fmt: on
        if error:
            raise _failure(self._driver, f"launch of kernel {self.source.name} on {grid} blocks", error)


def _layout(kinds: tuple[str, ...]) -> tuple[struct.Struct, list[int]]:
    """How arguments lie in the buffer, each at its natural alignment, and their offsets."""
    formats = ["Q" if kind.startswith("*") else _FORMATS[kind] for kind in kinds]
    ends = [struct.calcsize("@" + "".join(formats[: place + 1])) for place in range(len(formats))]
    return struct.Struct("@" + "".join(formats)), [
        end - struct.calcsize(one) for end, one in zip(ends, formats, strict=True)
    ]


class Launcher:
    """The loaded kernels of one device."""

    def __init__(self, device: Device, progress: compile_helpers.Progress) -> None:
        self._driver = _import_driver()
        self._device = device
        self._cache = CubinCache(device.arch)
        self._progress = progress
        self._loaded: dict[KernelSpec, LoadedKernel] = {}

    def load(self, spec: KernelSpec) -> LoadedKernel:
        """The kernel's handle, the same one for an equal spec. Raises ConfigError (cannot compile), EngineError (the driver refuses)."""
        return self.load_all([spec])[0]

    def load_all(self, specs: Sequence[KernelSpec]) -> list[LoadedKernel]:
        """Handles of several kernels. What nobody has compiled before is compiled first, which `progress` hears about."""
        new = [spec for spec in dict.fromkeys(specs) if spec not in self._loaded]
        for spec, cubin in compile_helpers.cubins(self._cache, new, self._progress).items():
            self._loaded[spec] = self._load(spec, cubin)
        return [self._loaded[spec] for spec in specs]

    def _load(self, spec: KernelSpec, cubin: bytes) -> LoadedKernel:
        driver, source = self._driver, spec.describe()
        what = f"load of kernel {source.name}"
        library = self._done(what, driver.cuLibraryLoadData(cubin, None, None, 0, None, None, 0))
        kernel = self._done(what, driver.cuLibraryGetKernel(library, source.name.encode()))
        function = self._done(what, driver.cuKernelGetFunction(kernel))
        if source.shared_bytes > _DEFAULT_SHARED_BYTES:
            attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._done(what, driver.cuFuncSetAttribute(function, attribute, source.shared_bytes))
        return LoadedKernel(driver, source, library, function, self._device)

    def _done(self, what: str, answer: tuple[Any, ...]) -> Any:
        if answer[0]:
            raise _failure(self._driver, what, answer[0])
        return answer[1] if len(answer) > 1 else None


def _failure(driver: Any, what: str, error: Any) -> EngineError:
    _, words = driver.cuGetErrorString(error)
    text = f"{what}: {error.name}: {(words or b'no description').decode(errors='replace')}"
    unknown, version = driver.cuDriverGetVersion()
    if not unknown and version < _COMPILED_FOR:
        text += f" (the driver knows CUDA {version // 1000}.{version % 1000 // 10}; the kernels are made for 13.0: update the driver)"
    return EngineError("gpu_error", text)


def _import_driver() -> Any:
    try:
        from cuda.bindings import driver

        driver.cuDriverGetVersion()
    except ImportError as error:
        raise ConfigError(f"GPU kernels are launched through cuda-bindings ({error}); {FOR_GPUS}") from error
    except RuntimeError as error:  # the first call looks for libcuda
        raise ConfigError(
            f"the NVIDIA driver is missing ({error}); install it, or serve on the CPU"
        ) from error
    return driver
