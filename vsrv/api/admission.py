"""The bounded queue in front of the engine: who is let in, who waits, who is told to come back later.

429 is for a caller's own limit (limits.py); here it is 503, with a Retry-After from the measured pace. A full queue is full of whoever
waits in it most: another tenant takes the place of that one's newest request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vsrv.api.auth import Caller
from vsrv.api.fairness import EngineRoom, FairQueue, Ticket, TicketState
from vsrv.errors import EngineError, UserError
from vsrv.metrics import Metrics

_PACE_WINDOW_S = 30.0
_LONGEST_RETRY_S = 120.0  # OpenAI's clients give up on a longer one
_RECHECK_S = 0.02  # how soon to look again at an engine that has more than it can hold
_SWEEP_S = 0.1  # how soon to look for sequences that have ended although their clients have not read that yet


class Ends(Protocol):
    """What the engine works on."""

    @property
    def finished(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Bounds of what may run and wait in this server; above them requests are refused with 503."""

    max_queued_reqs: int
    max_queued_tokens: int
    max_queued_bytes: int = 256 << 20
    queue_timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Size:
    """What one sequence asks for."""

    prompt_tokens: int
    max_tokens: int


class Pace:
    """How many sequences end in a second, over about half a minute."""

    def __init__(self) -> None:
        self._ended = 0.0
        self._at = 0.0

    def count(self, now: float) -> None:
        self._ended = self._decayed(now) + 1
        self._at = now

    def per_second(self, now: float) -> float:
        return self._decayed(now) / _PACE_WINDOW_S

    def _decayed(self, now: float) -> float:
        return self._ended * math.exp((self._at - now) / _PACE_WINDOW_S)


class Hold:
    """Bytes of one request's body that are kept in memory. `close` gives them back; safe more than once."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._size = 0

    def resize(self, size: int) -> None:
        self._admission.bytes += size - self._size
        self._size = size

    def grow(self, size: int) -> None:
        """At least `size` bytes have arrived. Raises UserError 503 when that is too much with what the others have."""
        if size > self._size:
            self._admission.check_bytes(size - self._size, own=self._size)
            self.resize(size)

    def close(self) -> None:
        self.resize(0)


class Seat:
    """One sequence in the queue, and later in the engine. `leave` in every case."""

    __slots__ = ("_admission", "_failure", "_waiter", "granted_at", "stream", "ticket")

    def __init__(self, admission: Admission, ticket: Ticket) -> None:
        self.ticket = ticket
        self.granted_at: float | None = None
        self.stream: Ends | None = None
        self._admission = admission
        self._waiter: asyncio.Future[None] | None = None
        self._failure: UserError | EngineError | None = None

    @property
    def settled(self) -> bool:
        return self.granted_at is not None or self._failure is not None

    async def granted(self, patience_s: float | None = None) -> bool:
        """Wait until the sequence may run; False when `patience_s` is over before. Raises UserError 503 or EngineError when it may not."""
        if not self.settled:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = None if patience_s is None else loop.call_later(patience_s, _finish, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        if self._failure is not None:
            raise self._failure
        return self.granted_at is not None

    def grant(self, now: float) -> None:
        self.granted_at = now
        _finish(self._waiter)

    def fail(self, error: UserError | EngineError) -> None:
        """It will not run: whoever waits for it is told."""
        if self.granted_at is None:
            self._failure = error
            self.leave()
            _finish(self._waiter)

    def watch(self, stream: Ends) -> None:
        """The place is free when the engine is done, also if the client is slow to read the rest."""
        self.stream = stream

    def first_token(self) -> None:
        self._admission.first_token(self)

    def produced(self, count: int) -> None:
        self._admission.produced(self, count)

    def leave(self) -> None:
        self._admission.leave(self)


def _finish(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class Admission:
    """Owned by the event loop. `is_full` tells that the engine has sequences it cannot start."""

    def __init__(
        self,
        limits: AdmissionLimits,
        metrics: Metrics,
        room: EngineRoom,
        is_full: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._queue = FairQueue(room)
        self._is_full = is_full
        self._clock = clock
        self._seats: dict[Ticket, Seat] = {}  # those that wait
        self._granted: dict[Ticket, Seat] = {}
        self._pace = Pace()
        self._recheck: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.bytes = 0

    @property
    def sequences(self) -> int:
        """Running and waiting."""
        return self._queue.running + self._queue.waiting

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def tokens(self) -> int:
        """Prompt tokens of sequences that have no token yet."""
        return self._queue.waiting_tokens + self._queue.prefill_tokens

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest in the queue has waited."""
        oldest = self._queue.oldest_arrival()
        return 0.0 if oldest is None else max(0.0, self._clock() - oldest)

    def hold(self, size: int) -> Hold:
        """Before a body of `size` bytes is read. Raises UserError 503 when the bodies of those that wait take too much memory."""
        self.check_bytes(size)
        hold = Hold(self)
        hold.resize(size)
        return hold

    def check_bytes(self, more: int, own: int = 0) -> None:
        """Whether `more` bytes may be held by one who holds `own`; a lone one may in any case. Raises UserError 503."""
        if self.bytes > own and self.bytes + more > self._limits.max_queued_bytes:
            raise self._overloaded("max_num_queued_bytes")

    def enter(self, caller: Caller, sizes: Sequence[Size], priority: int) -> list[Seat]:
        """Seats for all sequences of a request, in the queue or granted already. Raises UserError 503, with nothing taken."""
        now = self._clock()
        self._make_room(caller, len(sizes), sum(size.prompt_tokens for size in sizes))
        seats: list[Seat] = []
        for size in sizes:
            ticket = Ticket(
                caller.tenant,
                caller.weight,
                caller.priority(priority),
                size.prompt_tokens,
                size.max_tokens,
                now,
            )
            seat = Seat(self, ticket)
            self._seats[ticket] = seat
            self._queue.add(ticket, now)
            seats.append(seat)
        self._pump()
        self._arm()
        return seats

    def _make_room(self, caller: Caller, count: int, tokens: int) -> None:
        while (reason := self._excess(count, tokens)) is not None:
            victim = self._queue.to_push_out(caller.tenant, count, tokens, reason == "max_num_queued_tokens")
            if victim is None:
                raise self._overloaded(reason)
            self._seats[victim].fail(self._overloaded("pushed_out"))

    def _excess(self, count: int, tokens: int) -> str | None:
        """Which bound would be passed. An empty server takes any single request."""
        limits = self._limits
        if self.sequences and self.sequences + count > limits.max_queued_reqs:
            return "max_num_queued_reqs"
        if self.tokens and self.tokens + tokens > limits.max_queued_tokens:
            return "max_num_queued_tokens"
        return None

    def _overloaded(self, reason: str) -> UserError:
        self._metrics.rejected(reason)
        message = "the server has too many requests; try again later"
        return UserError(503, "server_overloaded", message, None, self.retry_after_s())

    def retry_after_s(self) -> float:
        """About how long one that came now would wait: what waits, at the pace of the last half minute."""
        pace = self._pace.per_second(self._clock())
        wait = self._queue.waiting / pace if pace > 0 else 2.0
        return min(_LONGEST_RETRY_S, max(1.0, wait))

    # what happens to a seat

    def first_token(self, seat: Seat) -> None:
        self._queue.first_token(seat.ticket)
        self._pump()

    def produced(self, seat: Seat, count: int) -> None:
        self._queue.produced(seat.ticket, count)

    def leave(self, seat: Seat) -> None:
        """Give the place back; safe at any time and more than once."""
        if seat.ticket.state is TicketState.GRANTED:
            self._pace.count(self._clock())
        self._queue.done(seat.ticket, self._clock())
        self._seats.pop(seat.ticket, None)
        self._granted.pop(seat.ticket, None)
        self._pump()

    def _pump(self) -> None:
        """Start what may start."""
        now = self._clock()
        while self._queue.waiting:
            if self._queue.running and self._is_full():
                self._look_again(_RECHECK_S)
                return
            ticket = self._queue.pop(now)
            if ticket is None:
                self._look_again(_SWEEP_S)
                return
            seat = self._granted[ticket] = self._seats.pop(ticket)
            seat.grant(now)

    def _look_again(self, delay_s: float) -> None:
        """The engine's queue is told by its beats, and the end of a sequence by a flag; nobody here waits for these."""
        if self._recheck is None:
            self._recheck = asyncio.get_running_loop().call_later(delay_s, self._rechecked)

    def _rechecked(self) -> None:
        self._recheck = None
        for seat in list(self._granted.values()):
            if seat.stream is not None and seat.stream.finished:
                self.leave(seat)
        self._pump()

    # queue timeout

    def _arm(self) -> None:
        """One timer, for the seat that has waited longest."""
        if self._timer is None and self._seats and self._limits.queue_timeout_s > 0:
            oldest = next(iter(self._seats))  # arrival order is insertion order
            delay = oldest.arrival + self._limits.queue_timeout_s - self._clock()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, delay), self._expire)

    def _expire(self) -> None:
        self._timer = None
        latest = self._clock() - self._limits.queue_timeout_s
        while self._seats and next(iter(self._seats)).arrival <= latest:
            seat = self._seats[next(iter(self._seats))]
            self._metrics.rejected("queue_timeout")
            message = f"the request waited {self._limits.queue_timeout_s:g} s for its turn (--queue-timeout)"
            seat.fail(UserError(503, "queue_timeout", message, None, self.retry_after_s()))
        self._arm()
