"""Kernel function → PTX (numba, libnvvm) → cubin (nvJitLink). Needs no GPU; imported only when something must be compiled.

numba is used as a compiler alone. Its launcher costs over 100 µs a call, raises no shared-memory limit and knows no 16-bit tensors.
"""

from __future__ import annotations

import os
import re
import types as python_types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba.cuda.dispatcher as numba_dispatcher
from cuda import pathfinder
from cuda.bindings import nvjitlink, nvrtc
from numba import types
from numba.cuda.compiler import compile as compile_to_ptx

from vsrv.errors import ConfigError
from vsrv.kernels.cuda.source import Arch, KernelSource

_POINTERS = {
    "u8": types.uint8,
    "u16": types.uint16,
    "u32": types.uint32,
    "i32": types.int32,
    "f32": types.float32,
    "u64": types.uint64,
}
# library → (what it does here, its wheel for CUDA 13 and for CUDA 12)
_LIBRARIES = {
    "nvrtc": ("numba asks it which GPUs it knows", "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"),
    "nvvm": ("makes PTX; in the CUDA toolkit's folder nvvm", "nvidia-nvvm", "nvidia-cuda-nvcc-cu12"),
    "nvJitLink": ("assembles PTX", "nvidia-nvjitlink", "nvidia-nvjitlink-cu12"),
}
# numba describes each function by such a variable for its own launcher. The names hold a counter over all functions of the process,
# which would make the machine code depend on what was compiled before.
_ENVIRONMENT = re.compile(r"^\.common \.global [^\n]*\b_ZN08NumbaEnv\w*;\n", re.MULTILINE)
_SCALARS = {"i32": types.int32, "u32": types.uint32, "i64": types.int64, "f32": types.float32}


@dataclass(frozen=True, slots=True)
class Report:
    """What the assembler says about one kernel."""

    registers: int
    stack_bytes: int
    spill_bytes: int


def require_libraries() -> None:
    """Raises ConfigError that names every library which compiling needs and this host lacks, and where to get it."""
    toolkit = Path("/usr/local/cuda")  # where NVIDIA's images keep it, without saying so in the environment
    if not {"CUDA_HOME", "CUDA_PATH"} & os.environ.keys() and (toolkit / "nvvm").is_dir():
        os.environ["CUDA_HOME"] = str(toolkit)
    lacking = []
    for library in _LIBRARIES:
        try:
            pathfinder.load_nvidia_dynamic_lib(library)
        except pathfinder.DynamicLibNotFoundError:
            lacking.append(library)
    if not lacking:
        return
    wheels = " ".join(f"'{_wheel(library, 'nvrtc' not in lacking)}'" for library in lacking)
    reasons = ", ".join(f"lib{library} ({_LIBRARIES[library][0]})" for library in lacking)
    raise ConfigError(
        f"GPU kernels cannot be compiled here without {reasons}; install a CUDA toolkit or run: pip install {wheels}"
    )


def _wheel(library: str, has_nvrtc: bool) -> str:
    """The wheel that fits the libraries that are there: PTX of a newer libnvvm is refused by an older assembler."""
    major, minor = 13, 0
    if has_nvrtc:
        _, major, minor = nvrtc.nvrtcVersion()
    return f"{_LIBRARIES[library][2 if major < 13 else 1]}=={major}.{minor}.*"


def ptx_of(source: KernelSource, arch: Arch) -> str:
    """Compile to PTX whose entry has the kernel's own name. Raises ConfigError naming what to install."""
    signature = types.void(*[_numba_type(kind) for kind in source.arguments])
    cc = (arch.major, arch.minor, "a") if arch.specific else (arch.major, arch.minor)
    require_libraries()
    here = numba_dispatcher.get_current_device
    # Device functions ask the current GPU for its compute capability, also where the target was named and no GPU is there.
    target = python_types.SimpleNamespace(compute_capability=(arch.major, arch.minor))
    numba_dispatcher.get_current_device = lambda: target
    try:
        ptx, _ = compile_to_ptx(
            source.function,
            signature,
            device=False,
            abi="numba",
            cc=cc,
            fastmath=True,
            launch_bounds=source.launch_bounds,
        )
    except (ImportError, OSError, RuntimeError) as error:
        # numba's ways to say that it finds no libnvvm, no libdevice or none that it understands; faults of a kernel are NumbaErrors
        raise ConfigError(
            f"kernel {source.name} cannot be compiled: {error}; install a CUDA toolkit or run: pip install '{_wheel('nvvm', True)}'"
        ) from error
    finally:
        numba_dispatcher.get_current_device = here
    entry = re.search(r"\.entry\s+([\w$]+)", ptx)
    if entry is None:
        raise ConfigError(f"kernel {source.name}: the compiler made no entry point")
    return _ENVIRONMENT.sub("", str(ptx.replace(entry[1], source.name)))


def _numba_type(kind: str) -> Any:
    return types.CPointer(_POINTERS[kind[1:]]) if kind.startswith("*") else _SCALARS[kind]


def cubin_of(ptx: str, arch: Arch, max_registers: int | None) -> tuple[bytes, Report]:
    """Assemble PTX for one architecture. Raises ConfigError with the assembler's own words."""
    options = [f"-arch={arch.name}", "-O3", "-verbose"]
    if max_registers:
        options.append(f"-maxrregcount={max_registers}")
    linker = nvjitlink.create(len(options), options)
    try:
        text = ptx.encode()
        nvjitlink.add_data(linker, nvjitlink.InputType.PTX, text, len(text), "kernel")
        nvjitlink.complete(linker)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(linker))
        nvjitlink.get_linked_cubin(linker, cubin)
        log = bytearray(nvjitlink.get_info_log_size(linker))
        nvjitlink.get_info_log(linker, log)
    except nvjitlink.nvJitLinkError as error:
        words = bytearray(nvjitlink.get_error_log_size(linker))
        nvjitlink.get_error_log(linker, words)
        text = bytes(words).decode(errors="replace").rstrip("\0 \n")
        if "Unsupported .version" in text:
            text += f"\nlibnvvm is newer than nvJitLink; run: pip install '{_wheel('nvvm', True)}'"
        raise ConfigError(f"the assembler refused a kernel for {arch.name}: {error} {text}") from error
    finally:
        nvjitlink.destroy(linker)
    return bytes(cubin), _report(bytes(log).decode(errors="replace"))


def _report(log: str) -> Report:
    registers = re.search(r"Used (\d+) registers", log)
    memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if registers is None or memory is None:
        raise ConfigError(f"the assembler's report is not understood: {log[:300]}")
    return Report(int(registers[1]), int(memory[1]), int(memory[2]) + int(memory[3]))
