"""Prefill and extend attention: many query tokens of a sequence over its paged history, causal, with or without a cached prefix.

One block computes 16 * warps rows of one KV head; a row is (token, query head of the group), so that a short query still fills the
m16 of mma.m16n8k16 and K and V are read once for all heads that share them (GQA packing). K and V come in tiles through a double buffer
of cp.async copies; scores, softmax and sums stay in registers (FlashAttention-2, Dao 2023). The host lists the (sequence, row block)
pairs, longest first, so that ragged batches cost no empty blocks.

Counted for head_dim 128, 8 warps, 64 tokens a tile: 1012 instructions for 128 mma a tile and warp, about 60 % of wgmma's rate on Hopper;
expected 250 to 350 TFLOP/s of 990. A wgmma version reads the same cache layout.
"""

from __future__ import annotations

from typing import Any

from vsrv.kernels.cuda.decode import LOWEST
from vsrv.kernels.cuda.layout import BLOCK, halves, page_values
from vsrv.kernels.cuda.source import KernelSource


def rows_of(warps: int) -> int:
    """Rows (token, head) of one block."""
    return 16 * warps


def make_prefill_attention(ops: Any, *, dtype: str, padded: int, warps: int, tile: int) -> KernelSource:
    """qkv u16 [T, (Hq + 2 Hkv) * D], k and v cache, tables i32 [S, stride], cu_seqlens i32 [S + 1], lens i32 [S],
    work i32 [W, 2] (sequence, row block), out u16 [T, Hq * D], table stride, query heads of a KV head, D, scale * log2(e), window.
    Grid (W, Hkv). `padded` is head_dim up to a multiple of 64.

    Tolerance against the reference: 2e-2 (P is rounded to 16 bits, sums are fp32).
    """
    cuda, u32, i32, i64, f32, device, u8 = ops.cuda, ops.u32, ops.i32, ops.i64, ops.f32, ops.device, ops.u8
    half = ops.half(dtype)
    pack, mma = half.pack, half.mma
    exp2, reciprocal, fma, xor = ops.exp2, ops.reciprocal, ops.fma, ops.shuffle_xor_f32
    ldmatrix, ldmatrix_transposed, store_4 = ops.ldmatrix, ops.ldmatrix_transposed, ops.store_4
    copy_16, copy_commit, copy_wait_0, copy_wait_1 = (
        ops.copy_16,
        ops.copy_commit,
        ops.copy_wait_0,
        ops.copy_wait_1,
    )

    parts = halves(padded)
    page = page_values(padded)
    page_bytes = page * 2
    rows = rows_of(warps)
    threads = 32 * warps
    query_bytes = rows * padded * 2
    tile_bytes = tile * padded * 2
    shared_bytes = query_bytes + 4 * tile_bytes
    k_steps, n_steps, d_steps = padded // 16, tile // 16, padded // 16
    num_scores, num_sums = tile // 8 * 4, padded // 8 * 4
    query_chunks = rows * parts * 8
    tile_chunks = tile // BLOCK * parts * 128
    lowest = f32(LOWEST)

    @device
    def load_query(shared, qkv, at, query_row, head_dim, group, row0, num_rows, thread):  # type: ignore[no-untyped-def]
        chunk = thread
        while chunk < query_chunks:
            row = chunk // (parts * 8)
            part = chunk % (parts * 8)
            there = row0 + row < num_rows and part * 8 < head_dim
            token = i32(u32(row0 + row) // u32(group))
            head = row0 + row - token * group
            source = at + i64(token) * query_row + head * head_dim + part * 8
            target = (part >> 3) * rows * 128 + row * 128 + (((part & 7) ^ (row & 7)) * 16)
            copy_16(shared, target, qkv, source if there else i64(0), 16 if there else 0)
            chunk += threads

    @device
    def load_tile(shared, at, cache, tables, table, num_kv_heads, kv_head, token0, length, thread):  # type: ignore[no-untyped-def]
        """Blocks of tokens token0 … as they lie in the cache; tokens beyond the sequence become zeros."""
        chunk = thread
        while chunk < tile_chunks:
            inside = chunk % (parts * 128)
            first = token0 + chunk // (parts * 128) * BLOCK
            there = first + ((inside >> 3) & 15) < length
            block = tables[table + (first >> 4)] if first < length else i32(0)
            source = (i64(block) * num_kv_heads + kv_head) * page + inside * 8
            copy_16(shared, at + chunk * 16, cache, source, 16 if there else 0)
            chunk += threads

    @device
    def score(shared, scores, keys, warp_row, lane):  # type: ignore[no-untyped-def]
        """scores [16, tile] = Q K^T of this warp's rows."""
        for i in range(num_scores):
            scores[i] = f32(0)
        row = lane & 15
        part = lane >> 4
        token = (lane & 7) + (lane >> 4) * 8
        chunk = (lane >> 3) & 1
        for j in range(k_steps):
            a = ldmatrix(
                shared,
                (j >> 2) * rows * 128 + (warp_row + row) * 128 + (((2 * (j & 3) + part) ^ (row & 7)) * 16),
            )
            for n in range(n_steps):
                b = ldmatrix(
                    shared,
                    keys
                    + n * page_bytes
                    + (j >> 2) * 2048
                    + token * 128
                    + (((2 * (j & 3) + chunk) ^ (token & 7)) * 16),
                )
                mma(scores, n * 8, a, b[0], b[1])
                mma(scores, n * 8 + 4, a, b[2], b[3])

    @device
    def soften(scores, sums, tops, totals, scale):  # type: ignore[no-untyped-def]
        """Online softmax (Milakov & Gimelshein 2018): scores become weights, sums and totals fade to the new maximum."""
        top0 = tops[0]
        top1 = tops[1]
        for n in range(tile // 8):
            top0 = max(top0, max(scores[n * 4], scores[n * 4 + 1]))
            top1 = max(top1, max(scores[n * 4 + 2], scores[n * 4 + 3]))
        for mask in (1, 2):
            top0 = max(top0, xor(top0, mask))
            top1 = max(top1, xor(top1, mask))
        fade0 = exp2((tops[0] - top0) * scale)
        fade1 = exp2((tops[1] - top1) * scale)
        # A row that a window has masked so far: its weights must be exp2(-huge) = 0, not exp2 of a rounding error of huge numbers.
        shift0 = top0 * scale if top0 > lowest else f32(0)
        shift1 = top1 * scale if top1 > lowest else f32(0)
        tops[0] = top0
        tops[1] = top1
        total0 = totals[0] * fade0
        total1 = totals[1] * fade1
        for n in range(tile // 8):
            i = n * 4
            scores[i] = exp2(fma(scores[i], scale, -shift0))
            scores[i + 1] = exp2(fma(scores[i + 1], scale, -shift0))
            scores[i + 2] = exp2(fma(scores[i + 2], scale, -shift1))
            scores[i + 3] = exp2(fma(scores[i + 3], scale, -shift1))
            total0 += scores[i] + scores[i + 1]
            total1 += scores[i + 2] + scores[i + 3]
        totals[0] = total0
        totals[1] = total1
        for n in range(padded // 8):
            i = n * 4
            sums[i] *= fade0
            sums[i + 1] *= fade0
            sums[i + 2] *= fade1
            sums[i + 3] *= fade1

    @device
    def weigh(shared, scores, sums, values, lane):  # type: ignore[no-untyped-def]
        """sums [16, D] += weights V."""
        token = lane & 15
        part = lane >> 4
        for n in range(n_steps):
            i = n * 8
            a = (
                pack(scores[i], scores[i + 1]),
                pack(scores[i + 2], scores[i + 3]),
                pack(scores[i + 4], scores[i + 5]),
                pack(scores[i + 6], scores[i + 7]),
            )
            for d in range(d_steps):
                b = ldmatrix_transposed(
                    shared,
                    values
                    + n * page_bytes
                    + (d >> 2) * 2048
                    + token * 128
                    + (((2 * (d & 3) + part) ^ (token & 7)) * 16),
                )
                mma(sums, d * 8, a, b[0], b[1])
                mma(sums, d * 8 + 4, a, b[2], b[3])

    @device
    def write(out, sums, totals, side, target, head_dim, there, lane):  # type: ignore[no-untyped-def]
        """Row `side` (0 or 1) of this lane's two to value `target`."""
        total = totals[side]
        total += xor(total, 1)
        total += xor(total, 2)
        scale = reciprocal(total)
        if there:
            for n in range(padded // 8):
                dim = n * 8 + (lane & 3) * 2
                if dim < head_dim:
                    i = n * 4 + side * 2
                    store_4(out, target + dim, pack(sums[i] * scale, sums[i + 1] * scale))

    def prefill_attention(  # type: ignore[no-untyped-def]
        qkv, k, v, tables, cu_seqlens, lens, work, out, table_stride, group, head_dim, scale, window
    ):
        shared = cuda.shared.array(0, u8)
        thread = cuda.threadIdx.x
        lane = thread & 31
        warp_row = (thread >> 5) * 16
        num_kv_heads = i32(cuda.gridDim.y)
        kv_head = i32(cuda.blockIdx.y)
        sequence = work[2 * cuda.blockIdx.x]
        row0 = i32(work[2 * cuda.blockIdx.x + 1] * rows)
        first_token = cu_seqlens[sequence]
        tokens = i32(cu_seqlens[sequence + 1] - first_token)
        num_rows = i32(tokens * group)
        length = lens[sequence]
        offset = i32(length - tokens)  # position of the first query token
        heads = u32(group)
        last_row = min(i32(row0 + rows), num_rows) - 1
        stop = i32(offset + i32(u32(last_row) // heads) + 1)  # tokens that the last row sees
        begin = i32(0)
        if window > 0:
            begin = max(i32(0), i32(offset + i32(u32(row0) // heads) - window + 1)) // tile * tile
        my_row = i32(row0 + warp_row + (lane >> 2))  # this lane's rows are my_row and my_row + 8
        my_token = i32(u32(my_row) // heads)
        my_other = i32(u32(my_row + 8) // heads)
        first_at = i32(offset + i32(u32(row0 + warp_row) // heads))  # positions that this warp's rows ask for
        last_at = i32(offset + i32(u32(row0 + warp_row + 15) // heads))
        table = i64(sequence) * table_stride
        query_row = i32(num_kv_heads * (group + 2) * head_dim)
        at = i64(first_token) * query_row + kv_head * group * head_dim
        load_query(shared, qkv, at, query_row, head_dim, group, row0, num_rows, thread)
        load_tile(shared, query_bytes, k, tables, table, num_kv_heads, kv_head, begin, length, thread)
        load_tile(
            shared, query_bytes + tile_bytes, v, tables, table, num_kv_heads, kv_head, begin, length, thread
        )
        copy_commit()
        scores = cuda.local.array(num_scores, f32)
        sums = cuda.local.array(num_sums, f32)
        tops = cuda.local.array(2, f32)
        totals = cuda.local.array(2, f32)
        for i in range(num_sums):
            sums[i] = f32(0)
        for i in range(2):
            tops[i] = lowest
            totals[i] = f32(0)
        token0 = begin
        side = i32(0)
        while token0 < stop:
            here = query_bytes + side * 2 * tile_bytes
            following = i32(token0 + tile)
            if following < stop:
                there = query_bytes + (1 - side) * 2 * tile_bytes
                load_tile(shared, there, k, tables, table, num_kv_heads, kv_head, following, length, thread)
                load_tile(
                    shared,
                    there + tile_bytes,
                    v,
                    tables,
                    table,
                    num_kv_heads,
                    kv_head,
                    following,
                    length,
                    thread,
                )
                copy_commit()
                copy_wait_1()
            else:
                copy_wait_0()
            cuda.syncthreads()
            if token0 <= last_at:
                unseen = window > 0 and token0 + window <= last_at
                score(shared, scores, here, warp_row, lane)
                if token0 + tile > first_at or token0 + tile > length or unseen:
                    for e in range(num_scores):
                        position = token0 + (e >> 2) * 8 + (lane & 3) * 2 + (e & 1)
                        asked = offset + (my_other if (e & 2) != 0 else my_token)
                        if (
                            position > asked
                            or position >= length
                            or (window > 0 and position + window <= asked)
                        ):
                            scores[e] = lowest
                soften(scores, sums, tops, totals, scale)
                weigh(shared, scores, sums, here + tile_bytes, lane)
            cuda.syncthreads()  # the buffer may be refilled
            token0 = following
            side = i32(1 - side)
        out_row = i32(num_kv_heads * group * head_dim)
        target = (
            i64(first_token + my_token) * out_row + (kv_head * group + my_row - my_token * group) * head_dim
        )
        write(out, sums, totals, 0, target, head_dim, my_row < num_rows, lane)
        target = (
            i64(first_token + my_other) * out_row
            + (kv_head * group + my_row + 8 - my_other * group) * head_dim
        )
        write(out, sums, totals, 1, target, head_dim, my_row + 8 < num_rows, lane)

    pointers = ("*u16", "*u16", "*u16", "*i32", "*i32", "*i32", "*i32", "*u16")
    kinds = (*pointers, "i32", "i32", "i32", "f32", "i32")
    parameters = (dtype, padded, warps, tile)
    return KernelSource("prefill_attention", prefill_attention, kinds, threads, shared_bytes, parameters)
