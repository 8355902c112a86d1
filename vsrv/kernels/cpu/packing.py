"""Weights [N, K] row-major → panels [N/32][K][32], the layout of `gemm.py`; columns beyond N are zero."""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from vsrv.kernels.cpu.intrinsics import BFLOAT16, FLOAT32, pointer_f32, pointer_u16, pointer_u32


@njit(nogil=True, cache=True)
def pack_panels(a, tid, team):  # type: ignore[no-untyped-def]
    """a: weight [N, K] of the packed type, N, K, dtype, out. Eight k of a panel at a time, so that lines are written whole."""
    n, k, dtype = a[1], a[2], a[3]
    panels = (n + 31) // 32
    if dtype == FLOAT32:
        source32 = carray(pointer_f32(a[0]), (n, k))
        for p in range(tid * panels // team, (tid + 1) * panels // team):
            out32 = carray(pointer_f32(a[4] + p * k * 128), (k, 32))
            for c in range(32):
                column = p * 32 + c
                for i in range(k):
                    out32[i, c] = source32[column, i] if column < n else np.float32(0)
        return
    source = carray(pointer_u16(a[0]), (n, k))
    for p in range(tid * panels // team, (tid + 1) * panels // team):
        out = carray(pointer_u16(a[4] + p * k * 64), (k, 32))
        for first in range(0, k, 64):
            last = min(k, first + 64)
            for c in range(32):
                lane = 2 * (c % 16) + c // 16 if dtype == BFLOAT16 else c
                column = p * 32 + c
                if column < n:
                    for i in range(first, last):
                        out[i, lane] = source[column, i]
                else:
                    for i in range(first, last):
                        out[i, lane] = np.uint16(0)


@njit(nogil=True, cache=True)
def fill_panels(a, tid, team):  # type: ignore[no-untyped-def]
    """a: out, words (u32), seed, dtype, exponent bits. Random weights of one magnitude with random sign and mantissa (splitmix64).

    Only for `load_format="dummy"`: values are finite, centred and of the size that real layers have.
    """
    words = a[1]
    out = carray(pointer_u32(a[0]), (words,))
    mask, high = np.uint32(a[4] & 0xFFFFFFFF), np.uint32(a[5] & 0xFFFFFFFF)
    for i in range(tid * words // team, (tid + 1) * words // team):
        z = np.uint64(a[2]) + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out[i] = (np.uint32(z ^ (z >> np.uint64(31))) & mask) | high
