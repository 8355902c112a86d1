"""Small kernels for the tests of the toolchain itself. Some tests copy this file into a copy of the package."""

from __future__ import annotations

from typing import Any

from vsrv.kernels.cuda.source import KernelSource


def make_scale(ops: Any, n: int, shared_bytes: int = 0) -> KernelSource:
    """out[i] = x[i] * factor, n values a thread. Grid (blocks, 1, 1) of 128 threads."""
    cuda, i32 = ops.cuda, ops.i32

    def scale(out, x, factor, count):  # type: ignore[no-untyped-def]
        first = i32(cuda.blockIdx.x * 128 + cuda.threadIdx.x) * n
        for j in range(n):
            if first + j < count:
                out[first + j] = x[first + j] * factor

    return KernelSource("scale", scale, ("*f32", "*f32", "f32", "i32"), 128, shared_bytes, (n, shared_bytes))


def make_every_kind(ops: Any) -> KernelSource:
    """One argument of each kind, in an order whose natural alignment leaves gaps."""

    def every_kind(flag, count, out, distance, factor, mask, table):  # type: ignore[no-untyped-def]
        out[0] = factor
        table[0] = distance + count

    kinds = ("u32", "i32", "*f32", "i64", "f32", "u32", "*u64")
    return KernelSource("every_kind", every_kind, kinds, 64, 0, ())


def make_helped(ops: Any) -> KernelSource:
    """Uses a device function and an instruction, so that numba compiles several functions for it."""
    cuda, exp2, f32 = ops.cuda, ops.exp2, ops.f32
    two = f32(2)

    @ops.device
    def helper(value):  # type: ignore[no-untyped-def]
        return exp2(value) * two

    def helped(out, x):  # type: ignore[no-untyped-def]
        i = cuda.threadIdx.x
        out[i] = helper(x[i])

    return KernelSource("helped", helped, ("*f32", "*f32"), 32, 0, ())


def make_wide(ops: Any) -> KernelSource:
    """Breaks the gate: 64-bit floats, a 64-bit division, an array that lives in local memory."""
    cuda, f32 = ops.cuda, ops.f32

    def wide(out, x, count):  # type: ignore[no-untyped-def]
        local = cuda.local.array(64, f32)
        for j in range(64):
            local[j] = x[j] * 0.1
        for j in range(count):
            local[(j * 7) % count] += x[j]
        out[0] = local[count]

    return KernelSource("wide", wide, ("*f32", "*f32", "i64"), 32, 0, ())
