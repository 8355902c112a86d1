"""Row-wise operations: embedding, norms, gated activations. Rows are split over the team; each row is summed in a fixed order."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit

from vsrv.kernels.cpu.intrinsics import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    f32_of_bits,
    f32_of_f16_bits,
    pointer_f32,
    pointer_i32,
    pointer_u16,
)


@njit(nogil=True, cache=True)
def embedding(a, tid, team):  # type: ignore[no-untyped-def]
    """a: ids, rows, packed table, hidden size, dtype, out, out stride. Reads rows out of a packed linear layer."""
    rows, hidden, dtype = a[1], a[3], a[4]
    line = 128 if dtype == FLOAT32 else 64
    ids = carray(pointer_i32(a[0]), (rows,))
    for r in range(tid * rows // team, (tid + 1) * rows // team):
        token = np.int64(ids[r])
        panel, column = token // 32, token % 32
        base = a[2] + panel * hidden * line
        out = carray(pointer_f32(a[5] + r * a[6]), (hidden,))
        if dtype == FLOAT32:
            table = carray(pointer_f32(base), (hidden * 32,))
            for i in range(hidden):
                out[i] = table[i * 32 + column]
        else:
            half = carray(pointer_u16(base), (hidden * 32,))
            lane = 2 * (column % 16) + column // 16 if dtype == BFLOAT16 else column
            for i in range(hidden):
                word = half[i * 32 + lane]
                if dtype == FLOAT16:
                    out[i] = f32_of_f16_bits(word)
                else:
                    out[i] = f32_of_bits(np.int32(np.uint32(word) << np.uint32(16)))


@njit(nogil=True, cache=True)
def _inverse_root_mean_square(x, eps):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(x.shape[0]):
        total += x[i] * x[i]
    return np.float32(1) / np.float32(math.sqrt(total / np.float32(x.shape[0]) + eps))


@njit(nogil=True, cache=True)
def rms_norm(a, tid, team):  # type: ignore[no-untyped-def]
    """a: x, x stride, residual (0 = none), residual stride, weight, eps (f32 bits), out, out stride, rows, hidden size."""
    rows, hidden = a[8], a[9]
    eps = f32_of_bits(np.int32(a[5]))
    weight = carray(pointer_f32(a[4]), (hidden,))
    for r in range(tid * rows // team, (tid + 1) * rows // team):
        x = carray(pointer_f32(a[0] + r * a[1]), (hidden,))
        out = carray(pointer_f32(a[6] + r * a[7]), (hidden,))
        if a[2] != 0:
            residual = carray(pointer_f32(a[2] + r * a[3]), (hidden,))
            for i in range(hidden):
                residual[i] += x[i]
            x = residual
        scale = _inverse_root_mean_square(x, eps)
        for i in range(hidden):
            out[i] = x[i] * scale * weight[i]


@njit(nogil=True, cache=True)
def gated(a, tid, team):  # type: ignore[no-untyped-def]
    """a: gate_up, stride, out, out stride, rows, width, activation (0 silu, 1 gelu erf, 2 gelu tanh): out = act(gate) * up."""
    rows, width, activation = a[4], a[5], a[6]
    one, half = np.float32(1), np.float32(0.5)
    for r in range(tid * rows // team, (tid + 1) * rows // team):
        both = carray(pointer_f32(a[0] + r * a[1]), (2 * width,))
        gate, up = both[:width], both[width:]
        out = carray(pointer_f32(a[2] + r * a[3]), (width,))
        if activation == 0:
            for i in range(width):
                out[i] = gate[i] / (one + np.float32(math.exp(-gate[i]))) * up[i]
        elif activation == 1:
            for i in range(width):
                out[i] = (
                    half
                    * gate[i]
                    * (one + np.float32(math.erf(gate[i] * np.float32(0.7071067811865476))))
                    * up[i]
                )
        else:
            for i in range(width):
                x = gate[i]
                inner = np.float32(0.7978845608028654) * (x + np.float32(0.044715) * x * x * x)
                out[i] = half * x * (one + np.float32(math.tanh(inner))) * up[i]
