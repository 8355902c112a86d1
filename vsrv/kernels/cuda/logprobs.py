"""The kernel of log-probabilities: raw log_softmax of the chosen token and of the k best, and the rank of the chosen one.

Three passes over a row (largest, mass and candidates, rank) of one block: for 152k tokens on an H200 about 3 x 8 us + 6 us of exp.
"""

from __future__ import annotations

from typing import Any

from vsrv.kernels.cuda.selection import LN2, LOG2E, NEGATIVE, NO_BIN, Layout, make_quad, make_selection
from vsrv.kernels.cuda.source import KernelSource


def make_logprobs(ops: Any, threads: int, digit_bits: int, capacity: int) -> KernelSource:
    """As reference.logprobs; equal logits among the k best come by rising id.

    logits f32 [R, V] (row stride `stride`) · chosen i32 [R] · out_ids i32, out_values f32 [R, out_stride], columns 0 … k written, k <= V ·
    out_ranks i32 [R]. A chosen id outside the vocabulary skips the row. Grid (R). Shared: Layout.total. capacity >= k, threads.
    """
    cuda, f32, u32, i64, u64, u8 = ops.cuda, ops.f32, ops.u32, ops.i64, ops.u64, ops.u8
    f32_of_bits, log2, shared_f32, shared_u32 = ops.f32_of_bits, ops.log2, ops.shared_f32, ops.shared_u32
    store_shared_f32, load_quad = ops.store_shared_f32, make_quad(ops)
    layout = Layout(threads, digit_bits, capacity)
    tools = make_selection(ops, layout)
    largest, block_max, block_sum = tools.rows.largest, tools.rows.block_max, tools.rows.block_sum
    begin, collect, gathered, refine, select_row = (
        tools.begin,
        tools.collect,
        tools.gathered,
        tools.refine,
        tools.select_row,
    )
    THREADS, CAPACITY, CANDIDATES, TOKENS = threads, capacity, layout.candidates, layout.tokens
    LOWEST, TO_LOG2, TO_LN, MINUS_INFINITY = NEGATIVE, LOG2E, LN2, 0xFF800000
    FAR, NONE = 3.4e38, NO_BIN

    @ops.device
    def count(shared, source, base, end, x, equal, limit, thread):  # type: ignore[no-untyped-def]
        """How many floats are above x, or equal x at a token below `limit`."""
        total = u64(0)
        i = thread * 4
        while i < end:
            words = load_quad(source, base, i, end)
            for e in range(4):
                own = max(f32_of_bits(words[e]), f32(LOWEST))
                if i + e < end and (own == x and i + e < limit if equal else own > x):
                    total = u64(total + u64(1))
            i += THREADS * 4
        return block_sum(shared, total, thread)

    @ops.device
    def gather_exactly(shared, source, base, end, k, top, thread):  # type: ignore[no-untyped-def]
        """More tokens than fit reach the first bound: find the k-th largest logit and, among its ties, where to stop by halving."""
        bound = select_row(shared, source, base, end, f32(LOWEST), u64(k), False, top, f32(TO_LOG2), thread)
        missing = u64(u64(k) - count(shared, source, base, end, bound, False, 0, thread))
        low, high = i64(0), i64(end)  # below `low` there are too few ties, below `high` enough
        while high - low > 1:
            middle = (low + high) >> 1
            if count(shared, source, base, end, bound, True, middle, thread) >= missing:
                high = middle
            else:
                low = middle
        begin(shared, thread)
        collect(shared, source, base, end, bound, high, False, bound, top, f32(TO_LOG2), thread)

    @ops.device
    def logprob(x, norm):  # type: ignore[no-untyped-def]
        return f32_of_bits(u32(MINUS_INFINITY)) if x <= f32(LOWEST) else x - norm

    @ops.device
    def write_best(shared, n, k, norm, out_ids, out_values, at, thread):  # type: ignore[no-untyped-def]
        """A candidate's place is the number of candidates before it."""
        i = thread
        while i < n:
            x, token = shared_f32(shared, CANDIDATES + i * 4), shared_u32(shared, TOKENS + i * 4)
            place, j = i64(0), i64(0)
            while j < n:
                other = shared_f32(shared, CANDIDATES + j * 4)
                if other > x or (other == x and shared_u32(shared, TOKENS + j * 4) < token):
                    place += 1
                j += 1
            if place < k:
                out_ids[at + 1 + place] = i64(token)
                out_values[at + 1 + place] = logprob(x, norm)
            i += THREADS

    def logprobs(logits, stride, vocabulary, chosen, k, out_ids, out_values, out_stride, out_ranks):  # type: ignore[no-untyped-def]
        shared = cuda.shared.array(0, u8)
        row, thread, end = i64(cuda.blockIdx.x), cuda.threadIdx.x, vocabulary
        base, at, token = row * stride, row * out_stride, i64(chosen[row])
        if token < 0 or token >= end:
            return
        own = max(logits[base + token], f32(LOWEST))
        best = largest(logits, base, end, thread)
        top = block_max(shared, best, thread)
        bound = f32(LOWEST) if k > 0 else f32(FAR)
        if k > 0 and k <= THREADS:
            store_shared_f32(shared, CANDIDATES + thread * 4, best)
            found = refine(
                shared,
                logits,
                base,
                u32(NONE),
                THREADS,
                f32(LOWEST),
                u64(k),
                False,
                top,
                f32(TO_LOG2),
                thread,
            )
            bound = max(bound, found)
        begin(shared, thread)
        share = collect(shared, logits, base, end, bound, end, True, f32(LOWEST), top, f32(TO_LOG2), thread)
        n = i64(gathered(shared))
        total = block_sum(shared, share, thread)
        # total / 2^40 >= 1: the best token alone
        norm = top + log2(f32(total) * f32(2.0**-40)) * f32(TO_LN)
        rank = count(shared, logits, base, end, own, False, 0, thread)
        if n > CAPACITY:
            gather_exactly(shared, logits, base, end, k, top, thread)
            n = i64(gathered(shared))
        write_best(shared, n, k, norm, out_ids, out_values, at, thread)
        if thread == 0:
            out_ids[at] = token
            out_values[at] = logprob(own, norm)
            out_ranks[row] = i64(u32(rank)) + 1

    arguments = "*f32 i64 i64 *i32 i64 *i32 *f32 i64 *i32"
    parameters = (threads, digit_bits, capacity)
    return KernelSource(
        "token_logprobs", logprobs, tuple(arguments.split()), threads, layout.total, parameters
    )
