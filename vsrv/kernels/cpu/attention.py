"""Rotary embedding with the KV write, and paged attention over blocks of 32 tokens.

KV layout of one layer: K block [Hkv][D'][32 tokens], V block [Hkv][D'/32][32 tokens][32], D' = head_dim padded to 32; both are panels of
`gemm.py`, so that scores = q @ K and out += p @ V run on the same register tiles. bf16 lines are interleaved like weights.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit

from vsrv.kernels.cpu.gemm import tile_rows_accumulate, tile_rows_fresh
from vsrv.kernels.cpu.intrinsics import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    bits_of_f32,
    f16_bits_of_f32,
    f32_of_bits,
    pointer_f32,
    pointer_i32,
    pointer_u16,
)

BLOCK = 32  # tokens per KV block: the panel width of the tiles


@njit(nogil=True, cache=True)
def exp_nonpositive(x):  # type: ignore[no-untyped-def]
    """exp(x) for x <= 0 with about 1e-7 relative error; a polynomial on the fraction of x*log2(e), which LLVM vectorises."""
    y = max(x, np.float32(-87.0)) * np.float32(1.4426950408889634)
    n = np.int32(y - np.float32(0.5))
    f = y - np.float32(n)
    p = np.float32(1.5403530e-4)
    p = p * f + np.float32(1.3333558e-3)
    p = p * f + np.float32(9.6181291e-3)
    p = p * f + np.float32(5.5504109e-2)
    p = p * f + np.float32(2.4022651e-1)
    p = p * f + np.float32(6.9314718e-1)
    p = p * f + np.float32(1.0)
    return f32_of_bits(bits_of_f32(p) + (n << np.int32(23)))


@njit(nogil=True, cache=True)
def bf16_bits(x):  # type: ignore[no-untyped-def]
    """float32 → bfloat16 bits, rounded to nearest even."""
    u = np.int64(bits_of_f32(x)) & 0xFFFFFFFF
    return np.uint16((u + 0x7FFF + ((u >> 16) & 1)) >> 16)


@njit(nogil=True, cache=True)
def _store(dtype, line, column, value):  # type: ignore[no-untyped-def]
    """Put `value` at `column` of the packed line at address `line`."""
    if dtype == BFLOAT16:
        carray(pointer_u16(line), (32,))[2 * (column % 16) + column // 16] = bf16_bits(value)
    elif dtype == FLOAT16:
        carray(pointer_u16(line), (32,))[column] = f16_bits_of_f32(value)
    else:
        carray(pointer_f32(line), (32,))[column] = value


@njit(nogil=True, cache=True)
def _norm_and_rotate(v, norm, eps, cos, sin, half):  # type: ignore[no-untyped-def]
    if norm.shape[0] > 0:
        total = np.float32(0)
        for i in range(v.shape[0]):
            total += v[i] * v[i]
        scale = np.float32(1) / np.float32(math.sqrt(total / np.float32(v.shape[0]) + eps))
        for i in range(v.shape[0]):
            v[i] = v[i] * scale * norm[i]
    for i in range(half):
        a = v[i]
        b = v[i + half]
        v[i] = a * cos[i] - b * sin[i]
        v[i + half] = b * cos[i] + a * sin[i]


@njit(nogil=True, cache=True)
def rope_cache(a, tid, team):  # type: ignore[no-untyped-def]
    """a: qkv, stride, tokens, positions, cos_sin, half, q norm, k norm, eps (f32 bits), slots, k cache, k block bytes,
    v cache, v block bytes, heads, kv heads, head dim, KV dtype. Rotates q in place, writes K and V to their slots."""
    stride, tokens, half, heads, kv_heads, dim, dtype = a[1], a[2], a[5], a[14], a[15], a[16], a[17]
    padded = (dim + 31) // 32 * 32
    line = 128 if dtype == FLOAT32 else 64
    eps = f32_of_bits(np.int32(a[8]))
    positions = carray(pointer_i32(a[3]), (tokens,))
    slots = carray(pointer_i32(a[9]), (tokens,))
    q_norm = carray(pointer_f32(a[6]), (dim if a[6] != 0 else 0,))
    k_norm = carray(pointer_f32(a[7]), (dim if a[7] != 0 else 0,))
    for t in range(tid * tokens // team, (tid + 1) * tokens // team):
        row = carray(pointer_f32(a[0] + t * stride), ((heads + 2 * kv_heads) * dim,))
        table = carray(pointer_f32(a[4] + np.int64(positions[t]) * 8 * half), (2 * half,))
        cos, sin = table[:half], table[half:]
        for h in range(heads):
            _norm_and_rotate(row[h * dim : (h + 1) * dim], q_norm, eps, cos, sin, half)
        block, offset = np.int64(slots[t]) // BLOCK, np.int64(slots[t]) % BLOCK
        for h in range(kv_heads):
            k = row[(heads + h) * dim : (heads + h + 1) * dim]
            v = row[(heads + kv_heads + h) * dim : (heads + kv_heads + h + 1) * dim]
            _norm_and_rotate(k, k_norm, eps, cos, sin, half)
            k_base = a[10] + block * a[11] + h * padded * line
            for d in range(dim):
                _store(dtype, k_base + d * line, offset, k[d])
            v_base = a[12] + block * a[13] + h * padded * line
            for d in range(dim):
                _store(dtype, v_base + ((d // 32) * BLOCK + offset) * line, d % 32, v[d])


@njit(nogil=True, cache=True)
def _softmax_block(scores, visible_first, visible_last, scale, running_max, running_sum, out, padded):  # type: ignore[no-untyped-def]
    """Online softmax of one row over one block (Milakov & Gimelshein 2018): scores become probabilities."""
    top = np.float32(-1e30)
    for t in range(visible_first, visible_last):
        top = max(top, scores[t])
    top = top * scale
    if top > running_max[0]:
        shrink = exp_nonpositive(max(running_max[0] - top, np.float32(-87.0)))
        running_max[0] = top
        running_sum[0] *= shrink
        for d in range(padded):
            out[d] *= shrink
    peak = running_max[0]
    for t in range(BLOCK):
        scores[t] = exp_nonpositive(min(scores[t] * scale - peak, np.float32(0)))
    for t in range(visible_first):
        scores[t] = np.float32(0)
    for t in range(visible_last, BLOCK):
        scores[t] = np.float32(0)
    total = np.float32(0)
    for t in range(BLOCK):
        total += scores[t]
    running_sum[0] += total


@njit(nogil=True, cache=True)
def _attend(a, seq, head, first_token, num_tokens, q, out, scores, peak, total):  # type: ignore[no-untyped-def]
    """One unit: the queries of `num_tokens` tokens of one sequence for one KV head, over all blocks that they see."""
    stride, tables, table_width, group, dim, dtype = a[1], a[2], a[3], a[6], a[8], a[16]
    scale = f32_of_bits(np.int32(a[14]))
    window = a[15]
    padded = (dim + 31) // 32 * 32
    line = 128 if dtype == FLOAT32 else 64
    cu = carray(pointer_i32(a[4]), (seq + 2,))
    seq_len = np.int64(carray(pointer_i32(a[5]), (seq + 1,))[seq])
    query_len = np.int64(cu[seq + 1] - cu[seq])
    start = seq_len - query_len + first_token  # position of the first query of this unit
    rows = num_tokens * group
    for i in range(rows):
        token = np.int64(cu[seq]) + first_token + i // group
        source = carray(pointer_f32(a[0] + token * stride + (head * group + i % group) * dim * 4), (dim,))
        for d in range(dim):
            q[i, d] = source[d]
        for d in range(padded):
            out[i, d] = np.float32(0)
        peak[i] = np.float32(-1e30)
        total[i] = np.float32(0)
    table = carray(pointer_i32(tables + seq * table_width * 4), (table_width,))
    end = start + num_tokens
    begin = max(np.int64(0), start - window + 1) if window > 0 else np.int64(0)
    for b in range(begin // BLOCK, (end + BLOCK - 1) // BLOCK):
        block = np.int64(table[b])
        k_base = a[9] + block * a[10] + head * padded * line
        v_base = a[11] + block * a[12] + head * padded * line
        tile_rows_fresh(dtype, q.ctypes.data, q.strides[0], k_base, dim, scores.ctypes.data, 128, rows)
        for i in range(rows):
            position = start + i // group
            last = min(np.int64(BLOCK), max(np.int64(0), position + 1 - b * BLOCK))
            first = max(np.int64(0), position - window + 1 - b * BLOCK) if window > 0 else np.int64(0)
            if first >= last:
                for t in range(BLOCK):
                    scores[i, t] = np.float32(0)
            else:
                _softmax_block(
                    scores[i], first, last, scale, peak[i : i + 1], total[i : i + 1], out[i], padded
                )
        # positions after the last query hold nothing of this sequence: they must not even be multiplied by zero
        visible = min(np.int64(BLOCK), end - b * BLOCK)
        for j in range(padded // 32):
            tile_rows_accumulate(
                dtype,
                scores.ctypes.data,
                128,
                v_base + j * BLOCK * line,
                visible,
                out.ctypes.data + j * 128,
                out.strides[0],
                rows,
            )
    for i in range(rows):
        token = np.int64(cu[seq]) + first_token + i // group
        target = carray(pointer_f32(a[13] + token * a[17] + (head * group + i % group) * dim * 4), (dim,))
        inverse = np.float32(1) / total[i]
        for d in range(dim):
            target[d] = out[i, d] * inverse


@njit(nogil=True, cache=True)
def attention(a, tid, team):  # type: ignore[no-untyped-def]
    """a: q, q stride, block tables, table width, cu_seqlens_q, seq_lens, group, kv heads, head dim, k cache, k block bytes,
    v cache, v block bytes, out, scale (f32 bits), window, KV dtype, out stride, sequences."""
    group, kv_heads, dim, sequences = a[6], a[7], a[8], a[18]
    padded = (dim + 31) // 32 * 32
    tile = max(1, 24 // group)  # tokens per unit: 24 rows keep q, scores and out in the first-level cache
    cu = carray(pointer_i32(a[4]), (sequences + 1,))
    q = np.empty((tile * group, padded), np.float32)
    out = np.empty((tile * group, padded), np.float32)
    scores = np.empty((tile * group, BLOCK), np.float32)
    peak = np.empty(tile * group, np.float32)
    total = np.empty(tile * group, np.float32)
    unit = 0
    for seq in range(sequences):
        length = np.int64(cu[seq + 1] - cu[seq])
        for first in range(0, length, tile):
            for head in range(kv_heads):
                if unit % team == tid:
                    _attend(a, seq, head, first, min(tile, length - first), q, out, scores, peak, total)
                unit += 1
