"""The queue's asynchronous side: bounds, Retry-After, a full engine, timeouts, and that every seat is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vsrv.api.admission import Admission, AdmissionLimits, Seat, Size
from vsrv.api.auth import ANYBODY, Caller
from vsrv.api.fairness import EngineRoom
from vsrv.errors import EngineError, UserError
from vsrv.metrics import Metrics

SIZE = Size(10, 10)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """An Admission with a fake clock and an engine that says whether it is full."""

    def __init__(self, slots: int = 1, timeout_s: float = 0.0, **bounds: int) -> None:
        self.clock = Clock()
        self.is_full = False
        limits = AdmissionLimits(
            **{"max_queued_reqs": 5, "max_queued_tokens": 1000, "queue_timeout_s": timeout_s, **bounds}
        )
        self.metrics = Metrics("m")
        self.admission = Admission(
            limits, self.metrics, EngineRoom(slots, 512), lambda: self.is_full, self.clock
        )

    def enter(self, caller: Caller = ANYBODY, *sizes: Size) -> list[Seat]:
        return self.admission.enter(caller, sizes or (SIZE,), 0)

    def refusal(self, *sizes: Size) -> UserError:
        with pytest.raises(UserError) as error:
            self.enter(ANYBODY, *sizes)
        assert (error.value.status, error.value.code) == (503, "server_overloaded")
        return error.value

    def rejections(self, reason: str) -> float:
        return self.metrics._rejected.labels(model_name="m", reason=reason)._value.get()


def run(scenario: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 5))  # type: ignore[arg-type]


def test_bounds_and_that_a_single_large_request_gets_in() -> None:
    async def scenario() -> None:
        desk = Desk(max_queued_reqs=3, max_queued_tokens=25)
        huge = desk.enter(ANYBODY, *[Size(100, 1)] * 9)  # an idle server takes any one request
        assert desk.admission.sequences == 9 and desk.admission.tokens == 900
        desk.refusal()
        for seat in huge:
            seat.leave()
            seat.leave()
        assert (desk.admission.sequences, desk.admission.tokens, desk.admission.waiting) == (0, 0, 0)
        seats = desk.enter() + desk.enter()
        desk.refusal()
        assert desk.rejections("max_num_queued_tokens") == 1 and desk.rejections("max_num_queued_reqs") == 1
        seats[0].first_token()
        seats += desk.enter()
        desk.refusal(Size(1, 1))
        assert desk.rejections("max_num_queued_reqs") == 2

    run(scenario)


def test_retry_after_is_what_the_pace_says() -> None:
    async def scenario() -> None:
        desk = Desk(max_queued_reqs=20)
        assert desk.admission.retry_after_s() == 2.0  # nothing is known yet
        for _ in range(300):  # two a second
            seat = desk.enter()[0]
            desk.clock.now += 0.5
            seat.leave()
        for _ in range(20):
            desk.enter()
        assert desk.refusal().retry_after_s == pytest.approx(18 / 2, rel=0.1)
        desk.clock.now += 100
        assert desk.admission.retry_after_s() > 60  # nothing has ended for long
        desk.clock.now += 1000
        assert desk.admission.retry_after_s() == 120

    run(scenario)


def test_a_seat_is_granted_when_another_is_left() -> None:
    async def scenario() -> None:
        desk = Desk()
        first, second, third = (desk.enter()[0] for _ in range(3))
        assert await first.granted() and await second.granted() and not third.settled
        assert await third.granted(0.01) is False
        waiting = asyncio.get_running_loop().create_task(third.granted())
        await asyncio.sleep(0)
        desk.clock.now += 3
        assert desk.admission.oldest_wait_s == 3
        first.leave()
        assert await waiting is True and third.granted_at == desk.clock.now
        third.fail(EngineError("request_timeout", "late"))  # it runs already: nothing happens to the seat
        assert desk.admission.sequences == 2

    run(scenario)


def test_nothing_is_given_to_a_full_engine_but_it_never_stands_still() -> None:
    async def scenario() -> None:
        desk = Desk(slots=16)
        desk.is_full = True
        first, second = desk.enter()[0], desk.enter()[0]
        assert first.settled and not second.settled, "an engine without work is not full"
        desk.is_full = False
        assert await second.granted(2.0) is True, "nobody looked again"

    run(scenario)


def test_a_place_comes_free_when_the_engine_is_done_although_the_client_is_slow() -> None:
    class Done:
        finished = True

    async def scenario() -> None:
        desk = Desk()
        seats = [desk.enter()[0] for _ in range(3)]
        seats[0].watch(Done())
        assert await seats[2].granted(2.0) is True
        seats[0].leave()
        assert desk.admission.sequences == 2

    run(scenario)


def test_queue_timeout_is_by_arrival_and_told_to_each() -> None:
    async def scenario() -> None:
        desk = Desk(timeout_s=30.0)
        seats = [desk.enter()[0] for _ in range(3)]
        desk.clock.now += 20
        seats += desk.enter()
        desk.clock.now += 15
        desk.admission._expire()
        with pytest.raises(UserError) as error:
            await seats[2].granted()
        assert (error.value.status, error.value.code) == (503, "queue_timeout") and error.value.retry_after_s
        assert not seats[3].settled and desk.admission.waiting == 1 and desk.rejections("queue_timeout") == 1
        assert (
            desk.admission._timer is not None
            and desk.admission._timer.when() - asyncio.get_running_loop().time() == pytest.approx(15, abs=0.5)
        )
        seats[3].leave()
        desk.clock.now += 100
        desk.admission._expire()
        assert desk.admission._timer is None

    run(scenario)


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        desk = Desk()
        seats = [desk.enter()[0] for _ in range(3)]
        task = asyncio.get_running_loop().create_task(seats[2].granted(60))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seats[2].leave()
        assert desk.admission.waiting == 0
        seats[0].leave()
        assert not seats[2].settled, "a seat that was left is not granted"

    run(scenario)


def test_pushed_out_waiters_are_told() -> None:
    async def scenario() -> None:
        desk = Desk(max_queued_reqs=4)
        flood = [desk.enter(Caller("f", "flood"))[0] for _ in range(4)]
        newest = asyncio.get_running_loop().create_task(flood[3].granted())
        await asyncio.sleep(0)
        other = desk.enter(Caller("o", "other"))[0]
        with pytest.raises(UserError, match="too many requests"):
            await newest
        assert desk.rejections("pushed_out") == 1
        for seat in flood[:2]:
            seat.produced(10)
            seat.leave()
        assert other.settled and not flood[2].settled

    run(scenario)


def test_bytes_are_held_and_given_back() -> None:
    desk = Desk(max_queued_bytes=100)
    large = desk.admission.hold(1000)  # alone it may
    with pytest.raises(UserError):
        desk.admission.hold(1)
    large.resize(60)
    small = desk.admission.hold(40)
    with pytest.raises(UserError):
        desk.admission.hold(1)
    assert desk.rejections("max_num_queued_bytes") == 2
    for hold in (large, small, large):
        hold.close()
    assert desk.admission.bytes == 0


def test_a_body_of_unknown_length_counts_as_it_grows() -> None:
    desk = Desk(max_queued_bytes=100)
    growing = desk.admission.hold(10)
    growing.grow(5)
    assert desk.admission.bytes == 10
    growing.grow(500)  # nobody else is there
    assert desk.admission.bytes == 500
    growing.resize(60)
    other = desk.admission.hold(10)
    growing.grow(90)
    with pytest.raises(UserError) as error:
        growing.grow(91)
    assert (error.value.status, error.value.code) == (503, "server_overloaded")
    growing.close()
    other.grow(200)
    other.close()
    assert desk.admission.bytes == 0 and desk.rejections("max_num_queued_bytes") == 1
