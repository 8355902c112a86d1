"""The kernel that chooses tokens: temperature, min-p, top-k, top-p and Gumbel noise, one row of logits per sequence.

Order and meaning are those of kernels/reference.py. Nothing is sorted; sums are integers (selection.py) and every token's value is a
function of its logit, the seed and the step alone, so that a row's result has the same bits in any batch, grid and block size.

How two passes over a row suffice: the first leaves each thread's largest logit; the k-th largest of these is not above the k-th largest
of all, and hardly below it. The second gathers what reaches that bound (k to 2k tokens) into shared memory, where everything else happens
exactly. Without top-k the bound is the (7/8 threads)-th, about 2 * threads tokens; if their mass does not reach top-p, or more tokens
than `capacity` reach the bound, the row takes the long way: bins over the whole row. Plain rows need one pass: noise is added at once.

Estimates for an H200 (4.3 TB/s, 75 GB/s for one multiprocessor, 1.75 GHz), V = 152k (608 KB a row), batch 64, each with 3 us for a launch:
    greedy             1 pass, 128 blocks: 39 MB / 4.3 TB/s = 9 us, joining the parts 1 us: 13 us. Batch 1, 8 blocks: 1 us + 4 us.
    temperature alone  1 pass: 38k Philox calls x 140 instructions / 128 lanes = 24 us a row, half of it for each of two blocks: 15 us.
    top-k and top-p    2 passes of one block: 2 x 608 KB / 75 GB/s = 16 us (39 MB x 2 / 4.3 TB/s = 18 us), 9 radix rounds of 900 clocks
                       = 5 us, candidates 1 us: 27 us, and up to 10 us for 40 KB of instructions when they are cold.
    top-p or min-p     2 passes, and 152k exp in the second (6 us): 33 us.
    the long way       6 to 9 passes: 70 to 110 us.
None of this is measured. Levers, if a measurement asks for them: a filtered row over a cluster of blocks for batches below 64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vsrv.kernels.cuda import sampling_state as s
from vsrv.kernels.cuda.adjusting import make_has_work
from vsrv.kernels.cuda.selection import LEAST, LN2, LOG2E, NEGATIVE, NO_BIN, Layout, make_quad, make_selection
from vsrv.kernels.cuda.source import KernelSource

MOST_NOISE = 23.0  # Gumbel noise of the smallest uniform, 2^-33, is 22.87
NO_TOKEN = 0xFFFFFFFF
MAX_PARTS = 8  # blocks for one row


@dataclass(frozen=True, slots=True)
class _Noise:
    """philox(quad, step, key_low, key_high) → four words · value(x, inverse, word) → x / T + noise as an unevaluated sum of two floats ·
    better(a, b): (sum, rest, token) a comes before b; of equal ones the lower token."""

    philox: Callable[..., Any]
    value: Callable[..., Any]
    better: Callable[..., Any]


def _noise(ops: Any) -> _Noise:
    f32, u32, u64, fma, log2, reciprocal = ops.f32, ops.u32, ops.u64, ops.fma, ops.log2, ops.reciprocal
    add_f32, mul_f32, add_u32 = ops.add_f32, ops.mul_f32, ops.add_u32
    MINUS_LN2, UNIT = -LN2, 2.0**-32

    @ops.device
    def philox(quad, step, key_low, key_high):  # type: ignore[no-untyped-def]
        """Philox4x32-10 (Salmon et al. 2011), counter (quad, step, 0, 0); a 64-bit product is one IMAD.WIDE."""
        c0, c1, c2, c3 = u32(quad), u32(step), u32(0), u32(0)
        for _ in range(10):
            p0, p1 = u64(u64(0xD2511F53) * u64(c0)), u64(u64(0xCD9E8D57) * u64(c2))
            c0, c2 = u32(u32(p1 >> u64(32)) ^ c1 ^ key_low), u32(u32(p0 >> u64(32)) ^ c3 ^ key_high)
            c1, c3 = u32(p1 & u64(0xFFFFFFFF)), u32(p0 & u64(0xFFFFFFFF))
            key_low, key_high = add_u32(key_low, u32(0x9E3779B9)), add_u32(key_high, u32(0xBB67AE85))
        return c0, c1, c2, c3

    @ops.device
    def gumbel(word):  # type: ignore[no-untyped-def]
        """-log(-log(1 - u)), u = (word + 0.5) / 2^32. The winners have a small u: there -log(1 - u) is a series in u,
        2 atanh(u / (2 - u)), because log2 near 1 has an absolute error and 1 - u has lost u's digits."""
        if word < u32(1 << 30):
            u = (f32(word) + f32(0.5)) * f32(UNIT)
            ratio = u * reciprocal(f32(2) - u)
            z = ratio * ratio
            tail = f32(1 / 3) + z * (f32(1 / 5) + z * f32(1 / 7))
            minus_log = f32(2) * ratio * (f32(1) + z * tail)
        else:
            minus_log = log2((f32(u32(word ^ u32(0xFFFFFFFF))) + f32(0.5)) * f32(UNIT)) * f32(MINUS_LN2)
        return log2(minus_log) * f32(MINUS_LN2)

    @ops.device
    def value(x, inverse, word):  # type: ignore[no-untyped-def]
        # Error-free product and sum (Dekker 1971, Knuth 1969), so that no pass for the maximum is needed before: at temperature 0.01
        # x / T is some thousands, where a single float has steps of 2e-4.
        noise = gumbel(word)
        product = mul_f32(x, inverse)
        lost = fma(x, inverse, -product)
        total = add_f32(product, noise)
        shift = add_f32(total, -product)
        rest = add_f32(add_f32(product, -add_f32(total, -shift)), add_f32(noise, -shift))
        rest = add_f32(rest, lost)
        high = add_f32(total, rest)
        return high, add_f32(rest, -add_f32(high, -total))

    @ops.device
    def better(value, rest, token, other, other_rest, other_token):  # type: ignore[no-untyped-def]
        if value != other:
            return value > other
        if rest != other_rest:
            return rest > other_rest
        return token < other_token

    return _Noise(philox, value, better)


@dataclass(frozen=True, slots=True)
class _Search:
    """Arg max of value + noise, this thread's share as (value, rest, token).

    row(source, base, begin, end, floor, inverse, keys, step, thread): floats begin … end-1 that are >= floor; inverse 0 is greedy ·
    candidates(shared, n, floor, inverse, keys, step, thread) · block(shared, best, thread): the block's best, in thread 0.
    """

    row: Callable[..., Any]
    candidates: Callable[..., Any]
    block: Callable[..., Any]


def _search(ops: Any, layout: Layout) -> _Search:
    cuda, f32, u32, f32_of_bits, exp2 = ops.cuda, ops.f32, ops.u32, ops.f32_of_bits, ops.exp2
    shared_f32, shared_u32 = ops.shared_f32, ops.shared_u32
    store_shared_f32, store_shared_u32 = ops.store_shared_f32, ops.store_shared_u32
    shuffle_xor_f32, shuffle_xor_u32 = ops.shuffle_xor_f32, ops.shuffle_xor_u32
    noise, load_quad = _noise(ops), make_quad(ops)
    philox, value_of, better = noise.philox, noise.value, noise.better
    THREADS, NUM_WARPS, WARPS = layout.threads, layout.threads // 32, layout.warps
    CANDIDATES, TOKENS, LOWEST, NOTHING = layout.candidates, layout.tokens, NEGATIVE, NO_TOKEN
    MOST, TO_LOG2, UNIT, SLACK = MOST_NOISE, LOG2E, 2.0**-32, 2.0**-20

    @ops.device
    def may_win(x, inverse, word, best):  # type: ignore[no-untyped-def]
        """Noise is at most -log(u), so it lifts x above `best` only if u < exp(x / T - best). Errs on the side of yes."""
        gap = min(x * inverse - best + abs(best) * f32(SLACK), f32(1))
        return f32(word) * f32(UNIT) < exp2(gap * f32(TO_LOG2) + f32(0.01))

    @ops.device
    def row(source, base, begin, end, floor, inverse, key_low, key_high, step, thread):  # type: ignore[no-untyped-def]
        best, rest, token = f32(LOWEST), f32(0), u32(NOTHING)
        i = begin + thread * 4
        words = load_quad(source, base, i, end)
        while i < end:
            ahead = load_quad(source, base, i + THREADS * 4, end)
            if inverse == f32(0):
                for e in range(4):
                    x = f32_of_bits(words[e])
                    if x > best:  # a thread's tokens rise: the first of equal ones stays
                        best, token = x, u32(i + e)
            else:
                left = max(f32_of_bits(words[0]), f32_of_bits(words[1]))
                right = max(f32_of_bits(words[2]), f32_of_bits(words[3]))
                largest = max(left, right)
                if largest >= floor and largest * inverse + f32(MOST) + abs(best) * f32(SLACK) > best:
                    random = philox(i >> 2, step, key_low, key_high)
                    for e in range(4):
                        x = f32_of_bits(words[e])
                        if x >= floor and may_win(x, inverse, random[e], best):
                            value, low = value_of(x, inverse, random[e])
                            if better(value, low, u32(i + e), best, rest, token):
                                best, rest, token = value, low, u32(i + e)
            words = ahead
            i += THREADS * 4
        return best, rest, token

    @ops.device
    def candidates(shared, n, floor, inverse, key_low, key_high, step, thread):  # type: ignore[no-untyped-def]
        best, rest, token = f32(LOWEST), f32(0), u32(NOTHING)
        i = thread
        while i < n:
            x, own = shared_f32(shared, CANDIDATES + i * 4), shared_u32(shared, TOKENS + i * 4)
            if x >= floor:
                random = philox(own >> u32(2), step, key_low, key_high)
                low_pair = random[1] if own & u32(1) else random[0]
                high_pair = random[3] if own & u32(1) else random[2]
                value, low = value_of(x, inverse, high_pair if own & u32(2) else low_pair)
                if better(value, low, own, best, rest, token):
                    best, rest, token = value, low, own
            i += THREADS
        return best, rest, token

    @ops.device
    def best_of_warp(best, rest, token):  # type: ignore[no-untyped-def]
        for distance in (16, 8, 4, 2, 1):
            value, low = shuffle_xor_f32(best, distance), shuffle_xor_f32(rest, distance)
            own = shuffle_xor_u32(token, distance)
            if better(value, low, own, best, rest, token):
                best, rest, token = value, low, own
        return best, rest, token

    @ops.device
    def block(shared, best, rest, token, thread):  # type: ignore[no-untyped-def]
        best, rest, token = best_of_warp(best, rest, token)
        if thread & 31 == 0:
            at = WARPS + (thread >> 5) * 16
            store_shared_f32(shared, at, best)
            store_shared_f32(shared, at + 4, rest)
            store_shared_u32(shared, at + 8, token)
        cuda.syncthreads()
        if thread < NUM_WARPS:
            at = WARPS + thread * 16
            best, rest, token = shared_f32(shared, at), shared_f32(shared, at + 4), shared_u32(shared, at + 8)
        if thread < 32:
            best, rest, token = best_of_warp(best, rest, token)
        return best, rest, token

    return _Search(row, candidates, block)


def _filter(ops: Any, layout: Layout) -> Callable[..., Any]:
    """min-p, then top-k (ties kept), then top-p, as a bound on the logit.

    filter_tokens(shared, source, base, vocabulary, state, at, thread) → (floor, n): tokens >= floor stay, all of them are among the n candidates in
    shared memory, or anywhere in the row if n > capacity.
    """
    f32, u32, i64, u64, f32_of_bits = ops.f32, ops.u32, ops.i64, ops.u64, ops.f32_of_bits
    shared_f32, store_shared_f32 = ops.shared_f32, ops.store_shared_f32
    tools = make_selection(ops, layout)
    largest, block_max, block_sum, mass = (
        tools.rows.largest,
        tools.rows.block_max,
        tools.rows.block_sum,
        tools.rows.mass,
    )
    begin, collect, gathered, refine = tools.begin, tools.collect, tools.gathered, tools.refine
    select_row, target_of = tools.select_row, tools.target
    THREADS, CAPACITY, CANDIDATES, MOST, TO_LOG2 = (
        layout.threads,
        layout.capacity,
        layout.candidates,
        LEAST,
        LOG2E,
    )
    LOWEST, NONE = NEGATIVE, NO_BIN
    WANTED, NEVER = layout.threads * 7 // 8, 3.4e38
    INVERSE, MARGIN, TOP_P, TOP_K = s.INVERSE, s.MARGIN, s.TOP_P, s.TOP_K

    @ops.device
    def mass_of_candidates(shared, n, floor, top, scale, thread):  # type: ignore[no-untyped-def]
        """This thread's share."""
        total = u64(0)
        i = thread
        while i < n:
            x = shared_f32(shared, CANDIDATES + i * 4)
            if x >= floor:
                total = u64(total + mass(x, top, scale))
            i += THREADS
        return total

    @ops.device
    def top_k(state, at, vocabulary):  # type: ignore[no-untyped-def]
        """0: off. Read again where it is needed: few registers are free."""
        k = i64(state[at + TOP_K])
        return k if k < vocabulary else i64(0)

    @ops.device
    def filter_row(shared, source, base, vocabulary, state, at, lowest, top, scale, thread):  # type: ignore[no-untyped-def]
        """The long way, for flat rows: every step reads the whole row."""
        floor = lowest
        for by_mass in (False, True):  # a loop, so that the code of select_row is there once
            need = u64(top_k(state, at, vocabulary))
            if by_mass:
                need = u64(0)
                if state[at + TOP_P] != u32(0):
                    share = collect(
                        shared, source, base, vocabulary, f32(NEVER), 0, True, floor, top, scale, thread
                    )
                    need = target_of(block_sum(shared, share, thread), state[at + TOP_P])
            if need != u64(0):
                found = select_row(shared, source, base, vocabulary, floor, need, by_mass, top, scale, thread)
                floor = max(floor, found)
        return floor

    @ops.device
    def filter_tokens(shared, source, base, vocabulary, state, at, thread):  # type: ignore[no-untyped-def]
        scale = f32_of_bits(state[at + INVERSE]) * f32(TO_LOG2)
        own = largest(source, base, vocabulary, thread)
        store_shared_f32(shared, CANDIDATES + thread * 4, own)
        top = block_max(shared, own, thread)
        lowest = max(top - f32_of_bits(state[at + MARGIN]), f32(MOST))  # what min-p keeps
        floor, n, share, weigh = f32(MOST), u32(THREADS), u64(0), False
        complete, stage = True, u32(0)
        # 0: from the threads' largest logits, a bound that enough tokens reach; these become the candidates. 1: top-k, 2: top-p
        # among the candidates. A loop, so that the code of `refine` is fetched once.
        while stage < u32(3) and complete:
            need = u64(top_k(state, at, vocabulary))
            if stage == u32(0):
                if need == u64(0) and state[at + TOP_P] != u32(0):
                    need = u64(WANTED)
                if need > u64(THREADS):
                    need = u64(0)
            elif stage == u32(2):
                need = u64(0)
                if state[at + TOP_P] != u32(0):
                    if not weigh:
                        share = mass_of_candidates(shared, n, floor, top, scale, thread)
                    need = target_of(block_sum(shared, share, thread), state[at + TOP_P])
            found = f32(LOWEST)
            if need != u64(0):
                by_mass = stage == u32(2)
                found = refine(shared, source, base, u32(NONE), n, floor, need, by_mass, top, scale, thread)
            if stage == u32(0):
                # top-p alone, and min-p keeps more than the candidates: the total is the row's
                weigh = top_k(state, at, vocabulary) == 0 and lowest < found
                floor = max(found, lowest)
                begin(shared, thread)
                share = collect(
                    shared, source, base, vocabulary, floor, vocabulary, weigh, lowest, top, scale, thread
                )
                n = gathered(shared)
                complete = n <= u32(CAPACITY)
            else:
                complete = need == u64(0) or found >= floor or not weigh
                floor = max(floor, found)
            stage = u32(stage + u32(1))
        if not complete:
            floor = filter_row(shared, source, base, vocabulary, state, at, lowest, top, scale, thread)
            n = u32(CAPACITY + 1)
        return floor, n

    return filter_tokens


def make_sample(ops: Any, threads: int, digit_bits: int, capacity: int) -> KernelSource:
    """Choose a token for each row, and write it down in the slot.

    logits f32 [R, V] (row stride `stride`) and scratch f32 [R, scratch_stride] hold the rows; adjusted: 0 all are raw, 1 those of slots
    with work are in scratch, 2 all are · slot_of_row i32 [R], below 0 skips the row · partial u32 [R, parts, 4] · tickets u32 [R], zero
    before and after · part_size: a multiple of 4, part_size * parts >= V · out_ids i32 [R]. Grid (R, parts): greedy and unfiltered
    rows are split over `parts` blocks, of which the last one to come writes the result; a filtered row is one block's.
    Shared: Layout.total. capacity >= threads.
    """
    cuda, f32, u32, i64, u8 = ops.cuda, ops.f32, ops.u32, ops.i64, ops.u8
    f32_of_bits, bits_of_f32, load_f32_l2 = ops.f32_of_bits, ops.bits_of_f32, ops.load_f32_l2
    store_16, global_add, fence_global = ops.store_16, ops.global_add, ops.fence_global
    layout = Layout(threads, digit_bits, capacity)
    filter_tokens, search, better = _filter(ops, layout), _search(ops, layout), _noise(ops).better
    search_row, search_candidates, best_of_block = search.row, search.candidates, search.block
    CAPACITY, MOST, NOTHING = capacity, LEAST, NO_TOKEN
    SLOT_WORDS, FLAGS, INVERSE = s.SLOT_WORDS, s.FLAGS, s.INVERSE
    GENERATED, RECENT, TAIL = s.GENERATED, s.RECENT, s.TAIL
    SEED_LOW, SEED_HIGH, COUNTED, FILTERED = s.SEED_LOW, s.SEED_HIGH, s.COUNTED, s.FILTERED
    has_work = make_has_work(ops)

    @ops.device
    def record(token, row, slot, vocabulary, state, counts, last_token, out_ids):  # type: ignore[no-untyped-def]
        """One thread; token NOTHING: every logit is NaN or cannot come."""
        chosen = i64(0) if token == u32(NOTHING) else i64(token)
        at = slot * SLOT_WORDS
        generated = state[at + GENERATED]
        out_ids[row] = chosen
        last_token[slot] = chosen
        state[at + RECENT + i64(generated & u32(TAIL - 1))] = u32(chosen)
        state[at + GENERATED] = u32(generated + u32(1))
        if u32(state[at + FLAGS] & u32(COUNTED)) != u32(0):
            place = slot * ((vocabulary + 3) >> 2 << 2) + chosen
            counts[place] = u32(counts[place] + u32(1))

    @ops.device
    def join(partial, tickets, row, part, parts, best, rest, token):  # type: ignore[no-untyped-def]
        """One thread of each block → (whether it is the last, the row's token)."""
        at = (row * parts + part) * 4
        store_16(partial, at, (bits_of_f32(best), bits_of_f32(rest), token, u32(0)))
        fence_global()
        if i64(global_add(tickets, row, u32(1))) != parts - 1:
            return False, token
        fence_global()
        other = i64(0)
        while other < parts:
            at = (row * parts + other) * 4
            value, low = load_f32_l2(partial, at), load_f32_l2(partial, at + 1)
            own = bits_of_f32(load_f32_l2(partial, at + 2))
            if better(value, low, own, best, rest, token):
                best, rest, token = value, low, own
            other += 1
        tickets[row] = u32(0)
        return True, token

    def sample(  # type: ignore[no-untyped-def]
        logits,
        stride,
        scratch,
        scratch_stride,
        adjusted,
        vocabulary,
        slot_of_row,
        max_slots,
        state,
        counts,
        last_token,
        partial,
        tickets,
        part_size,
        out_ids,
    ):
        shared = cuda.shared.array(0, u8)
        row, part, thread = i64(cuda.blockIdx.x), i64(cuda.blockIdx.y), cuda.threadIdx.x
        slot = i64(slot_of_row[row])
        if slot < 0 or slot >= max_slots:
            return
        at = slot * SLOT_WORDS
        filtered = u32(state[at + FLAGS] & u32(FILTERED)) != u32(0)
        if filtered and part > 0:
            return
        source, base = logits, row * stride
        if adjusted == 2 or (adjusted == 1 and has_work(state, at)):
            source, base = scratch, row * scratch_stride
        floor, n = f32(MOST), u32(CAPACITY + 1)
        if filtered:
            floor, n = filter_tokens(shared, source, base, vocabulary, state, at, thread)
        inverse, step = f32_of_bits(state[at + INVERSE]), state[at + GENERATED]
        key_low, key_high = state[at + SEED_LOW], state[at + SEED_HIGH]
        if n <= u32(CAPACITY):
            best, rest, token = search_candidates(shared, n, floor, inverse, key_low, key_high, step, thread)
        else:
            first, end = part * part_size, min(vocabulary, (part + 1) * part_size)
            if filtered:
                end = vocabulary
            best, rest, token = search_row(
                source, base, first, end, floor, inverse, key_low, key_high, step, thread
            )
        best, rest, token = best_of_block(shared, best, rest, token, thread)
        if thread == 0:
            last = True
            if cuda.gridDim.y > 1 and not filtered:
                last, token = join(partial, tickets, row, part, i64(cuda.gridDim.y), best, rest, token)
            if last:
                record(token, row, slot, vocabulary, state, counts, last_token, out_ids)

    arguments = "*f32 i64 *f32 i64 i32 i64 *i32 i64 *u32 *u32 *i32 *u32 *u32 i64 *i32"
    parameters = (threads, digit_bits, capacity)
    return KernelSource("sample_tokens", sample, tuple(arguments.split()), threads, layout.total, parameters)
