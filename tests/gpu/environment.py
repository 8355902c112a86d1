"""What is on this machine, and for each missing piece what to do; the rates that all figures are held against; the compiling of all kernels."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time

import torch
from report import say
from target import Case, Context, Target

from vsrv import boot
from vsrv.kernels.cuda import operations as ops
from vsrv.kernels.cuda.source import Arch, KernelSpec, parse_arch

_PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "numba-cuda",
    "llvmlite",
    "cuda-bindings",
    "cuda-core",
    "cuda-pathfinder",
    "triton",
    "transformers",
    "safetensors",
)
WIDTHS = (64, 256, 512, 1000, 1024, 2560, 4096, 8192)  # hidden sizes of all parts
_LIBRARIES = ("nvvm", "nvrtc", "nvJitLink")


def specs(arch: Arch) -> list[KernelSpec]:
    """Every kernel that the parts use, so that they are compiled side by side, and can be compiled on another machine."""
    found = [ops.plan_spec(), *ops.SamplingVariant().specs()]
    for dtype in ops.DTYPES:
        for dim in (64, 128, 256):
            found += [ops.decode_spec(arch, dtype, dim), ops.prefill_spec(arch, dtype, dim)]
            found += [ops.rope_spec(dtype, dim, norms) for norms in (False, True)]
        found += [ops.gate_spec(dtype, activation) for activation in ("silu", "gelu", "gelu_tanh")]
        found += [ops.norm_spec(dtype, width, add) for width in WIDTHS for add in (False, True)]
    return list(dict.fromkeys(found))


def versions(context: Context) -> str:
    context.out.fact("python", platform.python_version())
    for name in _PACKAGES:
        try:
            context.out.fact(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            context.out.fact(name, "absent")
    context.out.fact("torch's CUDA", torch.version.cuda)
    return f"{platform.machine()}, {os.cpu_count()} cores"


def libraries(context: Context) -> str:
    """libnvvm, libnvrtc, libnvJitLink: where they are, or which cubins serve without them."""
    context.out.fact("CUDA_HOME", os.environ.get("CUDA_HOME", "not set"))
    lacking = []
    for name in _LIBRARIES:
        try:
            from cuda import pathfinder

            context.out.fact(f"lib{name}", pathfinder.load_nvidia_dynamic_lib(name).abs_path)
        except Exception as error:
            lacking.append(name)
            context.out.fact(f"lib{name}", f"not found ({type(error).__name__})")
    context.out.fact("compiled kernels kept in", boot.cache_dir())
    if not lacking:
        return "kernels can be compiled here"
    lines = ", ".join(f"lib{name}" for name in lacking)
    context.out.note(
        f"{lines} not found: set CUDA_HOME to a CUDA toolkit of 13.0 (libnvvm is in its folder nvvm/lib64), or run "
        "`tests/gpu.sh --compile sm_90a` on a machine that has them and carry build/gpu-cubins here"
    )
    return "kernels come from compiled ones alone"


def device_facts(context: Context) -> str:
    if context.target.tiny:
        return "simulated"
    properties = torch.cuda.get_device_properties(0)
    context.out.fact("gpu", properties.name)
    context.out.fact("compute capability", f"{properties.major}.{properties.minor}")
    context.out.fact("multiprocessors", properties.multi_processor_count)
    context.out.fact("memory GiB", round(properties.total_memory / 2**30, 1))
    context.out.fact("L2 MiB", getattr(properties, "L2_cache_size", 0) >> 20)
    from cuda.bindings import driver

    context.out.fact("driver's CUDA", driver.cuDriverGetVersion()[1])
    try:
        with open("/proc/driver/nvidia/version") as file:
            context.out.fact("driver", file.readline().strip())
    except OSError:
        context.out.fact("driver", "no /proc/driver/nvidia/version")
    return str(properties.name)


def compile_kernels(context: Context) -> str:
    """Everything that later parts load: a kernel that does not compile or load here is named here."""
    wanted = specs(context.target.device.arch)
    if context.target.tiny:
        return f"{len({spec.label for spec in wanted})} kernels named"
    began = time.monotonic()
    context.target.loader.load_all(wanted)
    seconds = time.monotonic() - began
    context.out.figure(f"compile and load {len(wanted)} kernels", seconds, "s")
    return f"{len(wanted)} kernels in {seconds:.1f} s"


def rates(context: Context) -> str:
    target = context.target
    copy = target.copy_rate()
    context.out.figure("device copy, bytes read and written", copy / 1e12, "TB/s")
    size = 64 if target.tiny else 8192
    a, b = (torch.randn(size, size, device=target.torch_device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    milliseconds = target.time_ms([lambda: torch.mm(a, b, out=out)])
    context.out.figure(f"bf16 product of {size} cubed", 2 * size**3 / milliseconds / 1e9, "TFLOP/s")
    return f"{copy / 1e12:.2f} TB/s"


def environment_cases(tiny: bool) -> list[Case]:
    return [
        Case("versions", versions), Case("libraries", libraries), Case("device", device_facts),
        Case("kernels", compile_kernels), Case("rates", rates),
    ]  # fmt: skip


def compile_for(architecture: str) -> int:
    """Compile into $VSRV_CACHE_DIR for a GPU that is elsewhere; returns the exit status."""
    from vsrv.kernels.cuda import compile_helpers
    from vsrv.kernels.cuda.cache import CubinCache

    arch = parse_arch(architecture)
    found = compile_helpers.cubins(CubinCache(arch), specs(arch), lambda line: say(f"  {line}"))
    say(f"{len(found)} kernels for {architecture} in {boot.cache_dir()}")
    return 0


def open_target(simulate: bool) -> Target:
    from target import open_gpu, open_simulator

    return open_simulator() if simulate else open_gpu()
