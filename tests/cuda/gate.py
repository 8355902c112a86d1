"""The compile gate: a kernel is compiled for each architecture, without a GPU, and the assembler's report is held to a limit.

    gate.prepare(specs)  # where there are many: compiled side by side
    gate.check(specialise(make_decode, D=128, G=4), registers=128)

What was found is kept below vsrv's cache folder, by content (the kernel's key, the compiler's versions, this file), so that a repeated run
takes milliseconds a kernel; the verdict is given anew each time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from vsrv import boot
from vsrv.kernels.cuda.cache import CubinCache
from vsrv.kernels.cuda.source import Arch, KernelSource, KernelSpec, parse_arch

ARCHITECTURES = ("sm_80", "sm_90a")
# What one block may have: CUDA C++ programming guide 13.0, "Technical Specifications per Compute Capability".
_MAX_SHARED_KB = {(8, 0): 163, (8, 6): 99, (8, 7): 163, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99}
_MULTIPROCESSOR_REGISTERS = 65536
# PTX that is slow where nobody expects it. Consumer GPUs have 1/64 of the rate for 64-bit floats; a 64-bit division becomes a call.
_SLOW = {
    "a 64-bit float (write f32(…))": re.compile(r"\.f64\b"),
    "a call": re.compile(r"^\s*(?:@!?%\w+\s+)?call\b"),
    "a 64-bit division (use u32, shifts or constants)": re.compile(r"\b(?:div|rem)\.[su]64\b"),
}


@dataclass(frozen=True)
class Facts:
    """What compiling one kernel for one architecture showed."""

    registers: int
    stack_bytes: int
    spill_bytes: int
    cubin_bytes: int
    slow: dict[str, list[str]]  # description → the lines of PTX, three at most


def prepare(specs: Sequence[KernelSpec], architectures: tuple[str, ...] = ARCHITECTURES) -> None:
    """Find the facts of many kernels by as many processes as there are cores; numba compiles under one lock. Factories have names."""
    tasks = [(spec, parse_arch(name)) for spec in specs for name in architectures]
    tasks = [task for task in tasks if not _path(*task).exists()]
    if tasks:
        cores = min(len(tasks), len(os.sched_getaffinity(0)))
        with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(facts_of, *zip(*tasks, strict=True)))  # the first exception comes out here


def check(
    spec: KernelSpec, registers: int, architectures: tuple[str, ...] = ARCHITECTURES
) -> dict[str, Facts]:
    """Assert that a kernel compiles well; returns the facts by architecture.

    No spills, no stack, at most `registers` a thread, as many blocks on a multiprocessor as its launch bounds promise, shared memory that
    the GPU has, and no PTX that is slow where nobody expects it. All faults are named at once.
    """
    facts = {name: facts_of(spec, parse_arch(name)) for name in architectures}
    faults = [
        f"{spec.label} for {name}: {fault}"
        for name, found in facts.items()
        for fault in faults_of(spec.describe(), parse_arch(name), found, registers)
    ]
    assert not faults, "\n".join(faults)
    return facts


def faults_of(source: KernelSource, arch: Arch, facts: Facts, registers: int) -> list[str]:
    """What the gate objects to."""
    faults = [f"{what}: {'; '.join(lines)}" for what, lines in facts.slow.items() if lines]
    if facts.stack_bytes or facts.spill_bytes:
        faults.append(f"{facts.stack_bytes} bytes of stack, {facts.spill_bytes} bytes spilled")
    if facts.registers > registers:
        faults.append(f"{facts.registers} registers, more than {registers}")
    # registers are given to warps in units of 256 (8 a lane)
    block = -(-source.threads // 32) * 32 * (-(-facts.registers // 8) * 8)
    if block * source.min_blocks > _MULTIPROCESSOR_REGISTERS:
        faults.append(f"{source.min_blocks} blocks with {facts.registers} registers do not fit together")
    available = _MAX_SHARED_KB[arch.major, arch.minor] * 1024
    # each resident block costs 1 KB beside what it asks for
    needed = source.min_blocks * (source.shared_bytes + 1024)
    if source.shared_bytes > available or needed > available + 1024:
        faults.append(
            f"{source.min_blocks} blocks with {source.shared_bytes} shared bytes do not fit into {available}"
        )
    return faults


def facts_of(spec: KernelSpec, arch: Arch) -> Facts:
    """Compile, or read what an earlier run has found."""
    path = _path(spec, arch)
    if path.exists():
        return Facts(**json.loads(path.read_text()))
    facts = _compile(spec, arch)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(asdict(facts)))
    scratch.replace(path)
    return facts


def _path(spec: KernelSpec, arch: Arch) -> Path:
    text = f"{CubinCache(arch).key(spec)} {_toolchain()}"
    return boot.private_folder("gate") / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


@cache
def _toolchain() -> str:
    """Versions of all that has a say in the machine code, and this file."""
    from cuda.bindings import nvjitlink, nvvm

    packages = [importlib.metadata.version(name) for name in ("numba", "numba-cuda", "llvmlite")]
    libraries = [nvvm.version(), nvvm.ir_version(), nvjitlink.version()]
    return f"{packages} {libraries} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"


def _compile(spec: KernelSpec, arch: Arch) -> Facts:
    from vsrv.kernels.cuda import compiler, intrinsics

    source = spec.source(intrinsics)
    ptx = compiler.ptx_of(source, arch)
    cubin, report = compiler.cubin_of(ptx, arch, source.max_registers)
    lines = [line.strip() for line in ptx.splitlines() if not line.lstrip().startswith("//")]
    slow = {what: [line for line in lines if pattern.search(line)][:3] for what, pattern in _SLOW.items()}
    return Facts(report.registers, report.stack_bytes, report.spill_bytes, len(cubin), slow)
