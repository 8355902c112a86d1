"""Decode attention: one query token per sequence over a paged KV cache, split evenly over the chip whatever the lengths are.

Work is counted in tiles of one block (16 tokens) of one group (up to eight query heads of one KV head). `decode_plan` lays the tiles of
all sequences and groups end to end, once per step; in every layer block i of the grid then takes tiles [i * per, (i + 1) * per), crossing
sequences where its share does (stream-K, Osama et al. 2023). What covers a whole sequence and group is written at once; of a cut one each
part goes to `partial`, and the block that finds itself the last to arrive combines them (flash-decoding, Dao et al. 2023).

S^T = K Q^T and O^T = V^T P^T with mma.m16n8k16: the KV block is the m16 operand and the heads are n8, so that no tensor-core row is
padding for groups of eight and a group of one costs no more bytes. Each warp owns a ring of `stages` tiles and meets the others only at
the end of a segment. On sm_90 lane 0 moves a tile with two bulk copies; before, every lane copies 16-byte chunks (cp.async).

Bytes: every K and V byte of the live tokens once, 8 KiB a tile at head_dim 128. Counted at 4.8 TB/s on 132 multiprocessors of an H200:
446 clocks a tile and multiprocessor against 273 instructions over four schedulers, 68 issue slots: bound by memory. In flight are
2 blocks x 4 warps x 2 tiles x 8 KiB = 128 KiB a multiprocessor, against about 36 KiB that latency needs.
"""

from __future__ import annotations

from typing import Any

from vsrv.kernels.cuda.layout import BLOCK, page_values
from vsrv.kernels.cuda.source import KernelSource

MAX_BLOCKS = 1024  # of the grid
PLAN_SEQUENCES = 2  # plan[2 + i]: the sequence in which block i begins
PLAN_STARTS = (
    PLAN_SEQUENCES + MAX_BLOCKS
)  # plan[PLAN_STARTS + b]: first tile of sequence b, for b = 0 … batch
LOWEST = -1.0e30  # a score that weighs nothing; finite, so that differences stay numbers


def groups_of(num_kv_heads: int, group: int) -> int:
    """Groups of at most eight query heads: `group` query heads share a KV head."""
    return num_kv_heads * ((group + 7) // 8)


def plan_size(max_seqs: int) -> int:
    """int32 words of a plan."""
    return PLAN_STARTS + max_seqs + 1


def shared_size(padded: int, stages: int, warps: int) -> int:
    """Shared bytes of a block: a ring of K and V tiles and a barrier for each of its slots, and one flag."""
    return warps * stages * (4 * page_values(padded) + 8) + 16


def make_decode_plan(ops: Any, *, threads: int = 1024) -> KernelSource:
    """lens i32 [B], plan i32 [plan_size], batch, grid blocks, groups, window, least tiles for a block. One block of `threads`.

    plan[0] = tiles for each block, plan[1] = all tiles. Length 0 (padding of a captured graph) has no tiles. About 3 µs, once per
    step and window size. Shared: 260 bytes.
    """
    cuda, u32, i32 = ops.cuda, ops.u32, ops.i32
    add, sub, up = ops.add_u32, ops.sub_u32, ops.shuffle_up_u32
    load, store = ops.shared_u32, ops.store_shared_u32
    u8 = ops.u8
    warps = threads // 32
    sequences, starts = PLAN_SEQUENCES, PLAN_STARTS

    def decode_plan(lens, plan, batch, blocks, groups, window, least):  # type: ignore[no-untyped-def]
        shared = cuda.shared.array(0, u8)
        thread = cuda.threadIdx.x
        lane = thread & 31
        warp = thread >> 5
        carry = u32(0)
        base = i32(0)
        while base < batch:
            sequence = base + thread
            tiles = u32(0)
            if sequence < batch:
                length = lens[sequence]
                first = (length - window) >> 4 if 0 < window < length else 0
                tiles = u32((((length + 15) >> 4) - first) * groups)
            inclusive = tiles
            for distance in (1, 2, 4, 8, 16):
                before = up(inclusive, distance)
                if lane >= distance:
                    inclusive = add(inclusive, before)
            if lane == 31:
                store(shared, warp * 4, inclusive)
            cuda.syncthreads()
            if warp == 0:
                own = load(shared, lane * 4) if lane < warps else u32(0)
                scanned = own
                for distance in (1, 2, 4, 8, 16):
                    before = up(scanned, distance)
                    if lane >= distance:
                        scanned = add(scanned, before)
                store(shared, 128 + lane * 4, sub(scanned, own))
                if lane == 31:
                    store(shared, 256, scanned)
            cuda.syncthreads()
            if sequence < batch:
                plan[starts + sequence] = i32(
                    add(carry, add(load(shared, 128 + warp * 4), sub(inclusive, tiles)))
                )
            carry = add(carry, load(shared, 256))
            cuda.syncthreads()
            base = i32(base + threads)
        total = i32(carry)
        per = max(i32(u32(total + blocks - 1) // u32(blocks)), least)
        if thread == 0:
            plan[0] = per
            plan[1] = total
            plan[starts + batch] = total
        cuda.syncthreads()
        block = i32(thread)
        while block < blocks:
            position = i32(block * per)
            if position < total:
                low = i32(0)
                high = batch
                while high - low > 1:
                    middle = i32((low + high) >> 1)
                    if plan[starts + middle] <= position:
                        low = middle
                    else:
                        high = middle
                plan[sequences + block] = low
            block = i32(block + threads)

    arguments = ("*i32", "*i32", "i32", "i32", "i32", "i32", "i32")
    return KernelSource("decode_plan", decode_plan, arguments, threads, 260, (threads,))


def make_decode_attention(
    ops: Any, *, dtype: str, padded: int, bulk: bool, stages: int, warps: int, resident: int = 1
) -> KernelSource:
    """qkv u16 [T, (Hq + 2 Hkv) * D] (row b = sequence b), k and v cache, tables i32 [B, stride], lens i32 [B], plan, partial
    f32 [2 * blocks, 8, padded], lse f32 [2 * blocks, 8] (base 2), arrived u32 [B * groups] zeroed, out u16 [T, Hq * D], table stride,
    Hkv, query heads of a KV head, D, scale * log2(e), window. Grid: as many blocks as the plan was made for.
    `padded` is head_dim up to a multiple of 64: shapes are arguments, since they are needed once a segment. `resident` blocks should
    share a multiprocessor: registers are kept to that.

    Tolerance against the reference: 2e-2 of the largest value (P is rounded to 16 bits, sums are fp32).
    """
    cuda, u32, i32, i64, f32, device, u8 = ops.cuda, ops.u32, ops.i32, ops.i64, ops.f32, ops.device, ops.u8
    half = ops.half(dtype)
    pack, mma = half.pack, half.mma
    exp2, log2, reciprocal, xor = ops.exp2, ops.log2, ops.reciprocal, ops.shuffle_xor_f32
    ldmatrix, ldmatrix_transposed, transpose = ops.ldmatrix, ops.ldmatrix_transposed, ops.transpose_8x8
    load_4, store_4, load_l2 = ops.load_4, ops.store_4, ops.load_f32_l2
    shared_f32, store_shared_f32 = ops.shared_f32, ops.store_shared_f32
    shared_u32, store_shared_u32, store_shared_16 = ops.shared_u32, ops.store_shared_u32, ops.store_shared_16
    barrier_init, barrier_expect, barrier_wait = ops.barrier_init, ops.barrier_expect, ops.barrier_wait
    barrier_fence, fence_async_proxy, fence_global = (
        ops.barrier_fence,
        ops.fence_async_proxy,
        ops.fence_global,
    )
    bulk_copy, copy_16, copy_commit, sync_warp = ops.bulk_copy, ops.copy_16, ops.copy_commit, ops.sync_warp
    copy_wait = {2: ops.copy_wait_1, 3: ops.copy_wait_2, 4: ops.copy_wait_3}[stages]
    global_add = ops.global_add

    page = page_values(padded)
    tile_bytes = page * 2
    stage_bytes = 2 * tile_bytes
    k_steps = padded // 16  # of Q K^T; also the m16 tiles of V^T P^T
    query_words, sum_words = 2 * k_steps, 4 * k_steps
    chunks = page // 8 // 32  # 16-byte chunks of a tile for each lane
    all_chunks = page // 8
    half_bytes = BLOCK * 128
    ring = warps * stages * stage_bytes
    barriers, flag = ring, ring + warps * stages * 8
    shared_bytes = shared_size(padded, stages, warps)
    row = (
        padded + 4
    ) * 4  # bytes of one head's sums in the scratch that overlays the ring; 4 more floats spread the banks
    scratch_stats = warps * 8 * row
    threads = warps * 32
    pairs = padded // 2
    sequences, starts = PLAN_SEQUENCES, PLAN_STARTS
    lowest = f32(LOWEST)
    assert scratch_stats + warps * 64 <= ring

    @device
    def fetch(shared, slot, barrier, k, v, page_index, valid, lane):  # type: ignore[no-untyped-def]
        """Start moving one tile of K and V into the ring."""
        source = page_index * page
        if bulk:
            if lane == 0:
                barrier_expect(shared, barrier, stage_bytes)
                bulk_copy(shared, slot, k, source, tile_bytes, barrier)
                bulk_copy(shared, slot + tile_bytes, v, source, tile_bytes, barrier)
        else:
            for i in range(chunks):
                chunk = lane + i * 32
                count = 16 if ((chunk >> 3) & 15) < valid else 0
                copy_16(shared, slot + chunk * 16, k, source + chunk * 8, count)
                copy_16(shared, slot + tile_bytes + chunk * 16, v, source + chunk * 8, count)

    @device
    def clear_tail(shared, slot, valid, lane):  # type: ignore[no-untyped-def]
        """Zero V of tokens that are not there: what an earlier owner left may be infinite, and 0 * inf is NaN."""
        zero = (u32(0), u32(0), u32(0), u32(0))
        chunk = lane
        while chunk < all_chunks:
            if ((chunk >> 3) & 15) >= valid:
                store_shared_16(shared, slot + tile_bytes + chunk * 16, zero)
            chunk += 32
        fence_async_proxy()
        sync_warp()

    @device
    def load_query(query, qkv, at, head_dim, heads, lane):  # type: ignore[no-untyped-def]
        """Q^T of the heads at value `at` as B fragments: dims 2p, 2p + 1 and 2p + 8, 2p + 9 of every 16, head lane // 4."""
        mine = lane >> 2
        pair = (lane & 3) * 2
        at += mine * head_dim
        for j in range(k_steps):
            query[2 * j] = u32(0)
            query[2 * j + 1] = u32(0)
            if mine < heads:
                if j * 16 + pair < head_dim:
                    query[2 * j] = load_4(qkv, at + j * 16 + pair)
                if j * 16 + pair + 8 < head_dim:
                    query[2 * j + 1] = load_4(qkv, at + j * 16 + pair + 8)

    @device
    def attend(shared, slot, query, sums, stats, skipped, valid, scale, lane):  # type: ignore[no-untyped-def]
        """One tile: scores, online softmax (Milakov & Gimelshein 2018) in base 2, weighted sum. stats: two maxima, two sums."""
        scores = cuda.local.array(4, f32)
        for i in range(4):
            scores[i] = f32(0)
        token = lane & 15
        part = lane >> 4
        for j in range(k_steps):
            a = ldmatrix(
                shared,
                slot + (j >> 2) * half_bytes + token * 128 + (((2 * (j & 3) + part) ^ (token & 7)) * 16),
            )
            mma(scores, 0, a, query[2 * j], query[2 * j + 1])
        first = lane >> 2
        s0 = scores[0] * scale
        s1 = scores[1] * scale
        s2 = scores[2] * scale
        s3 = scores[3] * scale
        if first >= valid or first < skipped:
            s0 = lowest
            s1 = lowest
        if first + 8 >= valid or first + 8 < skipped:
            s2 = lowest
            s3 = lowest
        top0 = max(s0, s2)
        top1 = max(s1, s3)
        for mask in (4, 8, 16):
            top0 = max(top0, xor(top0, mask))
            top1 = max(top1, xor(top1, mask))
        top0 = max(top0, stats[0])
        top1 = max(top1, stats[1])
        fade0 = exp2(stats[0] - top0)
        fade1 = exp2(stats[1] - top1)
        p0 = exp2(s0 - top0)
        p1 = exp2(s1 - top1)
        p2 = exp2(s2 - top0)
        p3 = exp2(s3 - top1)
        stats[0] = top0
        stats[1] = top1
        stats[2] = stats[2] * fade0 + p0 + p2
        stats[3] = stats[3] * fade1 + p1 + p3
        for j in range(k_steps):
            sums[4 * j] *= fade0
            sums[4 * j + 1] *= fade1
            sums[4 * j + 2] *= fade0
            sums[4 * j + 3] *= fade1
        b0 = transpose(pack(p0, p1))  # P^T as a B fragment: token along k, head along n
        b1 = transpose(pack(p2, p3))
        token = (lane & 7) + (lane >> 4) * 8
        part = (lane >> 3) & 1
        values = slot + tile_bytes
        for j in range(k_steps):
            a = ldmatrix_transposed(
                shared,
                values + (j >> 2) * half_bytes + token * 128 + (((2 * (j & 3) + part) ^ (token & 7)) * 16),
            )
            mma(sums, 4 * j, a, b0, b1)

    @device
    def spill(shared, sums, stats, warp, lane):  # type: ignore[no-untyped-def]
        """This warp's sums and statistics to the scratch."""
        for mask in (4, 8, 16):
            stats[2] += xor(stats[2], mask)
            stats[3] += xor(stats[3], mask)
        first = lane >> 2
        pair = (lane & 3) * 2
        if first == 0:
            at = scratch_stats + (warp * 16 + pair) * 4
            store_shared_f32(shared, at, stats[0])
            store_shared_f32(shared, at + 4, stats[1])
            store_shared_f32(shared, at + 32, stats[2])
            store_shared_f32(shared, at + 36, stats[3])
        for j in range(k_steps):
            at = (warp * 8 + pair) * row + (j * 16 + first) * 4
            store_shared_f32(shared, at, sums[4 * j])
            store_shared_f32(shared, at + row, sums[4 * j + 1])
            store_shared_f32(shared, at + 32, sums[4 * j + 2])
            store_shared_f32(shared, at + row + 32, sums[4 * j + 3])

    @device
    def write(shared, partial, lse, out, target, slot, heads, head_dim, whole, thread):  # type: ignore[no-untyped-def]
        """The warps' sums as one, to `out` (at value `target`) or to slot `slot` of `partial`."""
        item = thread
        while item < heads * pairs:
            head = item // pairs
            dim = (item % pairs) * 2
            top = lowest
            for w in range(warps):
                top = max(top, shared_f32(shared, scratch_stats + (w * 16 + head) * 4))
            total = f32(0)
            first = f32(0)
            second = f32(0)
            for w in range(warps):
                weight = exp2(shared_f32(shared, scratch_stats + (w * 16 + head) * 4) - top)
                total += weight * shared_f32(shared, scratch_stats + (w * 16 + 8 + head) * 4)
                at = (w * 8 + head) * row + dim * 4
                first += weight * shared_f32(shared, at)
                second += weight * shared_f32(shared, at + 4)
            scale = reciprocal(total)
            if whole:
                if dim < head_dim:
                    store_4(out, target + head * head_dim + dim, pack(first * scale, second * scale))
            else:
                partial[i64(slot * 8 + head) * padded + dim] = first * scale
                partial[i64(slot * 8 + head) * padded + dim + 1] = second * scale
                if dim == 0:
                    lse[slot * 8 + head] = top + log2(total)
            item += threads

    @device
    def combine(partial, lse, out, target, first_slot, first_block, last_block, heads, head_dim, thread):  # type: ignore[no-untyped-def]
        """All parts of one sequence and group: block `first_block` left its in `first_slot`, the others in their slot 0."""
        item = thread
        while item < heads * pairs:
            head = item // pairs
            dim = (item % pairs) * 2
            top = lowest
            for block in range(first_block, last_block + 1):
                slot = first_slot if block == first_block else 2 * block
                top = max(top, load_l2(lse, slot * 8 + head))
            total = f32(0)
            first = f32(0)
            second = f32(0)
            for block in range(first_block, last_block + 1):
                slot = first_slot if block == first_block else 2 * block
                weight = exp2(load_l2(lse, slot * 8 + head) - top)
                at = i64(slot * 8 + head) * padded + dim
                total += weight
                first += weight * load_l2(partial, at)
                second += weight * load_l2(partial, at + 1)
            scale = reciprocal(total)
            if dim < head_dim:
                store_4(out, target + head * head_dim + dim, pack(first * scale, second * scale))
            item += threads

    def decode_attention(  # type: ignore[no-untyped-def]
        qkv, k, v, tables, lens, plan, partial, lse, arrived, out,
        table_stride, num_kv_heads, group, head_dim, scale, window
    ):  # fmt: skip
        shared = cuda.shared.array(0, u8)
        block = i32(cuda.blockIdx.x)
        thread = cuda.threadIdx.x
        lane = thread & 31
        warp = thread >> 5
        per = plan[0]
        position = i32(block * per)
        end = min(i32(position + per), plan[1])
        if position >= end:
            return
        query = cuda.local.array(query_words, u32)
        sums = cuda.local.array(sum_words, f32)
        stats = cuda.local.array(4, f32)
        slots = warp * stages * stage_bytes
        bells = barriers + warp * stages * 8
        if bulk:
            if lane == 0:
                for s in range(stages):
                    barrier_init(shared, bells + s * 8, 1)
                barrier_fence()
            sync_warp()
        sequence = plan[sequences + block]
        own_slot = i32(
            2 * block
        )  # the first segment of this block leaves its part here, a later one in the next
        stage = i32(0)
        parity = i32(0)
        subgroups = i32((group + 7) >> 3)
        groups = i32(num_kv_heads * subgroups)
        while position < end:
            start = plan[starts + sequence]
            after = plan[starts + sequence + 1]
            if position >= after:
                sequence = i32(sequence + 1)
            else:
                tiles = i32(u32(after - start) // u32(groups))
                index = i32(u32(position - start) // u32(tiles))
                tile = i32(position - start - index * tiles)
                stop = min(tiles, i32(tile + end - position))
                length = lens[sequence]
                skip = i32(length - window) if 0 < window < length else i32(0)
                base = i32(skip >> 4)
                kv_head = i32(u32(index) // u32(subgroups))
                first_head = i32((index - kv_head * subgroups) * 8)
                heads = min(i32(8), i32(group - first_head))
                head = i64(kv_head * group + first_head) * head_dim
                load_query(
                    query,
                    qkv,
                    i64(sequence) * (num_kv_heads * (group + 2) * head_dim) + head,
                    head_dim,
                    heads,
                    lane,
                )
                for j in range(sum_words):
                    sums[j] = f32(0)
                stats[0] = lowest
                stats[1] = lowest
                stats[2] = f32(0)
                stats[3] = f32(0)
                at = tile + warp
                for s in range(stages - 1):
                    ahead = at + s * warps
                    slot = stage + s
                    if slot >= stages:
                        slot -= stages
                    if ahead < stop:
                        where = i32(base + ahead)
                        fetch(
                            shared, slots + slot * stage_bytes, bells + slot * 8, k, v,
                            i64(tables[i64(sequence) * table_stride + where]) * num_kv_heads + kv_head, length - where * 16, lane,
                        )  # fmt: skip
                    if not bulk:
                        copy_commit()
                while at < stop:
                    ahead = at + (stages - 1) * warps
                    slot = stage + stages - 1
                    if slot >= stages:
                        slot -= stages
                    if ahead < stop:
                        where = i32(base + ahead)
                        fetch(
                            shared, slots + slot * stage_bytes, bells + slot * 8, k, v,
                            i64(tables[i64(sequence) * table_stride + where]) * num_kv_heads + kv_head, length - where * 16, lane,
                        )  # fmt: skip
                    valid = length - (base + at) * 16
                    here = slots + stage * stage_bytes
                    if bulk:
                        barrier_wait(shared, bells + stage * 8, parity)
                        if valid < 16:
                            clear_tail(shared, here, valid, lane)
                    else:
                        copy_commit()
                        copy_wait()
                        sync_warp()
                    attend(shared, here, query, sums, stats, skip - (base + at) * 16, valid, scale, lane)
                    sync_warp()  # the slot may be refilled
                    stage = i32(stage + 1)
                    if stage == stages:
                        stage = i32(0)
                        parity = i32(parity ^ 1)
                    at += warps
                cuda.syncthreads()
                spill(shared, sums, stats, warp, lane)
                cuda.syncthreads()
                whole = tile == 0 and stop == tiles
                target = i64(sequence) * (num_kv_heads * group * head_dim) + head
                write(shared, partial, lse, out, target, own_slot, heads, head_dim, whole, thread)
                if not whole:
                    fence_global()
                    cuda.syncthreads()
                    begin = i32(start + index * tiles)
                    first_block = i32(u32(begin) // u32(per))
                    last_block = i32(u32(begin + tiles - 1) // u32(per))
                    if thread == 0:
                        counter = i64(sequence) * groups + index
                        before = global_add(arrived, counter, u32(1))
                        store_shared_u32(shared, flag, before)
                        if before == u32(last_block - first_block):
                            arrived[counter] = u32(0)
                    cuda.syncthreads()
                    if shared_u32(shared, flag) == u32(last_block - first_block):
                        fence_global()
                        first_slot = i32(2 * first_block + (0 if begin == first_block * per else 1))
                        combine(
                            partial,
                            lse,
                            out,
                            target,
                            first_slot,
                            first_block,
                            last_block,
                            heads,
                            head_dim,
                            thread,
                        )
                if bulk:
                    fence_async_proxy()
                cuda.syncthreads()
                position = i32(position + stop - tile)
                own_slot = i32(2 * block + 1)

    pointers = ("*u16", "*u16", "*u16", "*i32", "*i32", "*i32", "*f32", "*f32", "*u32", "*u16")
    return KernelSource(
        "decode_attention",
        decode_attention,
        (*pointers, "i32", "i32", "i32", "i32", "f32", "i32"),
        threads,
        shared_bytes,
        (dtype, padded, bulk, stages, warps, resident),
        resident,
    )
