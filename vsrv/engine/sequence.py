"""One stream of tokens and its place in the engine. Mutable; owned by the engine thread."""

from __future__ import annotations

import enum
from array import array
from dataclasses import dataclass, field
from typing import Any

from vsrv.messages import FinishReason, Generate, LogProbs, SamplingParams


class SequenceStatus(enum.Enum):
    COMPILING = "compiling"  # its grammar; not in the scheduler's hands yet
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """`token_ids` holds the prompt and the confirmed output. `num_computed_tokens` counts tokens whose K and V are in the cache or
    in the step in flight; `num_in_flight` tokens are sampled but not read back yet (0 or 1), so their ids are on the device only.
    """

    seq_id: int
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    cache_salt: str
    adapter_id: str
    priority: int
    arrival: int
    seed: int
    status: SequenceStatus = SequenceStatus.WAITING
    slot: int = -1  # row of the sampling state, -1 while waiting
    assigned_slot: int = -1  # the slot that holds this sequence's parameters
    block_table: array[int] = field(default_factory=lambda: array("i"))
    block_hashes: list[bytes] = field(default_factory=list)
    num_computed_tokens: int = 0
    num_in_flight: int = 0
    num_cached_tokens: int | None = None
    num_registered_blocks: int = 0
    finish_reason: FinishReason = FinishReason.NONE
    last_step: int = 0  # the newest step that works on this sequence's blocks
    reported: bool = False  # the first output has been sent
    prompt_logprobs: list[LogProbs] = field(default_factory=list)
    num_prompt_logprobs: int = 0  # rows that are there or on their way from the device
    num_preemptions: int = 0
    matcher: Any = (
        None  # llguidance.LLMatcher that has consumed the confirmed output, of sequences with a grammar
    )
    stop_ids: frozenset[int] = frozenset()  # whatever ends it: EOS unless ignored, and its stop tokens

    @classmethod
    def of(cls, frame: Generate, arrival: int, seed: int) -> Sequence:
        ids, params = frame.prompt_token_ids.tolist(), frame.params
        eos = () if params.eos_token_id is None or params.ignore_eos else (params.eos_token_id,)
        return cls(
            frame.seq_id,
            ids,
            len(ids),
            params,
            frame.cache_salt,
            frame.adapter_id,
            frame.priority,
            arrival,
            seed,
            stop_ids=frozenset((*eos, *params.stop_token_ids)),
        )

    @property
    def num_output_tokens(self) -> int:
        """Confirmed ones."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_scheduled_tokens(self) -> int:
        """Length including the token that is still on the device."""
        return len(self.token_ids) + self.num_in_flight

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    def stop_after(self, token: int, max_model_len: int) -> tuple[FinishReason, int | None]:
        """The reason to end after `token` was appended, and the stop token to report (EOS reports none)."""
        params = self.params
        if token == params.eos_token_id and not params.ignore_eos:
            return FinishReason.STOP, None
        if token in params.stop_token_ids:
            return FinishReason.STOP, token
        if self.num_output_tokens >= params.max_tokens or len(self.token_ids) >= max_model_len:
            return FinishReason.LENGTH, None
        return FinishReason.NONE, None

    def is_banned(self, token: int) -> bool:
        """Whether `token`, the newest one, is one that the parameters had masked: it was sampled for want of any other."""
        params, length = self.params, self.num_output_tokens
        if params.allowed_token_ids and token not in params.allowed_token_ids:
            return True
        if length <= params.min_tokens and token in self.stop_ids:
            return True
        return any(
            len(word) <= length and tuple(self.token_ids[-len(word) :]) == word for word in params.bad_words
        )


def merge_logprobs(parts: list[LogProbs]) -> LogProbs | None:
    """Rows of several steps as one; all have the same k."""
    if not parts:
        return None
    ids, values, ranks = array("I"), array("f"), array("I")
    for part in parts:
        ids += part.token_ids
        values += part.values
        ranks += part.ranks
    return LogProbs(parts[0].k, ids, values, ranks)
