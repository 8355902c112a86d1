"""What one key or tenant may use: requests and tokens a minute, requests at once. Above it 429, with the time to wait.

Token buckets that refill all the time: an allowance of 60 a minute is one a second, with up to 60 saved. A prompt is paid when its
request is admitted, output as it is produced; that may leave a bucket in debt, which the next request waits for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vsrv.api.auth import Caller
from vsrv.errors import UserError
from vsrv.keyfile import NO_LIMITS, RateLimits

_MAX_METERS = 10_000
_BUSY_RETRY_S = 1.0


@dataclass(slots=True)
class Bucket:
    """`per_minute` units a minute, at most a minute's worth saved."""

    per_minute: int
    level: float
    at: float

    def refill(self, now: float) -> float:
        """The level at `now`."""
        self.level = min(float(self.per_minute), self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        return self.level

    def wait_for(self, amount: float, now: float) -> float:
        """Seconds until `amount` is there; 0 when it is."""
        return max(0.0, (amount - self.refill(now)) * 60 / self.per_minute)

    def resize(self, per_minute: int, now: float) -> None:
        """Another limit keeps the used share: a reload must not hand out a fresh minute."""
        self.level = self.refill(now) / self.per_minute * per_minute
        self.per_minute = per_minute


def _resized(bucket: Bucket | None, per_minute: int | None, now: float) -> Bucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute, float(per_minute), now)
    if bucket.per_minute != per_minute:
        bucket.resize(per_minute, now)
    return bucket


@dataclass(slots=True)
class Meter:
    """The use of one key or one tenant. `name` is as messages say it."""

    name: str
    limits: RateLimits = NO_LIMITS
    requests: Bucket | None = None
    tokens: Bucket | None = None
    running: int = 0

    def configure(self, limits: RateLimits, now: float) -> None:
        """Take the limits of the newest key file over."""
        if limits == self.limits:
            return
        self.limits = limits
        self.requests = _resized(self.requests, limits.requests_per_minute, now)
        self.tokens = _resized(self.tokens, limits.tokens_per_minute, now)

    def refusal(self, now: float) -> UserError | None:
        """Why one more request may not start now."""
        if self.limits.max_concurrent is not None and self.running >= self.limits.max_concurrent:
            return _too_many(
                f"{self.name} has {self.running} requests running, its limit is {self.limits.max_concurrent}",
                _BUSY_RETRY_S,
            )
        for bucket, what in ((self.requests, "requests"), (self.tokens, "tokens")):
            if bucket is not None and (wait := bucket.wait_for(1.0, now)) > 0:
                return _too_many(f"{self.name} has used its {bucket.per_minute} {what} a minute", wait)
        return None

    def prompt_refusal(self, tokens: int, now: float) -> UserError | None:
        """Why a prompt of `tokens` tokens may not start now."""
        bucket = self.tokens
        if bucket is None:
            return None
        if tokens > bucket.per_minute:
            return UserError(
                429,
                "prompt_above_limit",
                f"the prompt has {tokens} tokens, {self.name} may use {bucket.per_minute} a minute",
            )
        wait = bucket.wait_for(float(tokens), now)
        message = f"the prompt has {tokens} tokens, {self.name} has {max(0, int(bucket.level))} of its {bucket.per_minute} a minute left"
        return _too_many(message, wait) if wait > 0 else None


def _too_many(message: str, retry_after_s: float) -> UserError:
    return UserError(429, "rate_limit_exceeded", message, None, retry_after_s)


@dataclass(slots=True)
class Lease:
    """One admitted request's place in its meters. `close` gives the place back; safe more than once."""

    meters: tuple[Meter, ...]
    clock: Callable[[], float]
    open: bool = field(default=True)

    def check_prompt(self, tokens: int) -> None:
        """Raises UserError 429 when an allowance is too small for a prompt; nothing is paid yet."""
        now = self.clock()
        for meter in self.meters:
            refusal = meter.prompt_refusal(tokens, now)
            if refusal is not None:
                raise refusal

    def pay(self, tokens: int) -> None:
        """A prompt that was let in, or output. The latter is paid in any case: a running answer is not cut."""
        for meter in self.meters:
            if meter.tokens is not None:
                meter.tokens.refill(self.clock())
                meter.tokens.level -= tokens

    def refund(self) -> None:
        """The server could not serve the request: that is not the caller's use."""
        for meter in self.meters:
            if meter.requests is not None:
                meter.requests.level += 1  # what is too much is cut at the next look

    def close(self) -> None:
        if self.open:
            self.open = False
            for meter in self.meters:
                meter.running -= 1


class RateLimiter:
    """All meters. Owned by the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._meters: dict[tuple[str, str], Meter] = {}

    def enter(self, caller: Caller) -> Lease:
        """Count one request. Raises UserError 429, with nothing counted, when the key or the tenant is at a limit."""
        now, meters = self._clock(), self._of(caller)
        for meter in meters:
            refusal = meter.refusal(now)
            if refusal is not None:
                raise refusal
        for meter in meters:
            meter.running += 1
            if meter.requests is not None:
                meter.requests.level -= 1
        return Lease(meters, self._clock)

    def headers(self, caller: Caller) -> list[tuple[str, str]]:
        """x-ratelimit-* as OpenAI sends them; of key and tenant the one that has less left. None without limits."""
        now, meters = self._clock(), self._of(caller)
        requests = [m.requests for m in meters if m.requests is not None]
        tokens = [m.tokens for m in meters if m.tokens is not None]
        made: list[tuple[str, str]] = []
        for kind, buckets in (("requests", requests), ("tokens", tokens)):
            if buckets:
                bucket = min(buckets, key=lambda b: b.refill(now))
                full_in = bucket.wait_for(float(bucket.per_minute), now)
                made += [
                    (f"x-ratelimit-limit-{kind}", str(bucket.per_minute)),
                    (f"x-ratelimit-remaining-{kind}", str(max(0, math.floor(bucket.level)))),
                    (f"x-ratelimit-reset-{kind}", duration(full_in)),
                ]
        return made

    def _of(self, caller: Caller) -> tuple[Meter, ...]:
        """The meters that hold for a caller, with its newest limits."""
        now = self._clock()
        meters: list[Meter] = []
        for kind, name, limits in (
            ("key", caller.key_id, caller.key_limits),
            ("tenant", caller.tenant, caller.tenant_limits),
        ):
            if limits == NO_LIMITS and (kind, name) not in self._meters:
                continue
            meter = self._meters.get((kind, name))
            if meter is None:
                self._forget_idle()
                meter = self._meters[kind, name] = Meter(f"{kind} {name}")
            meter.configure(limits, now)
            meters.append(meter)
        return tuple(meters)

    def _forget_idle(self) -> None:
        """Keys come and go with reloads; what nobody uses is dropped before there are too many."""
        if len(self._meters) >= _MAX_METERS:
            self._meters = {name: meter for name, meter in self._meters.items() if meter.running}


def duration(seconds: float) -> str:
    """OpenAI's form of a length of time: 17ms, 8.64s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    whole = math.ceil(seconds)
    return f"{whole // 60}m{whole % 60}s"
