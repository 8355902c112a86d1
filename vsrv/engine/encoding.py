"""EncoderEngine: whole sequences in, one vector for each out. First come first served, as many in a step as its token budget takes.

There is no cache and no decode: a batch runs through the layers once. `step` does so for a fifth of a second at most and goes on at the
next call, so that a long batch delays neither the heartbeat nor an abort. Every Embed gets exactly one end.
"""

from __future__ import annotations

import bisect
import sys
import time
import traceback
from array import array
from collections.abc import Generator
from dataclasses import dataclass

import torch

from vsrv.engine.engine import Output
from vsrv.engine.placement import Placement
from vsrv.messages import ITERATION_BUCKETS, Embed, Failed, FinishReason, Generate, Pooled, TokenOutput
from vsrv.models.bert import LoadedEncoder
from vsrv.models.encoder import pack
from vsrv.models.pooling import Pooler, Wanted

_SLICE_S = 0.2


@dataclass(frozen=True, slots=True)
class EncoderLimits:
    """What a step may hold; `max_num_batched_tokens` is at least `max_model_len`."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int


class Network:
    """An encoder with what makes its hidden states a vector: a pooler, or a classifier and its activation."""

    def __init__(self, loaded: LoadedEncoder, pooler: Pooler | None, score_activation: str | None) -> None:
        self._encoder = loaded.network
        self._classifier = loaded.classifier
        self._pooler = pooler
        self._score_activation = score_activation
        self.spec = loaded.network.spec

    def run(self, jobs: list[Embed]) -> Generator[None, None, list[torch.Tensor]]:
        """Sequences, lengths ascending → one float32 vector on the host for each; yields after every layer."""
        encoder = self._encoder
        packed = pack(
            [(job.token_ids, job.second_from) for job in jobs], self.spec.first_position, encoder.device
        )
        hidden = yield from encoder.forward(packed)
        wanted = [Wanted(job.dimensions, job.raw) for job in jobs]
        if self._pooler is not None:
            return self._pooler.finish(self._pooler.pool(hidden, packed.lengths), wanted)
        return self._scores(hidden, packed.lengths, wanted)

    def _scores(
        self, hidden: torch.Tensor, lengths: tuple[int, ...], wanted: list[Wanted]
    ) -> list[torch.Tensor]:
        assert self._classifier is not None
        counts = torch.tensor(lengths)
        first = hidden.index_select(0, (counts.cumsum(0) - counts).to(hidden.device)).float()
        logits = self._classifier(first).cpu()
        bounded = torch.sigmoid(logits) if self._score_activation == "Sigmoid" else logits
        return [logits[row] if wish.raw else bounded[row] for row, wish in enumerate(wanted)]


class EncoderEngine:
    """Owned by one thread."""

    def __init__(self, network: Network, limits: EncoderLimits, placement: Placement) -> None:
        self._network = network
        self._limits = limits
        self._placement = placement
        self._jobs: dict[int, Embed] = {}  # all that have not ended, in order of arrival
        self._batch: list[Embed] = []
        self._running: Generator[None, None, list[torch.Tensor]] | None = None
        self._outbox: list[Output] = []
        self.reset_statistics()

    def add(self, frame: Generate | Embed) -> None:
        """Queue a sequence. What can never run is answered with Failed by the next step."""
        refusal = self._refusal(frame)
        if refusal is not None:
            self._outbox.append(Failed(frame.seq_id, *refusal))
            return
        assert isinstance(frame, Embed)
        self._jobs[frame.seq_id] = frame
        self.prompt_tokens += len(frame.token_ids)

    def _refusal(self, frame: Generate | Embed) -> tuple[str, str] | None:
        if not isinstance(frame, Embed):
            return "task_not_supported", "this model generates no text"
        length, vocabulary = len(frame.token_ids), self._network.spec.vocab_size
        if frame.seq_id in self._jobs:
            return "duplicate_id", "sequence id is already in use"
        if length == 0:
            return "empty_prompt", "the input has no tokens"
        if length > self._limits.max_model_len:
            message = f"the input has {length} tokens, the model's context {self._limits.max_model_len}"
            return "context_length_exceeded", message
        if max(frame.token_ids) >= vocabulary:
            return "invalid_token_id", f"token ids must be below {vocabulary}"
        if frame.second_from < length and self._network.spec.num_token_types < 2:
            return "invalid_token_id", "this model has one type of tokens"
        return None

    def abort(self, seq_id: int) -> None:
        """End a sequence in any state; unknown ids have ended already."""
        if self._jobs.pop(seq_id, None) is not None:
            self._count("abort")
            self._outbox.append(TokenOutput(seq_id, array("I"), FinishReason.ABORT))

    def has_work(self) -> bool:
        return bool(self._jobs or self._outbox)

    def step(self) -> list[Output]:
        """Work for a while; returns what has ended."""
        if not any(job.seq_id in self._jobs for job in self._batch):
            self._batch, self._running = [], None  # nobody wants it any more
        if self._running is None:
            self._start()
        if self._running is not None:
            self._advance(time.monotonic() + _SLICE_S)
        outputs, self._outbox = self._outbox, []
        return outputs

    def queues(self) -> tuple[int, int]:
        """Sequences in the batch, and waiting."""
        running = sum(job.seq_id in self._jobs for job in self._batch)
        return running, len(self._jobs) - running

    @property
    def kv_usage(self) -> float:
        """There is no cache."""
        return 0.0

    @property
    def only_compiles(self) -> bool:
        """Nothing here waits for grammars."""
        return False

    def counters(self) -> dict[str, float]:
        """Totals since the start, by the names of `Beat.counters`."""
        named = {f"finished_{reason}": float(count) for reason, count in self.finished.items()}
        counts = {"prompt_tokens": self.prompt_tokens, "computed_tokens": self.computed_tokens}
        return {**{name: float(count) for name, count in counts.items()}, **named}

    def reset_statistics(self) -> None:
        """Start counting anew, after the warm-up."""
        self.num_steps = self.prompt_tokens = self.computed_tokens = 0
        self.iteration_tokens = [0] * (len(ITERATION_BUCKETS) + 1)  # batches by size, see Beat
        self.finished: dict[str, int] = {}

    def _start(self) -> None:
        """Take the oldest sequences that fit into a step."""
        tokens = 0
        for job in self._jobs.values():
            tokens += len(job.token_ids)
            is_full = tokens > self._limits.max_num_batched_tokens
            if is_full or len(self._batch) == self._limits.max_num_seqs:
                break
            self._batch.append(job)
        self._batch.sort(key=lambda job: len(job.token_ids))
        if self._batch:
            self._running = self._network.run(self._batch)

    def _advance(self, until: float) -> None:
        assert self._running is not None
        self.num_steps += 1
        try:
            with torch.inference_mode():
                while time.monotonic() < until:
                    next(self._running)
        except StopIteration as done:
            self._end(done.value)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self._placement.check()
            self._fail()

    def _end(self, vectors: list[torch.Tensor]) -> None:
        tokens = sum(len(job.token_ids) for job in self._batch)
        self.computed_tokens += tokens
        self.iteration_tokens[bisect.bisect_left(ITERATION_BUCKETS, tokens)] += 1
        for job, vector in zip(self._batch, vectors, strict=True):
            if self._jobs.pop(job.seq_id, None) is not None:
                self._count("stop")
                self._outbox.append(Pooled(job.seq_id, array("f", vector.contiguous().numpy().tobytes())))
        self._batch, self._running = [], None

    def _fail(self) -> None:
        """A batch that raises ends its own sequences and nothing else."""
        for job in self._batch:
            if self._jobs.pop(job.seq_id, None) is not None:
                self._count("error")
                message = "the engine failed on this request"
                self._outbox.append(Failed(job.seq_id, "engine_error", message))
        self._batch, self._running = [], None

    def _count(self, reason: str) -> None:
        self.finished[reason] = self.finished.get(reason, 0) + 1
