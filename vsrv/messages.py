"""What the front process and the engine process tell each other: typed frames. Their byte form is in `frames`.

Every Generate gets exactly one end: a `TokenOutput` with a `finish_reason`, a `Failed`, or the end of the socket.
Every Embed likewise: a `Pooled`, a `Failed`, or after an Abort a `TokenOutput` that says so.
Sequence ids are never reused within one engine process. Floor 0: standard library only.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class FinishReason(enum.IntEnum):
    """Why a sequence ended; NONE while it runs. STOP covers EOS, stop token ids and (in the front) stop strings."""

    NONE = 0
    STOP = 1
    LENGTH = 2
    ABORT = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens for one sequence; checked by the front against `Ready`, checked again by the engine.

    temperature 0 is greedy. top_k 0, top_p 1, min_p 0, penalties 0/0/1 are off. `logprobs` k >= 0 asks for the chosen
    token and the k best, None for none; `prompt_logprobs` likewise for the prompt. `seed` is the stream's own seed
    (choice i of a request with seed s gets s + i); None lets the engine draw one. `eos_token_id` ends with stop token
    None, ids of `stop_token_ids` report themselves. `bad_words` and `stop_token_ids` are token ids, never text.
    `grammar` is what the output must follow, in llguidance's own forms (Lark text, or its JSON); empty for free text.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    eos_token_id: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: str = ""


# What a grammar may cost, by the names of llguidance.LLParserLimits: the front checks with these, the engine builds with the same.
# Fuel counts expressions that the lexer makes: 100,000 take about 0.1 s.
GRAMMAR_LIMITS: Mapping[str, Any] = {
    "max_grammar_size": 200_000,
    "max_lexer_states": 50_000,
    "max_items_in_row": 2_000,
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 50_000,
}


@dataclass(frozen=True, slots=True)
class Hello:
    config: dict[str, Any]  # asdict(EngineConfig)


@dataclass(frozen=True, slots=True)
class Loading:
    phase: str  # "import", "weights", "kernels", "cache", "warmup"
    fraction: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """Facts that the front checks requests against. `budget` holds the lines of the memory table shown at start."""

    vocab_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    max_logprobs: int
    dtype: str
    device: str
    architecture: str
    tasks: tuple[str, ...] = ("generate",)  # or ("embed",) or ("score",)
    budget: tuple[str, ...] = ()
    embedding_size: int = 0
    is_matryoshka: bool = (
        False  # vectors may be shortened: to the lengths of `matryoshka`, or to any if it has none
    )
    matryoshka: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Generate:
    """One stream of tokens to be produced. A request with n = 3 sends three, with the same prompt.

    `cache_salt` is derived from the tenant by the front and enters the first block hash (rule R21); `adapter_id` too.
    """

    seq_id: int
    prompt_token_ids: array[int]  # typecode "I"
    params: SamplingParams
    cache_salt: str = ""
    adapter_id: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Embed:
    """One sequence of which one vector is wanted: an embedding, or a cross-encoder's scores.

    Token types are 0, and 1 from index `second_from` on (the second text of a pair). `dimensions` 0 is the whole vector. `raw` asks for it
    without the model's last step, which normalises an embedding and bounds a score.
    """

    seq_id: int
    token_ids: array[int]  # typecode "I"
    second_from: int
    dimensions: int = 0
    raw: bool = False
    cache_salt: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Pooled:
    """The end of an Embed: its vector, float32."""

    seq_id: int
    values: array[float]  # typecode "f"


@dataclass(frozen=True, slots=True)
class Abort:
    seq_id: int


@dataclass(frozen=True, slots=True)
class LogProbs:
    """Log probabilities of m positions, k + 1 columns each: column 0 is the token itself, then the k best, sorted.

    token_ids [m*(k+1)] u32 · values [m*(k+1)] f32 · ranks [m] u32 (1 = most likely).
    """

    k: int
    token_ids: array[int]
    values: array[float]
    ranks: array[int]

    @property
    def num_positions(self) -> int:
        return len(self.ranks)


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """What one step (or several coalesced ones) gave to a sequence.

    `num_cached_tokens` is set on the first output. `prompt_logprobs` covers prompt positions 1…P-1 and comes with the
    first output only. A finished sequence may carry no token (abort).
    """

    seq_id: int
    token_ids: array[int]
    finish_reason: FinishReason = FinishReason.NONE
    stop_token_id: int | None = None
    num_cached_tokens: int | None = None
    logprobs: LogProbs | None = None
    prompt_logprobs: LogProbs | None = None


@dataclass(frozen=True, slots=True)
class Step:
    outputs: tuple[TokenOutput, ...]


ITERATION_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)  # vLLM's


@dataclass(frozen=True, slots=True)
class Beat:
    """Engine heartbeat, at least every 0.5 s while alive and after every step that changes the queues.

    `step` grows by one per finished step: queued work without growth is a stall. Counters are totals since start; `iteration_tokens`
    counts steps by their tokens: at most ITERATION_BUCKETS[i], and at the end those with more.
    """

    step: int
    num_running: int
    num_waiting: int
    kv_usage: float  # 0..1
    counters: dict[str, float] = field(default_factory=dict)
    iteration_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    seq_id: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Stop:
    pass


Frame = Hello | Loading | Ready | Generate | Embed | Abort | Step | Pooled | Beat | Failed | Stop
