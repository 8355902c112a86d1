"""Kernels that choose tokens: penalties and masks, then temperature, min-p, top-k, top-p and Gumbel noise; and log-probabilities.

Order and meaning are those of kernels/reference.py. Nothing is sorted; sums are integers (selection.py) and every token's value is a function
of its logit, the seed and the step alone, so that a row's result has the same bits in any batch, grid and block size.

Passes over a row of V floats (152k: 608 KB) and estimates for an H200: 4.3 TB/s in all, 70-90 GB/s for one multiprocessor, 1.75 GHz.
    greedy                    1   64 rows x 2 blocks: 39 MB / 4.3 TB/s = 9 us (608 KB / 2 / 80 GB/s = 4 us a block), batch 1 x 8 blocks: 2 us
    temperature alone         1   Philox bounds it: 38k calls x about 140 instructions / 128 lanes = 24 us a row, 12 us x 2 blocks
    top-k (k <= threads)      2   2 x 608 KB / 75 GB/s = 16 us + 6 radix rounds in shared memory (4 us) + a few hundred candidates = 21 us
    top-p or min-p alone      2   as above, and 152k exp in the second pass (+ 6 us) = 27 us
    top-p over a flat row, top-k > threads, or more than `capacity` candidates: 5 to 8 passes, 60-90 us
    k-best logprobs           2   27 us
To each add one launch (3 us); adjusted rows add their own read and write of the row.

How two passes suffice: the first leaves each thread's largest logit; the k-th largest of these is not above the k-th largest of all, and hardly
below it. The second gathers what reaches that bound (k to 2k tokens) into shared memory, where everything else happens exactly. Without
top-k the bound is the (7/8 threads)-th, about 2 * threads tokens; if their mass does not reach top-p, the row takes the slow way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vsrv.kernels.cuda import sampling_state as layout_of_state
from vsrv.kernels.cuda.device import Device, Launch
from vsrv.kernels.cuda.sampling_state import CudaSamplingState
from vsrv.kernels.cuda.selection import LEAST, NEGATIVE, Layout, make_quad, make_selection
from vsrv.kernels.cuda.source import KernelSource

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
MOST_NOISE = 23.0  # Gumbel noise of the smallest uniform, 2^-33, is 22.87
NO_TOKEN = 0xFFFFFFFF
MAX_PARTS = 8  # blocks for one row


def make_adjust(ops: Any, threads: int, chunk: int) -> KernelSource:
    """Grammar mask, allowed ids, bad words, minimum length, bias and penalties, from the raw row to a row of scratch.

    logits f32 [R, V] (row stride `stride`) · slot_of_row i32 [R] · mask u32 [R, mask_stride] if has_mask · scratch f32 [R, scratch_stride], the
    stride a multiple of 4; padding behind V is written too. Rows without work write nothing. What cannot come is NEGATIVE.
    Grid (ceil(V / chunk), R): each block owns one chunk of one row; chunk is a multiple of 32. Shared: chunk * 4 bytes.
    """
    cuda, f32, u32, i64 = ops.cuda, ops.f32, ops.u32, ops.i64
    f32_of_bits, bits_of_f32, load_16_fresh, store_16 = (
        ops.f32_of_bits,
        ops.bits_of_f32,
        ops.load_16_fresh,
        ops.store_16,
    )
    shared_f32, store_shared_f32 = ops.shared_f32, ops.store_shared_f32
    shared_16, store_shared_16 = ops.shared_16, ops.store_shared_16
    u8, load_quad = ops.u8, make_quad(ops)
    THREADS, CHUNK, LOWEST = threads, chunk, NEGATIVE
    s = layout_of_state
    SLOT_WORDS, LIST_WORDS, FLAGS, GENERATED, MIN_TOKENS = (
        s.SLOT_WORDS,
        s.LIST_WORDS,
        s.FLAGS,
        s.GENERATED,
        s.MIN_TOKENS,
    )
    NUM_STOPS, NUM_BIAS, NUM_BAD_WORDS, RECENT, TAIL = (
        s.NUM_STOPS,
        s.NUM_BIAS,
        s.NUM_BAD_WORDS,
        s.RECENT,
        s.TAIL,
    )
    BIAS_IDS, BIAS_VALUES, STOPS, BAD_WORDS, STARTS = (
        s.BIAS_IDS,
        s.BIAS_VALUES,
        s.STOPS,
        s.BAD_WORDS,
        s.BAD_WORD_STARTS,
    )
    REPETITION, INVERSE_REPETITION, FREQUENCY, PRESENCE = (
        s.REPETITION,
        s.INVERSE_REPETITION,
        s.FREQUENCY,
        s.PRESENCE,
    )
    ADJUSTED, ALLOWED, COUNTED, IN_PROMPT = s.ADJUSTED, s.ALLOWED, s.COUNTED, s.IN_PROMPT

    @ops.device
    def ban(shared, token, first, end):  # type: ignore[no-untyped-def]
        if token >= first and token < end:
            store_shared_f32(shared, (token - first) * 4, f32(LOWEST))

    @ops.device
    def ban_bad_word(shared, state, at, lists, word, first, end):  # type: ignore[no-untyped-def]
        """word: where its run starts. Its last token is banned if the tokens before it end the output."""
        n, generated = i64(lists[word]), i64(state[at + GENERATED])
        if n - 1 <= generated:
            j = i64(0)
            while j < n - 1:
                age = n - 1 - j  # 1 is the newest
                recent = state[at + RECENT + ((generated - age) & (TAIL - 1))]
                if recent != lists[word + 1 + j]:
                    break
                j += 1
            if j == n - 1:
                ban(shared, i64(lists[word + n]), first, end)

    @ops.device
    def masked(bits, allowed, bit):  # type: ignore[no-untyped-def]
        x = max(f32_of_bits(bits), f32(LOWEST)) if u32(allowed & u32(bit)) != u32(0) else f32(LOWEST)
        return bits_of_f32(x)

    @ops.device
    def penalised(bits, state, at, seen):  # type: ignore[no-untyped-def]
        """seen: the token's word of `counts`."""
        x = f32_of_bits(bits)
        if seen != u32(0) and x > f32(LOWEST):
            x = x * f32_of_bits(state[at + (INVERSE_REPETITION if x > f32(0) else REPETITION)])
            count = u32(seen & u32(IN_PROMPT - 1))
            if count != u32(0):
                x -= f32_of_bits(state[at + FREQUENCY]) * f32(count) + f32_of_bits(state[at + PRESENCE])
        return bits_of_f32(x)

    def adjust(  # type: ignore[no-untyped-def]
        logits,
        stride,
        vocabulary,
        slot_of_row,
        max_slots,
        state,
        all_lists,
        all_allowed,
        counts,
        mask,
        mask_stride,
        has_mask,
        scratch,
        scratch_stride,
    ):
        shared = cuda.shared.array(0, u8)
        row, thread = i64(cuda.blockIdx.y), i64(cuda.threadIdx.x)
        first = i64(cuda.blockIdx.x) * CHUNK
        end = min(first + CHUNK, i64(vocabulary))
        slot = i64(slot_of_row[row])
        if slot < 0 or slot >= max_slots:
            return
        at = slot * SLOT_WORDS
        flags = state[at + FLAGS]
        if has_mask == 0 and u32(flags & u32(ADJUSTED)) == u32(0):
            return
        words = (i64(vocabulary) + 31) >> 5
        i = first + thread * 4
        while i < end:
            allowed = u32(0xF)  # bit e: token i + e may come
            if has_mask != 0:
                allowed = u32(mask[row * mask_stride + (i >> 5)] >> u32(i & 31))
            if u32(flags & u32(ALLOWED)) != u32(0):
                allowed = u32(allowed & u32(all_allowed[slot * words + (i >> 5)] >> u32(i & 31)))
            x = load_quad(logits, row * stride, i, end)
            store_shared_16(
                shared,
                (i - first) * 4,
                (
                    masked(x[0], allowed, 1),
                    masked(x[1], allowed, 2),
                    masked(x[2], allowed, 4),
                    masked(x[3], allowed, 8),
                ),
            )
            i += THREADS * 4
        cuda.syncthreads()
        lists = slot * LIST_WORDS
        i = thread
        while i < i64(state[at + NUM_BAD_WORDS]):
            ban_bad_word(
                shared,
                state,
                at,
                all_lists,
                lists + BAD_WORDS + i64(all_lists[lists + STARTS + i]),
                first,
                end,
            )
            i += THREADS
        if state[at + GENERATED] < state[at + MIN_TOKENS]:
            i = thread
            while i < i64(state[at + NUM_STOPS]):
                ban(shared, i64(all_lists[lists + STOPS + i]), first, end)
                i += THREADS
        cuda.syncthreads()
        i = thread
        while i < i64(state[at + NUM_BIAS]):
            place = i64(all_lists[lists + BIAS_IDS + i]) - first
            if place >= 0 and place < end - first:
                x = shared_f32(shared, place * 4)
                if x > f32(LOWEST):
                    store_shared_f32(shared, place * 4, x + f32_of_bits(all_lists[lists + BIAS_VALUES + i]))
            i += THREADS
        cuda.syncthreads()
        counted = u32(flags & u32(COUNTED)) != u32(0)
        i = first + thread * 4
        while i < end:
            words_of_x = shared_16(shared, (i - first) * 4)
            if counted:
                seen = load_16_fresh(counts, slot * (((i64(vocabulary) + 3) >> 2) << 2) + i)
                words_of_x = (
                    penalised(words_of_x[0], state, at, seen[0]),
                    penalised(words_of_x[1], state, at, seen[1]),
                    penalised(words_of_x[2], state, at, seen[2]),
                    penalised(words_of_x[3], state, at, seen[3]),
                )
            store_16(scratch, row * scratch_stride + i, words_of_x)
            i += THREADS * 4

    arguments = (
        "*f32",
        "i64",
        "i32",
        "*i32",
        "i32",
        "*u32",
        "*u32",
        "*u32",
        "*u32",
        "*u32",
        "i32",
        "i32",
        "*f32",
        "i64",
    )
    return KernelSource("adjust_logits", adjust, arguments, threads, chunk * 4, (threads, chunk))


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
            s = u * reciprocal(f32(2) - u)
            z = s * s
            tail = f32(1 / 3) + z * (f32(1 / 5) + z * f32(1 / 7))
            minus_log = f32(2) * s * (f32(1) + z * tail)
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
    def block(shared, best, rest, token, thread):  # type: ignore[no-untyped-def]
        for distance in (16, 8, 4, 2, 1):
            value, low = shuffle_xor_f32(best, distance), shuffle_xor_f32(rest, distance)
            own = shuffle_xor_u32(token, distance)
            if better(value, low, own, best, rest, token):
                best, rest, token = value, low, own
        if thread & 31 == 0:
            at = WARPS + (thread >> 5) * 16
            store_shared_f32(shared, at, best)
            store_shared_f32(shared, at + 4, rest)
            store_shared_u32(shared, at + 8, token)
        cuda.syncthreads()
        if thread == 0:
            for warp in range(1, NUM_WARPS):
                at = WARPS + warp * 16
                value, low, own = (
                    shared_f32(shared, at),
                    shared_f32(shared, at + 4),
                    shared_u32(shared, at + 8),
                )
                if better(value, low, own, best, rest, token):
                    best, rest, token = value, low, own
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
    WANTED = layout.threads * 7 // 8
    s = layout_of_state
    INVERSE, MARGIN, TOP_P, TOP_K = s.INVERSE, s.MARGIN, s.TOP_P, s.TOP_K

    @ops.device
    def mass_of_candidates(shared, n, floor, top, scale, thread):  # type: ignore[no-untyped-def]
        total = u64(0)
        i = thread
        while i < n:
            x = shared_f32(shared, CANDIDATES + i * 4)
            if x >= floor:
                total = u64(total + mass(x, top, scale))
            i += THREADS
        return block_sum(shared, total, thread)

    @ops.device
    def first_pass(shared, source, base, vocabulary, wanted, thread):  # type: ignore[no-untyped-def]
        """The row's largest logit, and the `wanted`-th largest of the threads' own: at least so many tokens reach it."""
        own = largest(source, base, vocabulary, thread)
        top = block_max(shared, own, thread)
        reached = f32(MOST)
        if wanted > 0 and wanted <= THREADS:
            store_shared_f32(shared, CANDIDATES + thread * 4, own)
            reached = max(
                reached, refine(shared, THREADS, f32(MOST), u64(wanted), False, top, f32(0), thread)
            )
        return top, reached

    @ops.device
    def filter_row(shared, source, base, vocabulary, lowest, k, p, top, scale, thread):  # type: ignore[no-untyped-def]
        """The long way, for flat rows: every step reads the whole row."""
        floor = lowest
        if k > 0:
            found = select_row(shared, source, base, vocabulary, floor, u64(k), False, top, scale, thread)
            floor = max(floor, found)
        if p != u32(0):
            share = collect(shared, source, base, vocabulary, f32(3.4e38), 0, True, floor, top, scale, thread)
            need = target_of(block_sum(shared, share, thread), p)
            found = select_row(shared, source, base, vocabulary, floor, need, True, top, scale, thread)
            floor = max(floor, found)
        return floor

    @ops.device
    def filter_tokens(shared, source, base, vocabulary, state, at, thread):  # type: ignore[no-untyped-def]
        k, p = i64(state[at + TOP_K]), state[at + TOP_P]
        if k >= vocabulary:
            k = i64(0)
        scale = f32_of_bits(state[at + INVERSE]) * f32(TO_LOG2)
        wanted = k if k > 0 or p == u32(0) else i64(WANTED)
        top, bound = first_pass(shared, source, base, vocabulary, wanted, thread)
        lowest = max(top - f32_of_bits(state[at + MARGIN]), f32(MOST))  # what min-p keeps
        weigh = (
            k == 0 and lowest < bound
        )  # top-p alone, and there is more than the candidates: its total is that of the row
        bound = max(bound, lowest)
        begin(shared, thread)
        share = collect(
            shared, source, base, vocabulary, bound, vocabulary, weigh, lowest, top, scale, thread
        )
        n = i64(gathered(shared))
        if n <= CAPACITY:
            floor = bound
            if k > 0:
                floor = max(floor, refine(shared, n, floor, u64(k), False, top, scale, thread))
            if p == u32(0):
                return floor, n
            if not weigh:
                total = mass_of_candidates(shared, n, floor, top, scale, thread)
            else:
                total = block_sum(shared, share, thread)
            found = refine(shared, n, floor, target_of(total, p), True, top, scale, thread)
            if found >= floor:
                return found, n
            if not weigh:
                return floor, n
        floor = filter_row(shared, source, base, vocabulary, lowest, k, p, top, scale, thread)
        return floor, i64(CAPACITY + 1)

    return filter_tokens


def make_sample(ops: Any, threads: int, digit_bits: int, capacity: int) -> KernelSource:
    """Choose a token for each row, and write it down in the slot.

    logits f32 [R, V] (row stride `stride`) and scratch f32 [R, scratch_stride] hold the rows; adjusted: 0 all raw, 1 those of ADJUSTED slots
    are in scratch, 2 all are · slot_of_row i32 [R], below 0 skips the row · partial u32 [R, parts, 4] and tickets u32 [R], zero before
    and after · part_size: a multiple of 4, part_size * parts >= V · out_ids i32 [R]. Grid (R, parts): greedy and unfiltered rows are split
    over `parts` blocks, of which the last one to
    come writes the result; a filtered row is one block's. Shared: Layout.total. capacity >= threads.
    """
    cuda, f32, u32, i64, u8 = ops.cuda, ops.f32, ops.u32, ops.i64, ops.u8
    f32_of_bits, bits_of_f32, load_f32_l2 = ops.f32_of_bits, ops.bits_of_f32, ops.load_f32_l2
    store_16, global_add, fence_global = ops.store_16, ops.global_add, ops.fence_global
    layout = Layout(threads, digit_bits, capacity)
    filter_tokens, search, better = _filter(ops, layout), _search(ops, layout), _noise(ops).better
    search_row, search_candidates, best_of_block = search.row, search.candidates, search.block
    CAPACITY, MOST, NOTHING = capacity, LEAST, NO_TOKEN
    s = layout_of_state
    SLOT_WORDS, FLAGS, INVERSE, GENERATED, RECENT, TAIL = (
        s.SLOT_WORDS,
        s.FLAGS,
        s.INVERSE,
        s.GENERATED,
        s.RECENT,
        s.TAIL,
    )
    SEED_LOW, SEED_HIGH, ADJUSTED, COUNTED, FILTERED = (
        s.SEED_LOW,
        s.SEED_HIGH,
        s.ADJUSTED,
        s.COUNTED,
        s.FILTERED,
    )

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
            place = slot * (((i64(vocabulary) + 3) >> 2) << 2) + chosen
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
        row, part, parts = i64(cuda.blockIdx.x), i64(cuda.blockIdx.y), i64(cuda.gridDim.y)
        thread, end = i64(cuda.threadIdx.x), i64(vocabulary)
        slot = i64(slot_of_row[row])
        if slot < 0 or slot >= max_slots:
            return
        at = slot * SLOT_WORDS
        flags = state[at + FLAGS]
        filtered = u32(flags & u32(FILTERED)) != u32(0)
        if filtered and part > 0:
            return
        inverse, step = f32_of_bits(state[at + INVERSE]), state[at + GENERATED]
        key_low, key_high = state[at + SEED_LOW], state[at + SEED_HIGH]
        source, base = logits, row * stride
        if adjusted == 2 or (adjusted == 1 and u32(flags & u32(ADJUSTED)) != u32(0)):
            source, base = scratch, row * scratch_stride
        floor, n, first = f32(MOST), i64(CAPACITY + 1), i64(0)
        if filtered:
            floor, n = filter_tokens(shared, source, base, end, state, at, thread)
            parts = i64(1)
        else:
            first, end = part * part_size, min(end, (part + 1) * part_size)
        if n <= CAPACITY:
            best, rest, token = search_candidates(shared, n, floor, inverse, key_low, key_high, step, thread)
        else:
            best, rest, token = search_row(
                source, base, first, end, floor, inverse, key_low, key_high, step, thread
            )
        best, rest, token = best_of_block(shared, best, rest, token, thread)
        if thread == 0:
            last = True
            if parts > 1:
                last, token = join(partial, tickets, row, part, parts, best, rest, token)
            if last:
                record(token, row, slot, vocabulary, state, counts, last_token, out_ids)

    arguments = (
        "*f32",
        "i64",
        "*f32",
        "i64",
        "i32",
        "i32",
        "*i32",
        "i32",
        "*u32",
        "*u32",
        "*i32",
        "*u32",
        "*u32",
        "i32",
        "*i32",
    )
    parameters = (threads, digit_bits, capacity)
    return KernelSource("sample_tokens", sample, arguments, threads, layout.total, parameters)


def make_logprobs(ops: Any, threads: int, digit_bits: int, capacity: int) -> KernelSource:
    """Raw log_softmax of the chosen token and of the k best (ties by rising id), and the rank of the chosen one.

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
    FAR = 3.4e38

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
        row, thread, end = i64(cuda.blockIdx.x), i64(cuda.threadIdx.x), i64(vocabulary)
        base, at, token = row * stride, row * out_stride, i64(chosen[row])
        if token < 0 or token >= end:
            return
        own = max(logits[base + token], f32(LOWEST))
        best = largest(logits, base, end, thread)
        top = block_max(shared, best, thread)
        bound = f32(LOWEST) if k > 0 else f32(FAR)
        if k > 0 and k <= THREADS:
            store_shared_f32(shared, CANDIDATES + thread * 4, best)
            bound = max(bound, refine(shared, THREADS, f32(LOWEST), u64(k), False, top, f32(TO_LOG2), thread))
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

    arguments = ("*f32", "i64", "i32", "*i32", "i32", "*i32", "*f32", "i64", "*i32")
    return KernelSource(
        "token_logprobs", logprobs, arguments, threads, layout.total, (threads, digit_bits, capacity)
    )


@dataclass(frozen=True, slots=True)
class SamplingKernels:
    """One specialisation of the three kernels."""

    adjust: KernelSource
    sample: KernelSource
    logprobs: KernelSource
    chunk: int
    capacity: int


def make_sampling(
    ops: Any,
    threads: int = 1024,
    digit_bits: int = 11,
    capacity: int = 4096,
    adjust_threads: int = 256,
    chunk: int = 4096,
) -> SamplingKernels:
    """The defaults are for large vocabularies; tests take others, and get the same bits."""
    if not (threads <= capacity and 5 <= digit_bits <= 11 and chunk % 32 == 0):
        raise ValueError(
            "a block's candidates must hold one of each thread, its bins make at most 64 groups of 32"
        )
    adjust = make_adjust(ops, adjust_threads, chunk)
    sample = make_sample(ops, threads, digit_bits, capacity)
    logprobs = make_logprobs(ops, threads, digit_bits, capacity)
    return SamplingKernels(adjust, sample, logprobs, chunk, capacity)


class Sampler:
    """`sample` and `logprobs` of Kernels on one GPU. Owned by the engine thread.

    Scratch for `max_rows` rows is taken at once and grows with larger batches: sampling is launched, never captured in a graph. One
    stream only: calls share the scratch.
    """

    def __init__(
        self, kernels: SamplingKernels, device: Device, launch: Launch, vocab_size: int, max_rows: int = 0
    ) -> None:
        self._kernels, self._device, self._launch = kernels, device, launch
        self._vocab_size, self._rows = vocab_size, 0
        self._scratch_stride = -(-vocab_size // 4) * 4
        self._grow(max(1, max_rows))

    def sample(self, logits: Any, slots: Any, state: CudaSamplingState, mask: Any, out_ids: Any) -> None:
        """logits f32 [R, V] · slots i32 [R], below 0 skips the row · mask u32 [R, ceil(V/32)] or None → out_ids i32 [R], and the slots."""
        rows, stride = self._checked(logits)
        if state.vocab_size != self._vocab_size:
            raise ValueError(
                f"a sampling state of {state.vocab_size} tokens for logits of {self._vocab_size}"
            )
        if rows == 0:
            return
        self._grow(rows)
        adjusted = 2 if mask is not None else int(state.has_adjusted)
        if adjusted:
            self._adjust(logits, rows, stride, slots, state, mask)
        parts = max(1, min(MAX_PARTS, self._device.num_multiprocessors // rows))
        part_size = -(-self._vocab_size // (4 * parts)) * 4
        arguments = (
            logits,
            stride,
            self._scratch,
            self._scratch_stride,
            adjusted,
            self._vocab_size,
            slots,
            state.max_slots,
            state.slots,
            state.counts,
            state.last_token,
            self._partial,
            self._tickets,
            part_size,
            out_ids,
        )
        self._launch(self._kernels.sample, (rows, -(-self._vocab_size // part_size), 1), arguments)

    def logprobs(
        self, logits: Any, chosen: Any, k: int, out_ids: Any, out_values: Any, out_ranks: Any
    ) -> None:
        """logits f32 [R, V] · chosen i32 [R] → out_ids i32, out_values f32 [R, k+1], out_ranks i32 [R]; columns behind V are left."""
        rows, stride = self._checked(logits)
        best = min(k, self._vocab_size)
        if best > self._kernels.capacity:
            raise ValueError(f"{best} logprobs; at most {self._kernels.capacity}")
        out_stride = out_ids.stride()[0]
        if out_values.stride()[0] != out_stride:
            raise ValueError("ids and values of logprobs have rows of different length")
        if rows == 0:
            return
        arguments = (
            logits,
            stride,
            self._vocab_size,
            chosen,
            best,
            out_ids,
            out_values,
            out_stride,
            out_ranks,
        )
        self._launch(self._kernels.logprobs, (rows, 1, 1), arguments)

    def _checked(self, logits: Any) -> tuple[int, int]:
        """Rows and row stride. Raises ValueError where 16-byte loads would fault."""
        rows, vocabulary = logits.shape
        stride = logits.stride()[0]
        if vocabulary != self._vocab_size:
            raise ValueError(f"logits of {vocabulary} tokens for a vocabulary of {self._vocab_size}")
        if stride % 4 or stride < vocabulary or logits.stride()[1] != 1 or logits.data_ptr() % 16:
            raise ValueError("rows of logits must be contiguous and start at multiples of 16 bytes")
        return rows, stride

    def _adjust(
        self, logits: Any, rows: int, stride: int, slots: Any, state: CudaSamplingState, mask: Any
    ) -> None:
        arguments = (
            logits,
            stride,
            self._vocab_size,
            slots,
            state.max_slots,
            state.slots,
            state.lists,
            state.allowed,
            state.counts,
            state.allowed if mask is None else mask,
            0 if mask is None else mask.stride()[0],
            int(mask is not None),
            self._scratch,
            self._scratch_stride,
        )
        chunks = -(-self._vocab_size // self._kernels.chunk)
        self._launch(self._kernels.adjust, (chunks, rows, 1), arguments)

    def _grow(self, rows: int) -> None:
        if rows > self._rows:
            self._rows = rows
            self._scratch = self._device.zeros((rows, self._scratch_stride), "float32")
            self._partial = self._device.zeros((rows, MAX_PARTS, 4), "int32")
            self._tickets = self._device.zeros((rows,), "int32")
