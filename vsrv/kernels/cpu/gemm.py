"""Packed linear layers: out = x @ W.T (+ bias), fp32 activations, weights in bf16, fp16 or fp32 panels of 32 columns.

Each thread takes a run of panels. Weights are read once per row tile; up to six rows share one pass over a panel pair, so that decode of
up to six sequences costs one read of the weights, the limit at small batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit

from vsrv.kernels.cpu.intrinsics import BFLOAT16, FLOAT16, FLOAT32, make_tile, pointer_f32


def _make_rows(dtype: int) -> tuple[Any, Any]:
    """(two-panel, one-panel) functions that run all rows over a panel pair or a single panel."""
    t12x1, t6x2, t4x2, t2x2, t1x2 = (
        make_tile(dtype, rows, panels, False) for rows, panels in ((12, 1), (6, 2), (4, 2), (2, 2), (1, 2))
    )
    t6x1, t2x1, t1x1 = (make_tile(dtype, rows, 1, False) for rows in (6, 2, 1))

    @njit(nogil=True, cache=True)
    def pair(x, xs, w, ws, k, out, os, rows):  # type: ignore[no-untyped-def]
        m = 0
        while rows - m >= 6:
            t6x2(x + m * xs, xs, w, ws, k, out + m * os, os)
            m += 6
        if rows - m >= 4:
            t4x2(x + m * xs, xs, w, ws, k, out + m * os, os)
            m += 4
        if rows - m >= 2:
            t2x2(x + m * xs, xs, w, ws, k, out + m * os, os)
            m += 2
        if rows - m >= 1:
            t1x2(x + m * xs, xs, w, ws, k, out + m * os, os)

    @njit(nogil=True, cache=True)
    def single(x, xs, w, ws, k, out, os, rows):  # type: ignore[no-untyped-def]
        m = 0
        while rows - m >= 12:
            t12x1(x + m * xs, xs, w, ws, k, out + m * os, os)
            m += 12
        while rows - m >= 6:
            t6x1(x + m * xs, xs, w, ws, k, out + m * os, os)
            m += 6
        while rows - m >= 2:
            t2x1(x + m * xs, xs, w, ws, k, out + m * os, os)
            m += 2
        if rows - m >= 1:
            t1x1(x + m * xs, xs, w, ws, k, out + m * os, os)

    return pair, single


_bf16_pair, _bf16_single = _make_rows(BFLOAT16)
_f16_pair, _f16_single = _make_rows(FLOAT16)
_f32_pair, _f32_single = _make_rows(FLOAT32)


@njit(nogil=True, cache=True)
def rows_times_panels(dtype, x, xs, w, ws, k, out, os, rows, panels):  # type: ignore[no-untyped-def]
    """`panels` consecutive panels for all rows; addresses and strides in bytes."""
    c = 0
    while panels - c >= 2:
        if dtype == BFLOAT16:
            _bf16_pair(x, xs, w + c * ws, ws, k, out + c * 128, os, rows)
        elif dtype == FLOAT16:
            _f16_pair(x, xs, w + c * ws, ws, k, out + c * 128, os, rows)
        else:
            _f32_pair(x, xs, w + c * ws, ws, k, out + c * 128, os, rows)
        c += 2
    if c < panels:
        if dtype == BFLOAT16:
            _bf16_single(x, xs, w + c * ws, ws, k, out + c * 128, os, rows)
        elif dtype == FLOAT16:
            _f16_single(x, xs, w + c * ws, ws, k, out + c * 128, os, rows)
        else:
            _f32_single(x, xs, w + c * ws, ws, k, out + c * 128, os, rows)


def _make_any_rows(dtype: int, accumulate: bool) -> Any:
    """One panel for any number of rows; `accumulate` adds to what `out` holds."""
    t12, t6, t4, t2, t1 = (make_tile(dtype, rows, 1, accumulate) for rows in (12, 6, 4, 2, 1))

    @njit(nogil=True, cache=True)
    def tile_rows(x, xs, w, k, out, os, rows):  # type: ignore[no-untyped-def]
        m = 0
        while rows - m >= 12:
            t12(x + m * xs, xs, w, 0, k, out + m * os, os)
            m += 12
        if rows - m >= 6:
            t6(x + m * xs, xs, w, 0, k, out + m * os, os)
            m += 6
        if rows - m >= 4:
            t4(x + m * xs, xs, w, 0, k, out + m * os, os)
            m += 4
        if rows - m >= 2:
            t2(x + m * xs, xs, w, 0, k, out + m * os, os)
            m += 2
        if rows - m >= 1:
            t1(x + m * xs, xs, w, 0, k, out + m * os, os)

    return tile_rows


_bf16_add = _make_any_rows(BFLOAT16, True)
_f16_add = _make_any_rows(FLOAT16, True)
_f32_add = _make_any_rows(FLOAT32, True)


@njit(nogil=True, cache=True)
def tile_rows_fresh(dtype, x, xs, w, k, out, os, rows):  # type: ignore[no-untyped-def]
    """out[rows, 32] = x[rows, k] @ panel."""
    if dtype == BFLOAT16:
        _bf16_single(x, xs, w, 0, k, out, os, rows)
    elif dtype == FLOAT16:
        _f16_single(x, xs, w, 0, k, out, os, rows)
    else:
        _f32_single(x, xs, w, 0, k, out, os, rows)


@njit(nogil=True, cache=True)
def tile_rows_accumulate(dtype, x, xs, w, k, out, os, rows):  # type: ignore[no-untyped-def]
    """out[rows, 32] += x[rows, k] @ panel."""
    if dtype == BFLOAT16:
        _bf16_add(x, xs, w, k, out, os, rows)
    elif dtype == FLOAT16:
        _f16_add(x, xs, w, k, out, os, rows)
    else:
        _f32_add(x, xs, w, k, out, os, rows)


@njit(nogil=True, cache=True)
def linear(a, tid, team):  # type: ignore[no-untyped-def]
    """a: x, x stride, w, k, n, out, out stride, rows, dtype, bias (0 = none)."""
    x, xs, w, k, n, out, os, rows, dtype, bias = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9]
    ws = k * (128 if dtype == FLOAT32 else 64)
    panels = (n + 31) // 32
    # even boundaries keep panel pairs together
    first = (tid * panels // team) & ~1
    last = panels if tid == team - 1 else ((tid + 1) * panels // team) & ~1
    whole = min(last, n // 32)
    if whole > first:
        rows_times_panels(dtype, x, xs, w + first * ws, ws, k, out + first * 128, os, rows, whole - first)
    if last > n // 32 and first < last:
        edge = np.empty((rows, 32), np.float32)
        c = n // 32
        rows_times_panels(dtype, x, xs, w + c * ws, ws, k, edge.ctypes.data, 128, rows, 1)
        for r in range(rows):
            target = carray(pointer_f32(out + r * os + c * 128), (n - c * 32,))
            for i in range(n - c * 32):
                target[i] = edge[r, i]
    if bias != 0:
        b = carray(pointer_f32(bias), (n,))
        for r in range(rows):
            target = carray(pointer_f32(out + r * os), (n,))
            for i in range(first * 32, min(n, last * 32)):
                target[i] += b[i]
