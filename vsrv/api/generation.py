"""The one life of a request: admitted, submitted once for each prompt and choice, turned into text, ended in every case.

All dialects run through here; a whole answer is the fold of the same parts that a stream sends.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from vsrv.api.admission import Seat, Size
from vsrv.api.life import Life, timed_out
from vsrv.api.schema import GenerationRequest
from vsrv.engine_client import TokenStream
from vsrv.errors import EngineError, UserError
from vsrv.messages import FinishReason, LogProbs, TokenOutput
from vsrv.text.answer import AnswerReader, Read
from vsrv.text.detokenizer import TextOptions
from vsrv.text.tools import ToolCallDelta

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
    """What one engine output adds to choice `index`: `text` to the answer itself, `reasoning` to the thinking before it.

    finish_reason is set on the last part of a choice; it is "tool_calls" when the choice ended with calls.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogProb, ...] = ()
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    prompt_logprobs: tuple[TokenLogProb, ...] | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(slots=True, eq=False)
class Choice:
    """One sequence of a request."""

    index: int
    seat: Seat
    reader: AnswerReader
    stream: TokenStream | None = None


@dataclass(slots=True)
class Generation(Life):
    """One request in the front. `start` once, then iterate `parts` once; leaving early (disconnect, error) aborts what still runs."""

    _choices: list[Choice] = field(default_factory=list)

    def __post_init__(self) -> None:
        Life.__post_init__(self)  # super() does not know a class that slots have made anew
        self.usage.thinks = self.request.reading.reasoning is not None

    @property
    def request(self) -> GenerationRequest:
        assert self.prepared.request is not None
        return self.prepared.request

    @property
    def n(self) -> int:
        return self.request.n

    @property
    def max_tokens(self) -> int:
        """The most of any prompt."""
        return max(self.prepared.limits)

    @property
    def ttft_s(self) -> float | None:
        first = self.times.first_token
        return None if first is None else first - self.times.arrival

    async def start(self, patience_s: float | None) -> None:
        """Take places in the queue and wait for the first, at most `patience_s`. Raises UserError or EngineError when it will not come."""
        request, prompts = self.request, self.prepared.prompts
        self.terms.lease.check_prompt(self.usage.prompt_tokens)
        places = [index // request.width for index in range(len(prompts) * request.width)]
        sizes = [Size(len(prompts[place]), self.prepared.limits[place]) for place in places]
        params = request.params
        seats = self.services.admission.enter(self.terms.caller, sizes, self.terms.priority)
        self.terms.lease.pay(self.usage.prompt_tokens)
        options = TextOptions(
            request.stop,
            request.include_stop,
            request.skip_special_tokens,
            params.min_tokens,
            request.reading.marks,
        )
        self._choices = [
            Choice(
                index,
                seat,
                request.reading.reader(self.services.tokenizer, options, prompts[places[index]][-1]),
            )
            for index, seat in enumerate(seats)
        ]
        self._arm()
        try:
            if await seats[0].granted(patience_s):
                for choice in self._choices:
                    if choice.seat.granted_at is not None:
                        self._granted(choice)
        except (UserError, EngineError) as error:
            self.failure = error.code
            self.close()
            raise

    def _seats(self) -> list[Seat]:
        return [choice.seat for choice in self._choices]

    def _live(self) -> list[TokenStream]:
        streams = [choice.stream for choice in self._choices]
        return [stream for stream in streams if stream is not None and not stream.finished]

    def _granted(self, choice: Choice) -> None:
        """The sequence may run."""
        self._submit(choice)

    def _submit(self, choice: Choice) -> TokenStream:
        """Hand one sequence to the engine. Raises EngineError when it cannot take it."""
        if self._expired:
            raise timed_out()
        if choice.stream is None:
            request = self.request
            params, place = request.params, choice.index // request.width
            seed = None if params.seed is None else _seed(params.seed + choice.index % request.width)
            if self.times.granted is None:
                self.times.granted = choice.seat.granted_at
            choice.stream = self.services.engine.submit(
                self.prepared.prompts[place],
                replace(params, max_tokens=self.prepared.limits[place], seed=seed),
                self.terms.cache_salt,
                self.terms.caller.priority(self.terms.priority),
            )
            choice.seat.watch(choice.stream)
        return choice.stream

    async def parts(self) -> AsyncIterator[Part]:
        """Parts of all choices as they come. Raises EngineError when the engine fails, UserError when the queue gives up."""
        try:
            if len(self._choices) == 1:
                async for part in self._follow(self._choices[0]):
                    yield part
            else:
                async for part in self._merge():
                    yield part
        except (UserError, EngineError) as error:
            self.failure = error.code
            raise
        finally:
            self.close()

    def _is_whole(self) -> bool:
        return len(self.finish_reasons) == len(self._choices)

    async def _merge(self) -> AsyncIterator[Part]:
        queue: asyncio.Queue[Part | Exception | None] = asyncio.Queue()

        async def pump(choice: Choice) -> None:
            try:
                async for part in self._follow(choice):
                    queue.put_nowait(part)
                queue.put_nowait(None)
            except (UserError, EngineError) as error:
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

    async def _follow(self, choice: Choice) -> AsyncIterator[Part]:
        await choice.seat.granted()
        last: float | None = None
        async for output in self._submit(choice):
            now = time.monotonic()
            if last is None:
                self._first(choice, now)
            else:
                self.services.metrics.inter_token(now - last)
            self.times.last_token = last = now
            part = self._part(choice, output)
            choice.seat.produced(len(output.token_ids))
            self.terms.lease.pay(len(output.token_ids))
            if part.finish_reason is not None:
                choice.seat.leave()
            yield part
            if part.finish_reason is not None:
                return

    def _first(self, choice: Choice, now: float) -> None:
        choice.seat.first_token()
        if self.times.first_token is None:
            self.times.first_token = now
            self.services.metrics.first_token(now - self.times.arrival)

    def _part(self, choice: Choice, output: TokenOutput) -> Part:
        if output.num_cached_tokens is not None and choice.index % self.request.width == 0:
            self.usage.cached_tokens += output.num_cached_tokens
        ids = output.token_ids
        reason = _REASONS.get(output.finish_reason)
        stop_reason: str | int | None = output.stop_token_id
        hidden = not self.request.include_stop and self._ends_with_stop(output)  # EOS is not part of the text
        read = choice.reader.feed(ids[:-1] if hidden else ids)
        if choice.reader.stopped is not None:
            reason, stop_reason = "stop", choice.reader.stopped
            ids = ids[: read.num_used]
        elif choice.reader.complete:
            reason, stop_reason = "stop", None
        if output.finish_reason is FinishReason.NONE and reason is not None and choice.stream is not None:
            choice.stream.abort()
        self.usage.completion_tokens += len(ids)
        self.usage.reasoning_tokens += read.num_reasoning
        rest = Read() if reason is None else choice.reader.finish()
        if reason == "stop" and choice.reader.num_calls and self.request.reading.tools is not None:
            reason = self.request.reading.tools.finish
        if reason is not None:
            self.finish_reasons.append(reason)
        plan = self.request.reading.reasoning
        shown = plan is None or plan.shown
        unseen = 0 if shown else read.num_thinking  # of the ids: they come first
        return Part(
            choice.index,
            read.content + rest.content,
            tuple(ids[unseen:]),
            rows_of(output.logprobs, len(ids))[unseen:],
            reason,
            stop_reason,
            None if output.prompt_logprobs is None else rows_of(output.prompt_logprobs, None),
            read.reasoning + rest.reasoning if shown else "",
            read.calls + rest.calls,
        )

    def _ends_with_stop(self, output: TokenOutput) -> bool:
        """Whether the last token is EOS or a stop token; the last of a complete grammar is part of the answer."""
        if output.finish_reason is not FinishReason.STOP or not output.token_ids:
            return False
        params, last = self.request.params, output.token_ids[-1]
        return (last == params.eos_token_id and not params.ignore_eos) or last in params.stop_token_ids


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
