"""Choosing tokens: penalties, masks, temperature, min-p, top-k, top-p and Gumbel noise, one row of logits per sequence.

The order is vLLM's runner V1 (documented in kernels/reference.py). Noise is Philox4x32-10 (Salmon et al. 2011) keyed by the
sequence's seed and counted by (tokens generated, token id): it depends on neither the batch nor the slot.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, njit

from vsrv.kernels.cpu.intrinsics import pointer_f32, pointer_i32, pointer_i64, pointer_u32

NEGATIVE = np.float32(-3.0e38)  # a finite "minus infinity": exp of it is 0 and differences stay finite


@njit(nogil=True, cache=True)
def philox(seed, step, quad, words):  # type: ignore[no-untyped-def]
    """Philox4x32-10 with key = seed (64 bits) and counter = (quad, step, 0, 0) → words[0..3], one for each of four tokens."""
    m0, m1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    low, bits = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = np.uint64(seed) & low, np.uint64(seed) >> bits
    c0, c1, c2, c3 = np.uint64(quad), np.uint64(step), np.uint64(0), np.uint64(0)
    for _ in range(10):
        p0, p1 = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (p1 >> bits) ^ c1 ^ k0, p1 & low, (p0 >> bits) ^ c3 ^ k1, p0 & low
        k0 = (k0 + np.uint64(0x9E3779B9)) & low
        k1 = (k1 + np.uint64(0xBB67AE85)) & low
    words[0], words[1], words[2], words[3] = c0, c1, c2, c3


@njit(nogil=True, cache=True)
def _kth_largest(values, n, k):  # type: ignore[no-untyped-def]
    """The k-th largest of values[:n] by quickselect on a copy (expected O(n))."""
    left, right = 0, n - 1
    target = k - 1
    while left < right:
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            right = j
        elif target >= i:
            left = i
        else:
            return values[target]
    return values[left]


# per-slot floats and integers of SamplingState
TEMPERATURE, TOP_P, MIN_P, REPETITION, FREQUENCY, PRESENCE = range(6)
NUM_FLOATS = 8
TOP_K, SEED, MIN_TOKENS, GENERATED, NUM_BIAS, HAS_ALLOWED, BAD_WORDS_LENGTH, NUM_STOPS, COUNTED = range(9)
NUM_INTEGERS = 16
MAX_BIAS, MAX_STOPS, MAX_BAD_WORDS, TAIL = 1024, 128, 2048, 64


@njit(nogil=True, cache=True)
def _argmax(x):  # type: ignore[no-untyped-def]
    best = x[0]
    for i in range(x.shape[0]):
        best = max(best, x[i])
    for i in range(x.shape[0]):
        if x[i] == best:
            return i
    return 0  # only NaNs: the engine checks for them


@njit(nogil=True, cache=True)
def _ban_bad_words(x, words, length, tail, generated):  # type: ignore[no-untyped-def]
    """words: runs of (n, id 0 … id n-1); the last id is banned where the ids before it equal the end of the output."""
    position = 0
    while position < length:
        n = words[position]
        matches = n - 1 <= generated
        for j in range(n - 1):
            if not matches:
                break
            age = n - 1 - j  # 1 = the newest output token
            matches = tail[(generated - age) % TAIL] == words[position + 1 + j]
        if matches:
            x[words[position + n]] = NEGATIVE
        position += n + 1


@njit(nogil=True, cache=True)
def _penalise(x, floats, counts, prompt_seen):  # type: ignore[no-untyped-def]
    repetition, frequency, presence = floats[REPETITION], floats[FREQUENCY], floats[PRESENCE]
    for i in range(x.shape[0]):
        count = counts[i]
        if (count > 0 or prompt_seen[i] != 0) and x[i] != NEGATIVE:
            x[i] = x[i] / repetition if x[i] > 0 else x[i] * repetition
        if count > 0:
            x[i] -= frequency * np.float32(count) + presence


@njit(nogil=True, cache=True)
def _top_p_threshold(x, top, top_p):  # type: ignore[no-untyped-def]
    """Smallest logit that top-p keeps: tokens stay while the mass of strictly larger ones is below top_p.

    Bisection on the logit over the tokens within e^-30 of the best, whose remaining mass is beyond fp32's reach.
    """
    near = np.empty(x.shape[0], np.float32)
    n = 0
    for i in range(x.shape[0]):
        if x[i] > top - np.float32(30.0):
            near[n] = x[i]
            n += 1
    mass = np.empty(n, np.float64)
    total = 0.0
    for i in range(n):
        mass[i] = math.exp(near[i] - top)
        total += mass[i]
    low, high = (
        top - np.float32(30.0),
        top,
    )  # mass above `low` reaches top_p (or nothing is cut); above `high` it is 0
    for _ in range(40):
        middle = low + (high - low) * np.float32(0.5)
        if middle == low or middle == high:
            break
        above = 0.0
        for i in range(n):
            if near[i] > middle:
                above += mass[i]
        if above >= top_p * total:
            low = middle
        else:
            high = middle
    return high


@njit(nogil=True, cache=True)
def _filter(x, floats, top_k):  # type: ignore[no-untyped-def]
    """min-p, then top-k (ties kept), then top-p, on logits that are already divided by the temperature."""
    n = x.shape[0]
    top = x[_argmax(x)]
    if floats[MIN_P] > 0:
        bound = top + np.float32(math.log(floats[MIN_P]))
        for i in range(n):
            if x[i] < bound:
                x[i] = NEGATIVE
    if 0 < top_k < n:
        bound = _kth_largest(x.copy(), n, top_k)
        for i in range(n):
            if x[i] < bound:
                x[i] = NEGATIVE
    if floats[TOP_P] < 1:
        bound = _top_p_threshold(x, top, floats[TOP_P])
        for i in range(n):
            if x[i] < bound:
                x[i] = NEGATIVE


@njit(nogil=True, cache=True)
def _gumbel_argmax(x, seed, step):  # type: ignore[no-untyped-def]
    """argmax of x + Gumbel noise. A token needs logarithms only if its uniform can beat the best so far:
    noise > c implies 1 - u < exp(-c), which is one multiplication with exp(x - max) at hand."""
    n = x.shape[0]
    top = x[_argmax(x)]
    words = np.empty(4, np.uint64)
    best, best_index, scale = -1.0e300, 0, 0.0
    for quad in range((n + 3) // 4):
        alive = False
        for j in range(quad * 4, min(n, quad * 4 + 4)):
            alive = alive or x[j] > top - np.float32(60.0)
        if not alive:
            continue
        philox(seed, step, quad, words)
        for j in range(quad * 4, min(n, quad * 4 + 4)):
            gap = np.float64(x[j] - top)
            if gap < -60.0:
                continue
            v = (np.float64(words[j - quad * 4]) + 0.5) * 2.3283064365386963e-10
            if v * scale < math.exp(gap):
                value = gap - math.log(-math.log1p(-v))
                if value > best:
                    best, best_index, scale = value, j, math.exp(min(value, 600.0))
    return best_index


@njit(nogil=True, cache=True)
def sample(a, tid, team):  # type: ignore[no-untyped-def]
    """a: logits, stride, rows, vocabulary, slots, out ids, mask (0 = none), floats, integers, counts, prompt seen, bias ids,
    bias values, stops, allowed, bad words, tail, last token. Rows are dealt to the members one by one."""
    rows, vocabulary = a[2], a[3]
    words = (vocabulary + 31) // 32
    slots = carray(pointer_i32(a[4]), (rows,))
    out = carray(pointer_i32(a[5]), (rows,))
    for r in range(tid, rows, team):
        logits = carray(pointer_f32(a[0] + r * a[1]), (vocabulary,))
        slot = np.int64(slots[r])
        floats = carray(pointer_f32(a[7] + slot * NUM_FLOATS * 4), (NUM_FLOATS,))
        integers = carray(pointer_i64(a[8] + slot * NUM_INTEGERS * 8), (NUM_INTEGERS,))
        tail = carray(pointer_i32(a[16] + slot * TAIL * 4), (TAIL,))
        generated = integers[GENERATED]
        early = generated < integers[MIN_TOKENS]
        counted = integers[COUNTED] != 0
        plain = (
            a[6] == 0
            and not early
            and not counted
            and integers[NUM_BIAS] == 0
            and integers[HAS_ALLOWED] == 0
            and integers[BAD_WORDS_LENGTH] == 0
        )
        x = logits if plain and floats[TEMPERATURE] == 0 else logits.copy()
        if a[6] != 0:
            allowed = carray(pointer_u32(a[6] + r * words * 4), (words,))
            for i in range(vocabulary):
                if (allowed[i // 32] >> np.uint32(i % 32)) & np.uint32(1) == 0:
                    x[i] = NEGATIVE
        if integers[HAS_ALLOWED] != 0:
            allowed = carray(pointer_u32(a[14] + slot * words * 4), (words,))
            for i in range(vocabulary):
                if (allowed[i // 32] >> np.uint32(i % 32)) & np.uint32(1) == 0:
                    x[i] = NEGATIVE
        if integers[BAD_WORDS_LENGTH] != 0:
            bad = carray(pointer_i32(a[15] + slot * MAX_BAD_WORDS * 4), (MAX_BAD_WORDS,))
            _ban_bad_words(x, bad, integers[BAD_WORDS_LENGTH], tail, generated)
        if early:
            stops = carray(pointer_i32(a[13] + slot * MAX_STOPS * 4), (MAX_STOPS,))
            for i in range(integers[NUM_STOPS]):
                x[stops[i]] = NEGATIVE
        if integers[NUM_BIAS] != 0:
            ids = carray(pointer_i32(a[11] + slot * MAX_BIAS * 4), (MAX_BIAS,))
            values = carray(pointer_f32(a[12] + slot * MAX_BIAS * 4), (MAX_BIAS,))
            for i in range(integers[NUM_BIAS]):
                if x[ids[i]] != NEGATIVE:
                    x[ids[i]] += values[i]
        counts = carray(pointer_i32(a[9] + slot * vocabulary * 4), (vocabulary,))
        if counted:
            seen = carray(pointer_u32(a[10] + slot * vocabulary * 4), (vocabulary,))
            _penalise(x, floats, counts, seen)
        if floats[TEMPERATURE] == 0:
            token = _argmax(x)
        else:
            inverse = np.float32(1) / floats[TEMPERATURE]
            for i in range(vocabulary):
                x[i] = max(x[i] * inverse, NEGATIVE)
            _filter(x, floats, integers[TOP_K])
            token = _gumbel_argmax(x, integers[SEED], generated)
        out[r] = token
        if counted:
            counts[token] += 1
        tail[generated % TAIL] = token
        integers[GENERATED] = generated + 1
        carray(pointer_i32(a[17]), (slot + 1,))[slot] = token


@njit(nogil=True, cache=True)
def logprobs(a, tid, team):  # type: ignore[no-untyped-def]
    """a: logits, stride, rows, vocabulary, chosen, k, out ids, out values, out ranks. log_softmax in float64 sums."""
    rows, vocabulary, k = a[2], a[3], a[5]
    chosen = carray(pointer_i32(a[4]), (rows,))
    ids = carray(pointer_i32(a[6]), (rows, k + 1))
    values = carray(pointer_f32(a[7]), (rows, k + 1))
    ranks = carray(pointer_i32(a[8]), (rows,))
    for r in range(tid, rows, team):
        x = carray(pointer_f32(a[0] + r * a[1]), (vocabulary,))
        top = x[_argmax(x)]
        total = 0.0
        for i in range(vocabulary):
            total += math.exp(np.float64(x[i] - top))
        norm = np.float64(top) + math.log(total)
        own = x[chosen[r]]
        rank = 1
        for i in range(vocabulary):
            if x[i] > own:
                rank += 1
        ids[r, 0], values[r, 0], ranks[r] = chosen[r], np.float32(np.float64(own) - norm), rank
        n = 0
        for i in range(vocabulary):
            if n == k and (k == 0 or x[i] <= x[ids[r, k]]):
                continue
            j = n if n < k else k - 1  # insert among the best, larger first, equal ones by rising id
            while j > 0 and x[ids[r, j]] < x[i]:
                ids[r, j + 1] = ids[r, j]
                j -= 1
            ids[r, j + 1] = i
            n = min(n + 1, k)
        for j in range(1, k + 1):
            values[r, j] = np.float32(np.float64(x[ids[r, j]]) - norm)
