"""The one life of a request for vectors: admitted, submitted, collected, ended in every case; beside `Generation`, which makes text.

Inputs take their places in the queue by groups of about half an engine step, shortest first, so that a request of two thousand short
texts is neither two thousand places nor one that everybody else waits for, and inputs of one length meet in a step.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from vsrv.api.admission import Seat, Size
from vsrv.api.life import Life, timed_out
from vsrv.api.prepare_pooling import PoolingRequest
from vsrv.engine_client import PooledResult
from vsrv.errors import EngineError, UserError
from vsrv.messages import Embed

_GROUP_INPUTS = 64


@dataclass(slots=True, eq=False)
class Group:
    """Inputs that share a place in the queue, by their indices in the request. `left` of them have not ended in the engine."""

    members: tuple[int, ...]
    seat: Seat | None = None
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.members)

    @property
    def finished(self) -> bool:
        """The engine is done with it, as `admission.Ends` asks."""
        return self.left == 0

    def one_ended(self) -> None:
        self.left -= 1
        if self.left == 0 and self.seat is not None:
            self.seat.leave()


def grouped(lengths: Sequence[int], most_tokens: int) -> list[Group]:
    """Indices by length, in groups of at most `most_tokens`; an input that is longer has its own."""
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if lengths[index] > room or len(groups[-1]) == _GROUP_INPUTS:
            groups.append([])
            room = most_tokens
        groups[-1].append(index)
        room -= lengths[index]
    return [Group(tuple(members)) for members in groups]


@dataclass(slots=True)
class Pooling(Life):
    """One request in the front. Wait for `vectors` once; `close` in every case."""

    ttft_s: None = None  # there are no tokens
    n: int = 1
    max_tokens: int = 0
    _groups: list[Group] = field(default_factory=list)
    _results: dict[int, PooledResult] = field(default_factory=dict)

    @property
    def request(self) -> PoolingRequest:
        assert self.prepared.pooling is not None
        return self.prepared.pooling

    async def vectors(self) -> list[array[float]]:
        """One for each input, in their order. Raises UserError when the queue gives up, EngineError when the engine fails."""
        try:
            self._enter()
            for group in self._groups:
                assert group.seat is not None
                await group.seat.granted()
                self._submit(group)
            found = [await self._results[index].values() for index in range(len(self.prepared.prompts))]
        except (UserError, EngineError) as error:
            self.failure = error.code
            raise
        else:
            self.finish_reasons.append("stop")
            self.times.first_token = self.times.last_token = time.monotonic()
            return found
        finally:
            self.close()

    def _enter(self) -> None:
        prompts, ready = self.prepared.prompts, self.services.engine.ready
        self.terms.lease.check_prompt(self.usage.prompt_tokens)
        step = ready.max_num_batched_tokens if ready is not None else 1
        self._groups = grouped([len(ids) for ids in prompts], max(1, step // 2))
        sizes = [Size(sum(len(prompts[i]) for i in group.members), 0) for group in self._groups]
        seats = self.services.admission.enter(self.terms.caller, sizes, self.terms.priority)
        for group, seat in zip(self._groups, seats, strict=True):
            group.seat = seat
        self.terms.lease.pay(self.usage.prompt_tokens)
        self._arm()

    def _submit(self, group: Group) -> None:
        """Hand a group's inputs to the engine. Raises EngineError when it cannot take them."""
        if self._expired:
            raise timed_out()
        assert group.seat is not None
        if self.times.granted is None:
            self.times.granted = group.seat.granted_at
        group.seat.watch(group)
        request = self.request
        priority = self.terms.caller.priority(self.terms.priority)
        for index in group.members:
            frame = Embed(
                0,
                self.prepared.prompts[index],
                request.second_from[index],
                request.dimensions,
                request.raw,
                self.terms.cache_salt,
                priority,
            )
            self._results[index] = self.services.engine.embed(frame, group.one_ended)

    def _seats(self) -> list[Seat]:
        return [group.seat for group in self._groups if group.seat is not None]

    def _live(self) -> list[PooledResult]:
        return [result for result in self._results.values() if not result.finished]

    def _is_whole(self) -> bool:
        return bool(self.finish_reasons)
