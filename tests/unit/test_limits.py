"""Token buckets and meters with a fake clock; the headers as OpenAI writes them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsrv.api.auth import Caller
from vsrv.api.limits import Lease, RateLimiter, duration
from vsrv.errors import UserError
from vsrv.keyfile import RateLimits


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def caller(key: RateLimits = RateLimits(), tenant: RateLimits = RateLimits(), key_id: str = "k") -> Caller:  # noqa: B008, RUF100
    return Caller(key_id, "t", key, tenant)


def pay_prompt(lease: Lease, tokens: int) -> None:
    lease.check_prompt(tokens)
    lease.pay(tokens)


def refused(limiter: RateLimiter, who: Caller) -> UserError:
    with pytest.raises(UserError) as error:
        limiter.enter(who)
    assert error.value.status == 429
    return error.value


def test_requests_a_minute_and_the_wait() -> None:
    clock = Clock()
    limiter, who = RateLimiter(clock), caller(RateLimits(requests_per_minute=6))
    for left in (5, 4, 3, 2, 1, 0):
        limiter.enter(who).close()
        assert dict(limiter.headers(who))["x-ratelimit-remaining-requests"] == str(left)
    error = refused(limiter, who)
    assert error.code == "rate_limit_exceeded" and error.retry_after_s == pytest.approx(10)
    assert "key k" in error.message and "6 requests" in error.message
    clock.now += 9.9
    refused(limiter, who)
    clock.now += 0.2
    limiter.enter(who).close()
    refused(limiter, who)
    clock.now += 3600
    assert dict(limiter.headers(who)) == {
        "x-ratelimit-limit-requests": "6",
        "x-ratelimit-remaining-requests": "6",
        "x-ratelimit-reset-requests": "0ms",
    }


def test_tokens_prompt_first_output_as_it_comes() -> None:
    clock = Clock()
    limiter, who = RateLimiter(clock), caller(RateLimits(tokens_per_minute=600))
    lease = limiter.enter(who)
    with pytest.raises(UserError) as error:
        lease.check_prompt(601)
    assert (error.value.status, error.value.code, error.value.retry_after_s) == (
        429,
        "prompt_above_limit",
        None,
    )
    lease.check_prompt(600)  # the whole allowance at once is allowed
    pay_prompt(lease, 500)
    second = limiter.enter(who)
    with pytest.raises(UserError) as error:
        pay_prompt(second, 200)
    assert error.value.retry_after_s == pytest.approx(10) and "has 100 of its 600" in error.value.message
    assert dict(limiter.headers(who))["x-ratelimit-remaining-tokens"] == "100"  # a refusal costs nothing
    lease.pay(300)  # more than was left: a running answer is not cut, the debt is waited for
    assert dict(limiter.headers(who))["x-ratelimit-remaining-tokens"] == "0"
    assert refused(limiter, who).retry_after_s == pytest.approx(20.1)
    clock.now += 20.2
    limiter.enter(who).close()


def test_concurrency_is_given_back_once() -> None:
    limiter, who = RateLimiter(Clock()), caller(RateLimits(max_concurrent=2))
    first, second = limiter.enter(who), limiter.enter(who)
    refusal = refused(limiter, who)
    assert "2 requests running" in refusal.message and refusal.retry_after_s == 1.0
    first.close()
    first.close()
    third = limiter.enter(who)
    refused(limiter, who)
    second.close()
    third.close()
    assert limiter.headers(who) == []


def test_a_tenants_limit_holds_for_all_its_keys_and_refusals_count_nowhere() -> None:
    limiter = RateLimiter(Clock())
    tenant = RateLimits(requests_per_minute=3)
    one, two = caller(RateLimits(requests_per_minute=60), tenant, "k1"), caller(tenant=tenant, key_id="k2")
    limiter.enter(one).close()
    limiter.enter(two).close()
    assert dict(limiter.headers(one))["x-ratelimit-limit-requests"] == "3"  # the one that has less left
    limiter.enter(two).close()
    assert "tenant t" in refused(limiter, one).message
    relaxed = caller(RateLimits(requests_per_minute=60), RateLimits(requests_per_minute=1000), "k1")
    assert dict(limiter.headers(relaxed))["x-ratelimit-remaining-requests"] in ("0", "59")


def test_a_reload_does_not_hand_out_a_fresh_minute() -> None:
    limiter = RateLimiter(Clock())
    for _ in range(30):
        limiter.enter(caller(RateLimits(requests_per_minute=60))).close()
    doubled = caller(RateLimits(requests_per_minute=120))
    assert dict(limiter.headers(doubled))["x-ratelimit-remaining-requests"] == "60"
    assert limiter.headers(caller()) == []  # limits taken away


def test_idle_meters_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsrv.api.limits._MAX_METERS", 10)
    limiter = RateLimiter(Clock())
    limits = RateLimits(max_concurrent=1)
    held = limiter.enter(caller(limits, key_id="held"))
    for number in range(100):
        limiter.enter(caller(limits, key_id=f"k{number}")).close()
    assert len(limiter._meters) <= 10
    refused(limiter, caller(limits, key_id="held"))
    held.close()
    unlimited = RateLimiter(Clock())
    unlimited.enter(caller()).close()
    assert not unlimited._meters, "who has no limits needs no meter"


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0ms"),
        (0.0165, "17ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9, "59.9s"),
        (60, "1m0s"),
        (360.2, "6m1s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50), st.booleans()), max_size=40))
@settings(max_examples=100, deadline=None)
def test_no_window_holds_more_than_the_burst_and_the_refill(moves: list[tuple[float, int, bool]]) -> None:
    """Whatever the order: paid prompts in any time T are at most the allowance plus its refill in T."""
    clock = Clock()
    limiter, who = RateLimiter(clock), caller(RateLimits(tokens_per_minute=60))
    paid, started = 0, clock.now
    for pause, tokens, keep in moves:
        clock.now += pause
        try:
            lease = limiter.enter(who)
            pay_prompt(lease, tokens)
            paid += tokens
            if keep:
                lease.close()
        except UserError as error:
            assert error.status == 429
        assert paid <= 60 + (clock.now - started) + 1e-6


def test_a_refund_gives_one_request_back_and_no_more_than_a_minute() -> None:
    limiter, who = RateLimiter(Clock()), caller(RateLimits(requests_per_minute=2, tokens_per_minute=100))
    first = limiter.enter(who)
    first.pay(30)
    limiter.enter(who)
    refused(limiter, who)
    first.refund()
    third = limiter.enter(who)
    refused(limiter, who)
    assert dict(limiter.headers(who))["x-ratelimit-remaining-tokens"] == "70", "tokens are paid all the same"
    for _ in range(5):
        third.refund()
    assert dict(limiter.headers(who))["x-ratelimit-remaining-requests"] == "2"


def test_what_is_paid_after_a_pause_is_not_filled_up_by_the_pause() -> None:
    clock = Clock()
    limiter, who = RateLimiter(clock), caller(RateLimits(tokens_per_minute=100))
    lease = limiter.enter(who)
    clock.now += 60
    lease.pay(30)
    assert dict(limiter.headers(who))["x-ratelimit-remaining-tokens"] == "70"
