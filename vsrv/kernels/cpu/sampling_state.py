"""Sampling parameters and counts by slot, in the arrays that `sampling.py` reads. Owned by the engine thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vsrv.kernels.cpu import sampling
from vsrv.messages import SamplingParams


class CpuSamplingState:
    """Arrays are np.zeros of their full size: pages that no sequence touches take no memory."""

    def __init__(self, max_slots: int, vocab_size: int) -> None:
        words = (vocab_size + 31) // 32
        self.vocab_size = vocab_size
        self.floats = np.zeros((max_slots, sampling.NUM_FLOATS), np.float32)
        self.integers = np.zeros((max_slots, sampling.NUM_INTEGERS), np.int64)
        self.counts = np.zeros((max_slots, vocab_size), np.int32)
        self.prompt_seen = np.zeros((max_slots, vocab_size), np.uint32)
        self.bias_ids = np.zeros((max_slots, sampling.MAX_BIAS), np.int32)
        self.bias_values = np.zeros((max_slots, sampling.MAX_BIAS), np.float32)
        self.stops = np.zeros((max_slots, sampling.MAX_STOPS), np.int32)
        self.allowed = np.zeros((max_slots, words), np.uint32)
        self.bad_words = np.zeros((max_slots, sampling.MAX_BAD_WORDS), np.int32)
        self.tail = np.zeros((max_slots, sampling.TAIL), np.int32)
        self.last_token = np.zeros(max_slots, np.int32)
        self._counted = np.zeros(max_slots, bool)
        arrays = (
            self.floats,
            self.integers,
            self.counts,
            self.prompt_seen,
            self.bias_ids,
            self.bias_values,
            self.stops,
            self.allowed,
            self.bad_words,
            self.tail,
            self.last_token,
        )
        self.addresses = [array.ctypes.data for array in arrays]

    def assign(
        self,
        slot: int,
        params: SamplingParams,
        seed: int,
        prompt_ids: Sequence[int],
        output_ids: Sequence[int],
    ) -> None:
        """Load a sequence into `slot`. Raises ValueError when a list is longer than the arrays hold (checked by the front)."""
        stops = (*params.stop_token_ids, *(() if params.eos_token_id is None else (params.eos_token_id,)))
        words = [item for word in params.bad_words for item in (len(word), *word)]
        if (
            len(stops) > sampling.MAX_STOPS
            or len(words) > sampling.MAX_BAD_WORDS
            or len(params.logit_bias) > sampling.MAX_BIAS
        ):
            raise ValueError("more stop tokens, bad words or biases than a slot holds")
        self.floats[slot, :6] = (
            params.temperature,
            params.top_p,
            params.min_p,
            params.repetition_penalty,
            params.frequency_penalty,
            params.presence_penalty,
        )
        penalised = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty) != (
            1.0,
            0.0,
            0.0,
        )
        self.integers[slot, :9] = (
            params.top_k,
            np.uint64(seed & (2**64 - 1)).astype(np.int64),
            params.min_tokens,
            len(output_ids),
            len(params.logit_bias),
            bool(params.allowed_token_ids),
            len(words),
            len(stops),
            penalised,
        )
        self.stops[slot, : len(stops)] = stops
        self.bad_words[slot, : len(words)] = words
        for i, (token, bias) in enumerate(params.logit_bias):
            self.bias_ids[slot, i], self.bias_values[slot, i] = token, bias
        if params.allowed_token_ids:
            ids = np.asarray(params.allowed_token_ids, np.int64)
            self.allowed[slot] = 0
            np.bitwise_or.at(self.allowed[slot], ids // 32, (1 << (ids % 32)).astype(np.uint32))
        for i in range(max(0, len(output_ids) - sampling.TAIL), len(output_ids)):
            self.tail[slot, i % sampling.TAIL] = output_ids[i]
        if output_ids:
            self.last_token[slot] = output_ids[-1]
        if penalised or self._counted[slot]:
            self._count(slot, penalised, prompt_ids, output_ids)

    def release(self, slot: int) -> None:
        """Nothing of the sequence may reach the next owner of the slot; `assign` writes every field again."""
        self.integers[slot] = 0
        self.floats[slot] = 0

    def _count(
        self, slot: int, penalised: bool, prompt_ids: Sequence[int], output_ids: Sequence[int]
    ) -> None:
        if self._counted[slot]:
            self.counts[slot] = 0
            self.prompt_seen[slot] = 0
        self._counted[slot] = penalised
        if penalised:
            self.prompt_seen[slot, np.asarray(prompt_ids, np.int64)] = 1
            np.add.at(self.counts[slot], np.asarray(output_ids, np.int64), 1)


def check_slots(state: Any, slots: Any) -> None:
    """Slots beyond the arrays would write into foreign memory; cheap enough for every call."""
    if int(slots.max()) >= state.floats.shape[0] or int(slots.min()) < 0:
        raise ValueError("sampling slot out of range")
