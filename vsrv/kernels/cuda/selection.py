"""Finding the k-th largest of a row, or where its probability mass reaches a target, without sorting: device functions for a block.

Weights are integers (a count, or exp(x - max) in steps of 2^-40), so that sums do not depend on who adds first: the results have the
same bits for any number of threads and any order. The method is a radix select from the most significant digit (as in Alabi et al.,
"Fast k-selection algorithms for graphics processing units", 2012) over keys that order like the floats.

Failed or rejected: digits of the raw key over a whole row (nearly all logits share sign and exponent: 32 lanes add to one bin, about
90 us); one warp that walks 2048 bins (64 dependent steps, about 5 us a round); one pass for each bit (32 passes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NEGATIVE = -3.0e38  # a finite "minus infinity": exp of it is 0 and differences stay finite
LEAST = float(np.nextafter(np.float32(NEGATIVE), np.float32(0)))  # the lowest logit that can come
MASS_ONE = float(1 << 40)  # the weight of the best token; 2^23 tokens of this weight fit a u64
NO_BIN = 0xFFFFFFFF
LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte offsets in the block's shared memory.

    bins u32 [2, B] (low and high words of sums) · groups u64 [B/32] · result (bin, u64) · warps [32, 16 bytes] for reductions ·
    counter u32 · candidates f32 [C] and their tokens u32 [C].
    """

    threads: int
    digit_bits: int
    capacity: int

    @property
    def bins(self) -> int:
        return 1 << self.digit_bits

    @property
    def groups(self) -> int:
        return self.bins * 8

    @property
    def result(self) -> int:
        return self.groups + self.bins // 32 * 8

    @property
    def warps(self) -> int:
        return self.result + 16

    @property
    def counter(self) -> int:
        return self.warps + 32 * 16

    @property
    def candidates(self) -> int:
        return self.counter + 16

    @property
    def tokens(self) -> int:
        return self.candidates + self.capacity * 4

    @property
    def total(self) -> int:
        return self.tokens + self.capacity * 4


@dataclass(frozen=True, slots=True)
class RowTools:
    """Device functions on one row of logits, which starts at source[base] and has `end` floats.

    quad(source, base, i, end) → bits of floats i … i+3, NEGATIVE from `end` on · largest(source, base, end, thread) → the largest of
    the floats that this thread reads · block_max(shared, x, thread) and block_sum(shared, u64, thread) → over the block, in every
    thread · mass(x, top, scale) → exp(x - top) as a weight u64; scale is log2(e) / temperature.
    """

    quad: Callable[..., Any]
    largest: Callable[..., Any]
    block_max: Callable[..., Any]
    block_sum: Callable[..., Any]
    mass: Callable[..., Any]


def make_quad(ops: Any) -> Callable[..., Any]:
    """RowTools.quad. `base` and `i` are multiples of 4."""
    u32, bits_of_f32, load_16 = ops.u32, ops.bits_of_f32, ops.load_16
    NEGATIVE_BITS = int(np.float32(NEGATIVE).view(np.uint32))

    @ops.device
    def quad(source, base, i, end):  # type: ignore[no-untyped-def]
        if i + 4 <= end:
            return load_16(source, base + i)
        a = bits_of_f32(source[base + i]) if i < end else u32(NEGATIVE_BITS)
        b = bits_of_f32(source[base + i + 1]) if i + 1 < end else u32(NEGATIVE_BITS)
        c = bits_of_f32(source[base + i + 2]) if i + 2 < end else u32(NEGATIVE_BITS)
        return a, b, c, u32(NEGATIVE_BITS)

    return quad


def _warp_sum(ops: Any) -> Callable[..., Any]:
    """The sum of a warp's u64, in every lane: three 32-bit reductions instead of ten shuffles."""
    u32, u64, warp_add_u32 = ops.u32, ops.u64, ops.warp_add_u32

    @ops.device
    def warp_sum(value):  # type: ignore[no-untyped-def]
        low = warp_add_u32(u32(value & u64(0xFFFFFF)))
        middle = warp_add_u32(u32((value >> u64(24)) & u64(0xFFFFFF)))
        high = warp_add_u32(u32(value >> u64(48)))
        return u64(u64(low) + (u64(middle) << u64(24)) + (u64(high) << u64(48)))

    return warp_sum


def _row_tools(ops: Any, layout: Layout) -> RowTools:
    cuda, f32, u32, u64 = ops.cuda, ops.f32, ops.u32, ops.u64
    f32_of_bits, load_16, quad = ops.f32_of_bits, ops.load_16, make_quad(ops)
    exp2, add_f32, mul_f32 = ops.exp2, ops.add_f32, ops.mul_f32
    shuffle_xor_f32, warp_sum = ops.shuffle_xor_f32, _warp_sum(ops)
    shared_f32, shared_u32 = ops.shared_f32, ops.shared_u32
    store_shared_f32, store_shared_u32 = ops.store_shared_f32, ops.store_shared_u32
    WARPS, NUM_WARPS, STEP = layout.warps, layout.threads // 32, layout.threads * 4
    LOWEST, ONE = NEGATIVE, MASS_ONE

    @ops.device
    def largest(source, base, end, thread):  # type: ignore[no-untyped-def]
        best = f32(LOWEST)
        i = thread * 4
        # four loads under way: 64 KB for 1024 threads, about what one multiprocessor's share of the bandwidth needs
        while i + 3 * STEP + 4 <= end:
            a = load_16(source, base + i)
            b = load_16(source, base + i + STEP)
            c = load_16(source, base + i + 2 * STEP)
            d = load_16(source, base + i + 3 * STEP)
            for e in range(4):
                left = max(f32_of_bits(a[e]), f32_of_bits(b[e]))
                best = max(best, max(left, max(f32_of_bits(c[e]), f32_of_bits(d[e]))))
            i += 4 * STEP
        while i < end:
            a = quad(source, base, i, end)
            for e in range(4):
                best = max(best, f32_of_bits(a[e]))
            i += STEP
        return best

    @ops.device
    def block_max(shared, x, thread):  # type: ignore[no-untyped-def]
        for distance in (16, 8, 4, 2, 1):
            x = max(x, shuffle_xor_f32(x, distance))
        if thread & 31 == 0:
            store_shared_f32(shared, WARPS + (thread >> 5) * 16, x)
        cuda.syncthreads()
        if thread & 31 < NUM_WARPS:
            x = shared_f32(shared, WARPS + (thread & 31) * 16)
        for distance in (16, 8, 4, 2, 1):
            x = max(x, shuffle_xor_f32(x, distance))
        cuda.syncthreads()  # the next reduction may write at once
        return x

    @ops.device
    def block_sum(shared, value, thread):  # type: ignore[no-untyped-def]
        value = warp_sum(value)
        if thread & 31 == 0:
            store_shared_u32(shared, WARPS + (thread >> 5) * 16, u32(value))
            store_shared_u32(shared, WARPS + (thread >> 5) * 16 + 4, u32(value >> u64(32)))
        cuda.syncthreads()
        low, high = u32(0), u32(0)
        if thread & 31 < NUM_WARPS:
            low = shared_u32(shared, WARPS + (thread & 31) * 16)
            high = shared_u32(shared, WARPS + (thread & 31) * 16 + 4)
        cuda.syncthreads()
        return warp_sum(u64((u64(high) << u64(32)) | u64(low)))

    @ops.device
    def mass(x, top, scale):  # type: ignore[no-untyped-def]
        # rounded as written wherever it is inlined: the sums of different passes are compared with each other
        return u64(exp2(mul_f32(add_f32(x, -top), scale)) * f32(ONE))

    return RowTools(quad, largest, block_max, block_sum, mass)


@dataclass(frozen=True, slots=True)
class HistogramTools:
    """Device functions on the bins, which run from the largest values to the smallest.

    clear(shared, thread) · add(shared, bin, weight u64) · pick(shared, need u64, thread) → (the first bin at which the sum from bin 0
    on reaches `need`, the sum before it), or (NO_BIN, 0).
    """

    clear: Callable[..., Any]
    add: Callable[..., Any]
    pick: Callable[..., Any]


def _histogram_tools(ops: Any, layout: Layout) -> HistogramTools:
    cuda, u32, u64 = ops.cuda, ops.u32, ops.u64
    add_u32, warp_max_u32, shuffle_u32 = ops.add_u32, ops.warp_max_u32, ops.shuffle_u32
    shuffle_up_u32, warp_sum = ops.shuffle_up_u32, _warp_sum(ops)
    shared_u32, shared_add, store_shared_u32 = ops.shared_u32, ops.shared_add, ops.store_shared_u32
    store_shared_16 = ops.store_shared_16
    HIGH, GROUPS, RESULT, THREADS = layout.bins * 4, layout.groups, layout.result, layout.threads
    BINS, NUM_GROUPS, NONE = layout.bins, layout.bins // 32, NO_BIN

    @ops.device
    def clear(shared, thread):  # type: ignore[no-untyped-def]
        at = thread * 16
        while at < BINS * 8:
            store_shared_16(shared, at, (u32(0), u32(0), u32(0), u32(0)))
            at += THREADS * 16

    @ops.device
    def add(shared, place, weight):  # type: ignore[no-untyped-def]
        low, high = u32(weight), u32(weight >> u64(32))
        if low != u32(0):  # the mass of most of a row's tail is 0, and all of it falls into one bin
            before = shared_add(shared, place * 4, low)
            if add_u32(before, low) < low:
                high = add_u32(high, u32(1))
        if high != u32(0):
            shared_add(shared, HIGH + place * 4, high)

    @ops.device
    def read_sum(shared, low_at, high_at):  # type: ignore[no-untyped-def]
        return u64((u64(shared_u32(shared, high_at)) << u64(32)) | u64(shared_u32(shared, low_at)))

    @ops.device
    def running_sum(value, lane):  # type: ignore[no-untyped-def]
        for distance in (1, 2, 4, 8, 16):
            low = shuffle_up_u32(u32(value), distance)
            high = shuffle_up_u32(u32(value >> u64(32)), distance)
            if lane >= distance:
                value = u64(value + ((u64(high) << u64(32)) | u64(low)))
        return value

    @ops.device
    def pick_in_group(shared, need, group, before, lane):  # type: ignore[no-untyped-def]
        place = group * 32 + lane
        own = read_sum(shared, place * 4, HIGH + place * 4)
        upto = u64(before + running_sum(own, lane))
        first = warp_max_u32(u32(32 - lane) if upto >= need else u32(0))
        if u32(32 - lane) == first:
            store_shared_u32(shared, RESULT, u32(place))
            store_shared_u32(shared, RESULT + 4, u32(upto - own))
            store_shared_u32(shared, RESULT + 8, u32((upto - own) >> u64(32)))

    @ops.device
    def pick(shared, need, thread):  # type: ignore[no-untyped-def]
        lane = thread & 31
        group = thread >> 5
        while group < NUM_GROUPS:
            place = group * 32 + lane
            value = warp_sum(read_sum(shared, place * 4, HIGH + place * 4))
            if lane == 0:
                store_shared_u32(shared, GROUPS + group * 8, u32(value))
                store_shared_u32(shared, GROUPS + group * 8 + 4, u32(value >> u64(32)))
            group += THREADS >> 5
        cuda.syncthreads()
        if thread < 32:  # two groups to a lane
            one, two = u64(0), u64(0)
            if 2 * lane < NUM_GROUPS:
                one = read_sum(shared, GROUPS + lane * 16, GROUPS + lane * 16 + 4)
                two = read_sum(shared, GROUPS + lane * 16 + 8, GROUPS + lane * 16 + 12)
            upto = running_sum(u64(one + two), lane)
            first = warp_max_u32(u32(32 - lane) if upto >= need else u32(0))
            if first == u32(0):
                if lane == 0:
                    store_shared_u32(shared, RESULT, u32(NONE))
                    store_shared_u32(shared, RESULT + 4, u32(0))
                    store_shared_u32(shared, RESULT + 8, u32(0))
            else:
                before = u64(upto - one - two)
                second = u32(1) if u64(before + one) < need else u32(0)
                if second == u32(1):
                    before = u64(before + one)
                source = 32 - first
                low, high = shuffle_u32(u32(before), source), shuffle_u32(u32(before >> u64(32)), source)
                group = 2 * source + shuffle_u32(second, source)
                pick_in_group(shared, need, group, u64((u64(high) << u64(32)) | u64(low)), lane)
        cuda.syncthreads()
        # no barrier behind this: the result is written again only after two more
        return shared_u32(shared, RESULT), read_sum(shared, RESULT + 4, RESULT + 8)

    return HistogramTools(clear, add, pick)


@dataclass(frozen=True, slots=True)
class Selection:
    """Device functions of one block on one row; those of RowTools are described there. All threads call them.

    begin(shared, thread): no candidates · collect(shared, source, base, end, bound, limit, weigh, floor, top, scale, thread) → u64:
    appends every x >= bound with its token to the candidates, of those that equal `bound` only tokens below `limit`; returns this
    thread's share of the mass of all x >= floor if `weigh` · gathered(shared) → how many there are; more than `capacity`: some were
    dropped · refine(shared, source, base, NO_BIN, n, floor, need, by_mass, top, scale, thread) → the largest t such that the candidates
    >= t and >= floor weigh at least `need`, or NEGATIVE · select_row(shared, source, base, end, floor, need, by_mass, top, scale, thread)
    → the same for a whole row: one pass into bins by log2 of the probability, one that gathers the bin where `need` is reached, and
    more passes only if that bin holds more than `capacity` tokens; the candidates are lost · target(total, p) → total * p / 2^32, at
    least 1.
    """

    rows: RowTools
    begin: Callable[..., Any]
    collect: Callable[..., Any]
    gathered: Callable[..., Any]
    refine: Callable[..., Any]
    select_row: Callable[..., Any]
    target: Callable[..., Any]


def _keys(ops: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """float → u32 of the same order, and back. Both zeros are one key."""
    u32, bits_of_f32, f32_of_bits = ops.u32, ops.bits_of_f32, ops.f32_of_bits

    @ops.device
    def key_of(x):  # type: ignore[no-untyped-def]
        bits = bits_of_f32(x)
        if bits == u32(0x80000000):
            bits = u32(0)
        return u32(bits ^ (u32(0xFFFFFFFF) if bits & u32(0x80000000) else u32(0x80000000)))

    @ops.device
    def float_of(key):  # type: ignore[no-untyped-def]
        return f32_of_bits(u32(key ^ (u32(0x80000000) if key & u32(0x80000000) else u32(0xFFFFFFFF))))

    return key_of, float_of


def _refine(ops: Any, layout: Layout, histogram: HistogramTools, rows: RowTools) -> Callable[..., Any]:
    """The radix rounds, over the candidates or (chosen != NO_BIN) over those of a row's floats that fall into a bin of select_row.

    One text for both, and loops instead of unrolled rounds: cold instructions cost more here than the branches.
    """
    cuda, f32, u32, u64, shared_f32 = ops.cuda, ops.f32, ops.u32, ops.u64, ops.shared_f32
    key_of, float_of = _keys(ops)
    clear, add, pick, mass = histogram.clear, histogram.add, histogram.pick, rows.mass
    spread = _spread(ops, layout)
    THREADS, DIGIT, CANDIDATES = layout.threads, layout.digit_bits, layout.candidates
    NONE, LOWEST = NO_BIN, NEGATIVE

    @ops.device
    def refine(shared, source, base, chosen, n, floor, need, by_mass, top, scale, thread):  # type: ignore[no-untyped-def]
        prefix, known, shift = u32(0), u32(0), 32
        while shift > 0:
            bits = min(DIGIT, shift)
            shift -= bits
            digits = u32((1 << bits) - 1)
            clear(shared, thread)
            cuda.syncthreads()
            i = thread
            while i < n:
                if chosen == u32(NONE):
                    x = shared_f32(shared, CANDIDATES + i * 4)
                    counts = x >= floor
                else:
                    x = max(source[base + i], f32(LOWEST))
                    counts = x >= floor and spread(x, top, scale) == chosen
                key = key_of(x)
                if counts and u32(key & known) == prefix:
                    weight = mass(x, top, scale) if by_mass else u64(1)
                    add(shared, u32(digits - u32(u32(key >> u32(shift)) & digits)), weight)
                i += THREADS
            cuda.syncthreads()
            found, before = pick(shared, need, thread)
            if found == u32(NONE):
                return f32(LOWEST)
            prefix = u32(prefix | u32(u32(digits - found) << u32(shift)))
            known = u32(known | u32(digits << u32(shift)))
            need = u64(need - before)
        return float_of(prefix)

    return refine


def _spread(ops: Any, layout: Layout) -> Callable[..., Any]:
    """Bin of a float by its distance from the largest in log2 of the probability: 64 in all, the last bin takes the rest."""
    f32, u32, add_f32, mul_f32 = ops.f32, ops.u32, ops.add_f32, ops.mul_f32
    PER_BIN, LAST = layout.bins / 64.0, float(layout.bins - 1)

    @ops.device
    def spread(x, top, scale):  # type: ignore[no-untyped-def]
        return u32(min(mul_f32(mul_f32(add_f32(top, -x), scale), f32(PER_BIN)), f32(LAST)))

    return spread


def make_selection(ops: Any, layout: Layout) -> Selection:
    """The device functions for one launch shape."""
    cuda, f32, u32, u64, f32_of_bits = ops.cuda, ops.f32, ops.u32, ops.u64, ops.f32_of_bits
    shared_u32, shared_add = ops.shared_u32, ops.shared_add
    store_shared_u32, store_shared_f32 = ops.store_shared_u32, ops.store_shared_f32
    rows, histogram = _row_tools(ops, layout), _histogram_tools(ops, layout)
    quad, mass, spread = rows.quad, rows.mass, _spread(ops, layout)
    clear, add, pick = histogram.clear, histogram.add, histogram.pick
    refine = _refine(ops, layout, histogram, rows)
    COUNTER, CANDIDATES, TOKENS, CAPACITY = layout.counter, layout.candidates, layout.tokens, layout.capacity
    STEP, NONE, LOWEST = layout.threads * 4, NO_BIN, NEGATIVE

    @ops.device
    def begin(shared, thread):  # type: ignore[no-untyped-def]
        cuda.syncthreads()  # the candidates and the counter have been read
        if thread == 0:
            store_shared_u32(shared, COUNTER, u32(0))
        cuda.syncthreads()

    @ops.device
    def append(shared, x, token):  # type: ignore[no-untyped-def]
        # looked at before it is counted: a row of equal logits would otherwise queue 152k adds to one address
        if shared_u32(shared, COUNTER) <= u32(CAPACITY):
            place = shared_add(shared, COUNTER, u32(1))
            if place < u32(CAPACITY):
                store_shared_f32(shared, CANDIDATES + place * 4, x)
                store_shared_u32(shared, TOKENS + place * 4, u32(token))

    @ops.device
    def gathered(shared):  # type: ignore[no-untyped-def]
        cuda.syncthreads()
        return shared_u32(shared, COUNTER)

    @ops.device
    def collect(shared, source, base, end, bound, limit, weigh, floor, top, scale, thread):  # type: ignore[no-untyped-def]
        total = u64(0)
        i = thread * 4
        words = quad(source, base, i, end)
        while i < end:
            ahead = quad(source, base, i + STEP, end)  # under way while this one is looked at
            left = max(f32_of_bits(words[0]), f32_of_bits(words[1]))
            right = max(f32_of_bits(words[2]), f32_of_bits(words[3]))
            if weigh or max(left, right) >= bound or bound == f32(LOWEST):
                for e in range(4):
                    x = max(f32_of_bits(words[e]), f32(LOWEST))
                    if x >= bound and i + e < end and (x > bound or i + e < limit):
                        append(shared, x, i + e)
                    if weigh and x >= floor:
                        total = u64(total + mass(x, top, scale))
            words = ahead
            i += STEP
        return total

    @ops.device
    def select_row(shared, source, base, end, floor, need, by_mass, top, scale, thread):  # type: ignore[no-untyped-def]
        clear(shared, thread)
        begin(shared, thread)
        i = thread * 4
        while i < end:
            words = quad(source, base, i, end)
            for e in range(4):
                x = max(f32_of_bits(words[e]), f32(LOWEST))
                if x >= floor and i + e < end:
                    add(shared, spread(x, top, scale), mass(x, top, scale) if by_mass else u64(1))
            i += STEP
        cuda.syncthreads()
        found, before = pick(shared, need, thread)
        if found == u32(NONE):
            return f32(LOWEST)
        i = thread * 4
        while i < end:
            words = quad(source, base, i, end)
            for e in range(4):
                x = max(f32_of_bits(words[e]), f32(LOWEST))
                if x >= floor and i + e < end and spread(x, top, scale) == found:
                    append(shared, x, i + e)
            i += STEP
        n = gathered(shared)
        need = u64(need - before)
        size = end
        if n <= u32(CAPACITY):
            found, size = u32(NONE), n
        return refine(shared, source, base, found, size, floor, need, by_mass, top, scale, thread)

    @ops.device
    def target(total, p):  # type: ignore[no-untyped-def]
        # the mass of V tokens is below 2^63: its high word times p fits 64 bits
        part = u64((total & u64(0xFFFFFFFF)) * u64(p)) >> u64(32)
        return max(u64(1), u64((total >> u64(32)) * u64(p) + part))

    return Selection(rows, begin, collect, gathered, refine, select_row, target)
