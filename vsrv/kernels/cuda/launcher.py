"""Loads cubins into the current CUDA context and launches them through cuda.bindings: about a microsecond of host time a launch.

numba's launcher takes over 100 µs (it types and wraps each argument). Here a kernel has one buffer for its arguments and one array of
pointers into it, both made at load time; a launch packs all arguments with one call and hands the array to the driver, which copies
the values before it returns. torch has initialised the context before the first load. Everything here belongs to the engine thread.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

from vsrv.errors import ConfigError, EngineError
from vsrv.kernels.cuda.cache import CubinCache
from vsrv.kernels.cuda.device import Device, Grid
from vsrv.kernels.cuda.source import KernelSource, KernelSpec

Progress = Callable[[str], None]
_DEFAULT_SHARED_BYTES = (
    48 << 10
)  # what a block may have without asking (CUDA programming guide, "Shared Memory")
_FORMATS = {"i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f"}


class LoadedKernel:
    """One kernel in the device's memory: `kernel(grid, *arguments)` puts it on the device's stream. Not for two threads at once."""

    __slots__ = (
        "_addresses",
        "_buffer",
        "_driver",
        "_function",
        "_keep",
        "_pack",
        "_pointers",
        "_stream",
        "source",
    )

    def __init__(
        self, driver: Any, source: KernelSource, library: Any, function: Any, device: Device
    ) -> None:
        self.source = source
        self._driver, self._function, self._stream = driver, function, device.stream
        kinds = source.arguments
        self._pointers = tuple(place for place, kind in enumerate(kinds) if kind.startswith("*"))
        formats = ["Q" if kind.startswith("*") else _FORMATS[kind] for kind in kinds]
        packer = struct.Struct("@" + "".join(formats))
        self._buffer = ctypes.create_string_buffer(max(packer.size, 1))
        base = ctypes.addressof(self._buffer)
        places = [
            base + struct.calcsize("@" + "".join(formats[: i + 1])) - struct.calcsize(formats[i])
            for i in range(len(formats))
        ]
        array = (ctypes.c_void_p * max(len(places), 1))(*places)
        self._addresses = ctypes.addressof(array)
        self._pack = packer.pack_into
        self._keep = (array, library)

    def __call__(self, grid: Grid, *arguments: Any) -> None:
        values = list(arguments)
        try:
            for place in self._pointers:
                values[place] = values[place].data_ptr()
            self._pack(self._buffer, 0, *values)
        except (AttributeError, IndexError, struct.error) as error:
            raise EngineError("kernel_arguments", f"kernel {self.source.name}: {error}") from error
        x, y, z = grid
        (error,) = self._driver.cuLaunchKernel(
            self._function,
            x,
            y,
            z,
            self.source.threads,
            1,
            1,
            self.source.shared_bytes,
            self._stream(),
            self._addresses,
            0,
        )
        if error:
            raise _failure(self._driver, f"launch of kernel {self.source.name} on {grid} blocks", error)


class Launcher:
    """The loaded kernels of one device."""

    def __init__(self, device: Device, progress: Progress) -> None:
        self._driver = _import_driver()
        self._device = device
        self._cache = CubinCache(device.arch)
        self._progress = progress
        self._loaded: dict[KernelSpec, LoadedKernel] = {}

    def load(self, spec: KernelSpec) -> LoadedKernel:
        """The kernel's handle, the same one for an equal spec. Raises ConfigError (cannot compile), EngineError (the driver refuses)."""
        return self.load_all([spec])[0]

    def load_all(self, specs: Sequence[KernelSpec]) -> list[LoadedKernel]:
        """Handles of several kernels."""
        for spec in specs:
            if spec not in self._loaded:
                cubin = self._cache.find(spec)
                if cubin is None:
                    self._progress(f"compiling kernel {spec.label}")
                    cubin = self._cache.compile(spec)
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
    return EngineError(
        "gpu_error", f"{what}: {error.name}: {(words or b'no description').decode(errors='replace')}"
    )


def _import_driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise ConfigError(
            f"the GPU's kernels are launched through cuda-bindings ({error}); run: pip install 'vsrv[cuda]'"
        ) from error
    return driver
