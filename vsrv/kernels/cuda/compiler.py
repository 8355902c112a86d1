"""Kernel function → PTX (numba, libnvvm) → cubin (nvJitLink). Needs no GPU; imported only when something must be compiled.

numba is used as a compiler alone. Its launcher costs over 100 µs a call, raises no shared-memory limit and knows no 16-bit tensors.
"""

from __future__ import annotations

import re
import types as python_types
from dataclasses import dataclass
from typing import Any

import numba.cuda.dispatcher as numba_dispatcher
from cuda.bindings import nvjitlink
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
_SCALARS = {"i32": types.int32, "u32": types.uint32, "i64": types.int64, "f32": types.float32}


@dataclass(frozen=True, slots=True)
class Report:
    """What the assembler says about one kernel."""

    registers: int
    stack_bytes: int
    spill_bytes: int


def ptx_of(source: KernelSource, arch: Arch) -> str:
    """Compile to PTX whose entry has the kernel's own name. Raises ConfigError naming what to install."""
    signature = types.void(*[_numba_type(kind) for kind in source.arguments])
    cc = (arch.major, arch.minor, "a") if arch.specific else (arch.major, arch.minor)
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
    finally:
        numba_dispatcher.get_current_device = here
    entry = re.search(r"\.entry\s+([\w$]+)", ptx)
    if entry is None:
        raise ConfigError(f"kernel {source.name}: the compiler made no entry point")
    return str(ptx.replace(entry[1], source.name))


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
        raise ConfigError(
            f"the assembler refused a kernel for {arch.name}: {error} {bytes(words).decode(errors='replace')}"
        ) from error
    finally:
        nvjitlink.destroy(linker)
    return bytes(cubin), _report(bytes(log).decode(errors="replace"))


def _report(log: str) -> Report:
    registers = re.search(r"Used (\d+) registers", log)
    memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if registers is None or memory is None:
        raise ConfigError(f"the assembler's report is not understood: {log[:300]}")
    return Report(int(registers[1]), int(memory[1]), int(memory[2]) + int(memory[3]))
