"""Beam search, driven from here by single steps of the engine: every beam is a prompt that asks for one token and the likeliest ones.

The prefix cache computes only the last tokens of each beam again. As in vLLM, sampling parameters are without effect and an end token
among a beam's 2 × width likeliest finishes it. Scores are those of transformers' generate: log probability / tokens ** length_penalty,
the end token counted and the prompt not.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from vsrv.api.generation import Choice, Generation, Part
from vsrv.api.life import timed_out
from vsrv.engine_client import TokenStream
from vsrv.errors import EngineError, UserError
from vsrv.messages import FinishReason, LogProbs, SamplingParams, TokenOutput


@dataclass(frozen=True, slots=True)
class Beam:
    """A sequence by its last token: `logprob` of the whole, `table` of the step that gave the token (one row, best first)."""

    parent: Beam | None = None
    token: int = -1
    logprob: float = 0.0
    length: int = 0
    table: LogProbs | None = None

    def steps(self) -> list[Beam]:
        """From its first token to its last."""
        found: list[Beam] = []
        beam: Beam | None = self
        while beam is not None and beam.table is not None:
            found.append(beam)
            beam = beam.parent
        return found[::-1]


@dataclass(slots=True)
class Search:
    """What is known of one prompt's beams; `advance` once for each step until `done`."""

    width: int
    end_ids: frozenset[int]
    length_penalty: float
    max_tokens: int
    running: list[Beam] = field(default_factory=lambda: [Beam()])
    finished: list[Beam] = field(default_factory=list)

    def advance(self, tables: list[LogProbs]) -> None:
        """The likeliest next tokens of every running beam, in order."""
        grown: list[Beam] = []
        for beam, table in zip(self.running, tables, strict=True):
            candidates = zip(table.token_ids[1:], table.values[1:], strict=True)
            for token, value in list(candidates)[: 2 * self.width]:
                longer = Beam(beam, token, beam.logprob + value, beam.length + 1, table)
                (self.finished if token in self.end_ids else grown).append(longer)
        grown.sort(key=lambda beam: beam.logprob, reverse=True)
        self.running = grown[: self.width]
        self.finished.sort(key=self.score, reverse=True)
        del self.finished[self.width :]

    @property
    def done(self) -> bool:
        """No running beam can become one of the `width` best."""
        if not self.running or self.running[0].length >= self.max_tokens:
            return True
        if len(self.finished) < self.width:
            return False
        return self.score(self.finished[-1]) >= max(map(self._attainable, self.running))

    def best(self) -> list[Beam]:
        """The `width` best, best first; beams that were cut off at max_tokens among them."""
        cut = [beam for beam in self.running if beam.length >= self.max_tokens]
        return sorted([*self.finished, *cut], key=self.score, reverse=True)[: self.width]

    def score(self, beam: Beam) -> float:
        return beam.logprob / float(max(1, beam.length) ** self.length_penalty)

    def _attainable(self, beam: Beam) -> float:
        """No longer form of a beam has a higher score: probabilities only shrink."""
        length = self.max_tokens if self.length_penalty >= 0 else beam.length + 1
        return beam.logprob / float(length**self.length_penalty)


@dataclass(slots=True)
class BeamGeneration(Generation):
    """A request with use_beam_search: the parts of a prompt come when its search is over, one for each of the n best beams."""

    _steps: set[TokenStream] = field(default_factory=set)

    def _live(self) -> list[TokenStream]:
        return [stream for stream in self._steps if not stream.finished]

    def _granted(self, choice: Choice) -> None:
        if self.times.granted is None:
            self.times.granted = choice.seat.granted_at

    async def parts(self) -> AsyncIterator[Part]:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._found(place)) for place in range(len(self.prepared.prompts))]
        try:
            for task in asyncio.as_completed(tasks):
                for part in await task:
                    yield part
        except (UserError, EngineError) as error:
            self.failure = error.code
            raise
        finally:
            for running in tasks:
                running.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.close()

    async def _found(self, place: int) -> list[Part]:
        """The whole search of one prompt."""
        request, width = self.request, self.request.n
        choices = self._choices[place * width : (place + 1) * width]
        await choices[0].seat.granted()
        self._granted(choices[0])
        params = request.params
        ends = () if params.ignore_eos else (params.eos_token_id, *params.stop_token_ids)
        search = Search(
            width,
            frozenset(token for token in ends if token is not None),
            request.length_penalty,
            self.prepared.limits[place],
        )
        first = await self._step(place, Beam(), search.max_tokens, params.prompt_logprobs)
        for choice in choices:
            self._first(choice, time.monotonic())
        if first.logprobs is not None:
            search.advance([first.logprobs])
        while not search.done:
            search.advance(await self._tables(place, search, choices))
        beams = search.best() if search.max_tokens else [Beam()] * width
        return [self._told(choice, beam, search, first) for choice, beam in zip(choices, beams, strict=False)]

    async def _tables(self, place: int, search: Search, choices: list[Choice]) -> list[LogProbs]:
        """The next step of every beam; as many at once as the request has places in the engine."""
        tables: list[LogProbs | None] = [None] * len(search.running)
        waiting: Iterator[tuple[int, Beam]] = iter(enumerate(search.running))

        async def work() -> None:
            for index, beam in waiting:
                tables[index] = (await self._step(place, beam, 1, None)).logprobs

        granted = [choice for choice in choices if choice.seat.granted_at is not None]
        tasks = [asyncio.get_running_loop().create_task(work()) for _ in granted]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        now = time.monotonic()
        if self.times.last_token is not None:
            self.services.metrics.inter_token(now - self.times.last_token)
        self.times.last_token = now
        for choice in granted:
            choice.seat.produced(1)
        return [table for table in tables if table is not None]

    async def _step(
        self, place: int, beam: Beam, max_tokens: int, prompt_logprobs: int | None
    ) -> TokenOutput:
        """One token more, of which only the table counts. Raises EngineError."""
        if self._expired:
            raise timed_out()
        request = self.request
        params = SamplingParams(
            max_tokens=min(1, max_tokens),
            temperature=0.0,
            ignore_eos=True,
            logprobs=max(2 * request.n, request.logprobs or 0),
            prompt_logprobs=prompt_logprobs,
        )
        ids = self.prepared.prompts[place] + array("I", [step.token for step in beam.steps()])
        priority = self.terms.caller.priority(self.terms.priority)
        stream = self.services.engine.submit(ids, params, self.terms.cache_salt, priority)
        self._steps.add(stream)
        try:
            async for output in stream:
                self.terms.lease.pay(len(output.token_ids))
                return output
        finally:
            self._steps.discard(stream)
            if not stream.finished:
                stream.abort()
        raise EngineError("engine_error", "a step of a beam search gave nothing")

    def _told(self, choice: Choice, beam: Beam, search: Search, first: TokenOutput) -> Part:
        """A beam as the engine would have given it in one output."""
        params, steps = self.request.params, beam.steps()
        ended = bool(steps) and beam.token in search.end_ids
        output = TokenOutput(
            first.seq_id,
            array("I", [step.token for step in steps]),
            FinishReason.STOP if ended else FinishReason.LENGTH,
            beam.token if ended and beam.token != params.eos_token_id else None,
            first.num_cached_tokens,
            _rows(steps, self.request.logprobs),
            first.prompt_logprobs,
        )
        choice.seat.leave()
        return self._part(choice, output)


def _rows(steps: list[Beam], k: int | None) -> LogProbs | None:
    """Log probabilities of a beam's tokens with the `k` best of each step."""
    if k is None or not steps:
        return None
    ids, values, ranks = array("I"), array("f"), array("I")
    for step in steps:
        table = step.table
        assert table is not None
        rank = table.token_ids.index(step.token, 1)
        ids += array("I", [step.token]) + table.token_ids[1 : k + 1]
        values += table.values[rank : rank + 1] + table.values[1 : k + 1]
        ranks.append(rank)
    return LogProbs(k, ids, values, ranks)
