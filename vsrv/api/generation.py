"""The one life of a request: admitted, submitted once for each prompt and choice, turned into text, ended in every case.

All dialects run through here; a whole answer is the fold of the same parts that a stream sends.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from vsrv.api.prepare import Prepared
from vsrv.api.schema import GenerationRequest
from vsrv.engine_client import EngineClient, TokenStream
from vsrv.errors import EngineError, UserError
from vsrv.messages import FinishReason, LogProbs, TokenOutput
from vsrv.metrics import Metrics
from vsrv.text.detokenizer import Detokenizer, TextOptions
from vsrv.text.tokenizer import Tokenizer

_REASONS = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORT: "abort",
    FinishReason.ERROR: "error",
}


@dataclass(frozen=True, slots=True)
class TokenLogProb:
    """One position: its token, log probability, rank, and the k best as (id, log probability), best first."""

    token_id: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What one engine output adds to choice `index`. finish_reason is set on the last part of a choice."""

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogProb, ...] = ()
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    prompt_logprobs: tuple[TokenLogProb, ...] | None = None


@dataclass(slots=True)
class Usage:
    """Token counts of a whole request, growing while it runs."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Bounds of what may run and wait in this server; above them requests are refused with 503."""

    max_queued_reqs: int
    max_queued_tokens: int


class Admission:
    """Counts open sequences and the prompt tokens of those that have no token yet."""

    def __init__(self, limits: AdmissionLimits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self.sequences = 0
        self.tokens = 0

    def enter(self, sequences: int, tokens: int) -> None:
        """Raises UserError 503 with Retry-After when the server has too much to do."""
        for reason, there, more, limit in (
            ("max_num_queued_reqs", self.sequences, sequences, self._limits.max_queued_reqs),
            ("max_num_queued_tokens", self.tokens, tokens, self._limits.max_queued_tokens),
        ):
            if there + more > limit and there > 0:
                self._metrics.rejected(reason)
                raise UserError(
                    503, "server_overloaded", "the server has too many requests; try again soon", None, 2.0
                )
        self.sequences += sequences
        self.tokens += tokens

    def leave(self, sequences: int, tokens: int) -> None:
        self.sequences -= sequences
        self.tokens -= tokens


@dataclass(slots=True)
class _Choice:
    index: int
    stream: TokenStream
    text: Detokenizer


@dataclass(slots=True)
class Generation:
    """One request in the front. Iterate `parts` once; leaving early (disconnect, error) aborts what still runs."""

    engine: EngineClient
    tokenizer: Tokenizer
    metrics: Metrics
    admission: Admission
    prepared: Prepared
    cache_salt: str
    arrival: float
    usage: Usage = field(init=False)
    ttft_s: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    _choices: list[_Choice] = field(default_factory=list)
    _admitted: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.usage = Usage(sum(len(ids) for ids in self.prepared.prompts))

    @property
    def request(self) -> GenerationRequest:
        assert self.prepared.request is not None
        return self.prepared.request

    def submit(self) -> None:
        """Hand all sequences to the engine. Raises UserError 503 when it cannot take them."""
        request, prompts = self.request, self.prepared.prompts
        count, tokens = len(prompts) * request.n, self.usage.prompt_tokens * request.n
        self.admission.enter(count, tokens)
        self._admitted = (count, tokens)
        params = request.params
        options = TextOptions(
            request.stop, request.include_stop, request.skip_special_tokens, params.min_tokens
        )
        try:
            for index in range(count):
                place = index // request.n
                seed = params.seed if params.seed is None else _seed(params.seed + index % request.n)
                own = replace(params, max_tokens=self.prepared.limits[place], seed=seed)
                prompt = prompts[place]
                stream = self.engine.submit(prompt, own, self.cache_salt, request.priority)
                text = Detokenizer(self.tokenizer, options, prompt[-1])
                self._choices.append(_Choice(index, stream, text))
        except EngineError as error:
            self.close()
            raise UserError(503, error.code, error.message, None, error.retry_after_s) from None

    async def parts(self) -> AsyncIterator[Part]:
        """Parts of all choices as they come. Raises EngineError when the engine fails."""
        try:
            if len(self._choices) == 1:
                async for part in self._follow(self._choices[0]):
                    yield part
            else:
                async for part in self._merge():
                    yield part
        finally:
            self.close()

    def close(self) -> None:
        """Abort what still runs and give the admitted places back; safe at any time and more than once."""
        self.admission.leave(*self._admitted)
        self._admitted = (0, 0)
        for choice in self._choices:
            if not choice.stream.finished:
                choice.stream.abort()

    async def _merge(self) -> AsyncIterator[Part]:
        queue: asyncio.Queue[Part | Exception | None] = asyncio.Queue()

        async def pump(choice: _Choice) -> None:
            try:
                async for part in self._follow(choice):
                    queue.put_nowait(part)
                queue.put_nowait(None)
            except EngineError as error:
                queue.put_nowait(error)

        tasks = [asyncio.get_running_loop().create_task(pump(choice)) for choice in self._choices]
        try:
            open_choices = len(tasks)
            while open_choices:
                item = await queue.get()
                if item is None:
                    open_choices -= 1
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, choice: _Choice) -> AsyncIterator[Part]:
        last: float | None = None
        async for output in choice.stream:
            now = time.monotonic()
            if last is None:
                self._first(now)
            else:
                self.metrics.inter_token(now - last)
            last = now
            part = self._part(choice, output)
            yield part
            if part.finish_reason is not None:
                return

    def _first(self, now: float) -> None:
        if self.ttft_s is None:
            self.ttft_s = now - self.arrival
            self.metrics.first_token(self.ttft_s)

    def _part(self, choice: _Choice, output: TokenOutput) -> Part:
        if output.num_cached_tokens is not None and choice.index % self.request.n == 0:
            self.usage.cached_tokens += output.num_cached_tokens
        ids = output.token_ids
        reason = _REASONS.get(output.finish_reason)
        stop_reason: str | int | None = output.stop_token_id
        hidden = (
            output.finish_reason is FinishReason.STOP and not self.request.include_stop
        )  # EOS is not part of the text
        text, used = choice.text.feed(ids[:-1] if hidden else ids)
        if choice.text.stopped is not None:
            reason, stop_reason = "stop", choice.text.stopped
            ids = ids[:used]
            choice.stream.abort()
        elif reason is not None:
            text += choice.text.finish()
        self.usage.completion_tokens += len(ids)
        if reason is not None:
            self.finish_reasons.append(reason)
        return Part(
            choice.index,
            text,
            tuple(ids),
            rows_of(output.logprobs, len(ids)),
            reason,
            stop_reason,
            None if output.prompt_logprobs is None else rows_of(output.prompt_logprobs, None),
        )


def _seed(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def rows_of(logprobs: LogProbs | None, count: int | None) -> tuple[TokenLogProb, ...]:
    """Packed rows → one value for each position, at most `count` of them."""
    if logprobs is None:
        return ()
    width = logprobs.k + 1
    rows = []
    for row in range(logprobs.num_positions if count is None else min(count, logprobs.num_positions)):
        ids: array[int] = logprobs.token_ids[row * width : (row + 1) * width]
        values = logprobs.values[row * width : (row + 1) * width]
        top = tuple(zip(ids[1:], values[1:], strict=True))
        rows.append(TokenLogProb(ids[0], values[0], logprobs.ranks[row], top))
    return tuple(rows)
