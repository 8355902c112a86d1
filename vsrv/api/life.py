"""What the lives of all requests have in common, for text and for vectors: an account, counts, moments, and an end in every case."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from vsrv.api.admission import Admission, Seat
from vsrv.api.auth import Caller
from vsrv.api.limits import Lease
from vsrv.api.prepare import Prepared
from vsrv.engine_client import EngineClient, PooledResult, TokenStream
from vsrv.errors import EngineError
from vsrv.metrics import Metrics
from vsrv.text.tokenizer import Tokenizer


@dataclass(slots=True)
class Usage:
    """Token counts of a whole request, growing while it runs; `reasoning_tokens` are among the completion's, where the model `thinks`."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    thinks: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """On whose account, how urgently and until when a request runs. `deadline` is of the monotonic clock, as `arrival` is."""

    caller: Caller
    lease: Lease
    cache_salt: str
    arrival: float
    deadline: float | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Services:
    """What every request uses."""

    engine: EngineClient
    tokenizer: Tokenizer
    metrics: Metrics
    admission: Admission


@dataclass(slots=True)
class Times:
    """Moments of one request, of the monotonic clock; None as long as they have not come."""

    arrival: float
    granted: float | None = None
    first_token: float | None = None
    last_token: float | None = None

    @property
    def queue_s(self) -> float | None:
        return None if self.granted is None else self.granted - self.arrival


@dataclass(slots=True)
class Life(ABC):
    """One request in the front. Owned by the event loop; `close` in every case."""

    services: Services
    prepared: Prepared
    terms: Terms
    usage: Usage = field(init=False)
    times: Times = field(init=False)
    failure: str = ""  # code of the error that ended it
    finish_reasons: list[str] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None
    _expired: bool = False

    def __post_init__(self) -> None:
        self.usage = Usage(sum(len(ids) for ids in self.prepared.prompts))
        self.times = Times(self.terms.arrival)

    @abstractmethod
    def _seats(self) -> Iterable[Seat]:
        """Its places in the queue."""

    @abstractmethod
    def _live(self) -> Iterable[TokenStream | PooledResult]:
        """What the engine works on for this request."""

    @abstractmethod
    def _is_whole(self) -> bool:
        """Nothing that was asked for is missing."""

    def _arm(self) -> None:
        """From now on the deadline counts."""
        if self.terms.deadline is not None:
            delay = max(0.0, self.terms.deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        """The deadline has come: what waits or runs ends with an error."""
        self._expired = True
        error = timed_out()
        for seat in self._seats():
            seat.fail(error)
        for work in self._live():
            work.abort()
            work.fail(error)

    def close(self) -> None:
        """Abort what still runs and give the places back; safe at any time and more than once."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.failure and not self._is_whole():
            self.failure = "disconnect"
        for seat in self._seats():
            seat.leave()
        for work in self._live():
            work.abort()


def timed_out() -> EngineError:
    """What ends a request at its deadline."""
    return EngineError(
        "request_timeout", "the request took longer than it may (--request-timeout, X-Request-Timeout)"
    )
