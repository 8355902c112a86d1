"""Sampling parameters and counts by slot in device memory, in the layout that `sampling.py` reads. Owned by the engine thread.

All small fields of a slot lie in one row of 384 bytes, so that most sequences cost one upload; lists are uploaded only where a
sequence has them, and the row says which of them count: what a former owner left in a list is never read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vsrv.kernels.cuda.device import Device
from vsrv.messages import SamplingParams

MAX_BIAS, MAX_STOPS, MAX_BAD_WORDS, TAIL = 1024, 128, 2048, 64

# Words of a slot's row. f32: INVERSE = 1 / temperature (0 is greedy), MARGIN = how far below the best min-p still keeps a logit,
# penalties. u32: TOP_P = p * 2^32 (0 = off), the others; FLAGS below. From RECENT on: the newest TAIL tokens, token n at n % TAIL.
INVERSE, MARGIN, REPETITION, INVERSE_REPETITION, FREQUENCY, PRESENCE = range(6)
TOP_P, TOP_K, SEED_LOW, SEED_HIGH, GENERATED, MIN_TOKENS, NUM_STOPS, NUM_BIAS, NUM_BAD_WORDS, FLAGS = range(
    6, 16
)
RECENT, SLOT_WORDS = 32, 32 + TAIL
# ADJUSTED: the raw logits are not what is sampled from, also once MIN_TOKENS are there. ALLOWED: the slot's bitmask counts.
# COUNTED: penalties. FILTERED: min-p, top-k or top-p.
ADJUSTED, ALLOWED, COUNTED, FILTERED = 1, 2, 4, 8
MAX_INVERSE = 1e20  # logits times this stay finite; only equal logits are still near enough for noise to choose between them
IN_PROMPT = 1 << 31  # of a word of `counts`; the other bits count the token in the output

# Words of a slot's lists: ids and values of logit_bias, stop tokens, runs of (n, id 0 … id n-1) and where each of them starts
BIAS_IDS, BIAS_VALUES, STOPS = 0, MAX_BIAS, 2 * MAX_BIAS
BAD_WORDS = STOPS + MAX_STOPS
BAD_WORD_STARTS = BAD_WORDS + MAX_BAD_WORDS
LIST_WORDS = BAD_WORD_STARTS + MAX_BAD_WORDS // 2


class CudaSamplingState:
    """slots u32 [S, SLOT_WORDS] · lists u32 [S, LIST_WORDS] · allowed u32 [S, ceil(V/32)] · counts u32 [S, V up to a multiple of 4] · last_token i32 [S].

    Kernels write GENERATED and RECENT of a slot's row, `counts` and `last_token`; everything else only `assign` does.
    """

    def __init__(self, device: Device, max_slots: int, vocab_size: int) -> None:
        self.max_slots, self.vocab_size = max_slots, vocab_size
        self.slots = device.zeros((max_slots, SLOT_WORDS), "int32")
        self.lists = device.zeros((max_slots, LIST_WORDS), "int32")
        self.allowed = device.zeros((max_slots, (vocab_size + 31) // 32), "int32")
        self.counts = device.zeros((max_slots, -(-vocab_size // 4) * 4), "int32")
        self.last_token = device.zeros((max_slots,), "int32")
        self._device = device
        self._adjusted: set[int] = set()

    @property
    def has_adjusted(self) -> bool:
        """Whether the logits of some slot need masks, bias or penalties before they are sampled from."""
        return bool(self._adjusted)

    def assign(
        self,
        slot: int,
        params: SamplingParams,
        seed: int,
        prompt_ids: Sequence[int],
        output_ids: Sequence[int],
    ) -> None:
        """Load a sequence into `slot`. Raises ValueError when a list is longer than a slot holds (checked by the front)."""
        if not 0 <= slot < self.max_slots:
            raise ValueError("sampling slot out of range")
        stops = (*params.stop_token_ids, *(() if params.eos_token_id is None else (params.eos_token_id,)))
        words = [item for word in params.bad_words for item in (len(word), *word)]
        bias: dict[int, float] = {}
        for token, value in params.logit_bias:
            bias[token] = bias.get(token, 0.0) + value  # a kernel adds to different tokens in any order
        if (
            len(stops) > MAX_STOPS
            or len(words) > MAX_BAD_WORDS
            or len(bias) > MAX_BIAS
            or any(len(word) > TAIL + 1 for word in params.bad_words)
        ):
            raise ValueError("more stop tokens, bad words or biases than a slot holds")
        flags = _flags(params)
        min_tokens = params.min_tokens if stops else 0
        row = _row(params, seed, output_ids)
        row[[MIN_TOKENS, FLAGS]] = max(0, min_tokens), flags
        row[[NUM_STOPS, NUM_BIAS, NUM_BAD_WORDS]] = len(stops), len(bias), len(params.bad_words)
        self._device.upload(self.slots[slot], row)
        self._upload_lists(slot, params, stops, words, bias)
        if output_ids:
            self._device.upload(self.last_token[slot : slot + 1], np.array(output_ids[-1:], np.int32))
        if flags & COUNTED:
            counts = np.bincount(np.asarray(output_ids, np.int64), minlength=self.vocab_size).astype(
                np.uint32
            )
            counts[np.asarray(prompt_ids, np.int64)] |= IN_PROMPT
            self._device.upload(self.counts[slot, : self.vocab_size], counts)
        adjusted = flags & ADJUSTED or len(output_ids) < min_tokens
        (self._adjusted.add if adjusted else self._adjusted.discard)(slot)

    def release(self, slot: int) -> None:
        """The slot's row stays as it is, for a step that may still be in flight; `assign` writes every word of it again."""
        self._adjusted.discard(slot)

    def _upload_lists(
        self,
        slot: int,
        params: SamplingParams,
        stops: Sequence[int],
        words: Sequence[int],
        bias: dict[int, float],
    ) -> None:
        lists = self.lists[slot]
        if bias:
            ids, values = np.array(list(bias), np.int32), np.array(list(bias.values()), np.float32)
            self._device.upload(lists[BIAS_IDS : BIAS_IDS + len(bias)], ids)
            self._device.upload(lists[BIAS_VALUES : BIAS_VALUES + len(bias)], values)
        if stops and params.min_tokens > 0:
            self._device.upload(lists[STOPS : STOPS + len(stops)], np.array(stops, np.int32))
        if words:
            lengths = [1 + len(word) for word in params.bad_words]
            starts = np.cumsum([0, *lengths[:-1]]).astype(np.int32)
            self._device.upload(lists[BAD_WORDS : BAD_WORDS + len(words)], np.array(words, np.int32))
            self._device.upload(lists[BAD_WORD_STARTS : BAD_WORD_STARTS + len(starts)], starts)
        if params.allowed_token_ids:
            ids = np.asarray(params.allowed_token_ids, np.int64)
            bits = np.zeros((self.vocab_size + 31) // 32, np.uint32)
            np.bitwise_or.at(bits, ids // 32, (1 << (ids % 32)).astype(np.uint32))
            self._device.upload(self.allowed[slot], bits)


def _flags(params: SamplingParams) -> int:
    counted = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty) != (
        1.0,
        0.0,
        0.0,
    )
    adjusted = counted or params.allowed_token_ids or params.bad_words or params.logit_bias
    filtered = params.temperature > 0 and (params.min_p > 0 or params.top_k > 0 or params.top_p < 1)
    return (
        (ADJUSTED if adjusted else 0)
        | (ALLOWED if params.allowed_token_ids else 0)
        | (COUNTED if counted else 0)
        | (FILTERED if filtered else 0)
    )


def _row(params: SamplingParams, seed: int, output_ids: Sequence[int]) -> NDArray[np.uint32]:
    """All words of a slot's row but MIN_TOKENS, FLAGS and the lengths of its lists."""
    row = np.zeros(SLOT_WORDS, np.uint32)
    floats = row.view(np.float32)
    if params.temperature > 0:
        floats[INVERSE] = min(1 / params.temperature, MAX_INVERSE)
    floats[MARGIN] = -params.temperature * math.log(params.min_p) if params.min_p > 0 else 3.0e38
    floats[REPETITION], floats[INVERSE_REPETITION] = params.repetition_penalty, 1 / params.repetition_penalty
    floats[FREQUENCY], floats[PRESENCE] = params.frequency_penalty, params.presence_penalty
    if params.top_p < 1:
        row[TOP_P] = min(max(1, round(params.top_p * 2**32)), 2**32 - 1)
    row[TOP_K] = max(0, params.top_k)
    row[SEED_LOW], row[SEED_HIGH] = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    row[GENERATED] = len(output_ids)
    first = max(0, len(output_ids) - TAIL)
    recent = np.asarray(output_ids[first:], np.int64).astype(np.uint32)
    row[RECENT + np.arange(first, len(output_ids)) % TAIL] = recent
    return row
