"""Fair queueing: order, shares, priorities with aging, push-out; and the flood, simulated with an engine of fixed step times."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsrv.api.fairness import EngineRoom, FairQueue, Ticket, TicketState


def ticket(
    tenant: str = "a",
    prompt: int = 10,
    most: int = 10,
    at: float = 0.0,
    priority: int = 0,
    weight: float = 1.0,
) -> Ticket:
    return Ticket(tenant, weight, priority, prompt, most, at)


def granted(queue: FairQueue, now: float) -> Iterator[Ticket]:
    while (entry := queue.pop(now)) is not None:
        yield entry


def drained(queue: FairQueue, now: float = 0.0) -> list[Ticket]:
    """All waiting tickets in the order in which a queue with one place grants them; each produces what it may."""
    order: list[Ticket] = []
    while queue.waiting:
        entry = queue.pop(now)
        assert entry is not None
        queue.first_token(entry)
        queue.produced(entry, entry.max_tokens)
        queue.done(entry, now)
        order.append(entry)
    return order


def test_a_flood_moves_only_its_own_place() -> None:
    queue = FairQueue(EngineRoom(1, 512))
    flood = [ticket("flood") for _ in range(50)]
    for entry in flood:
        queue.add(entry, 0.0)
    first = queue.pop(0.0)
    assert first is not None
    queue.add(other := ticket("other"), 0.0)
    queue.done(first, 0.0)
    assert drained(queue)[0] is other


@pytest.mark.parametrize("weights, shares", [((1.0, 1.0), (100, 100)), ((3.0, 1.0), (150, 50))])
def test_tokens_are_shared_by_weight_whatever_the_sizes(
    weights: tuple[float, float], shares: tuple[int, int]
) -> None:
    """Small requests against large ones: what counts is tokens, not requests."""
    queue = FairQueue(EngineRoom(1, 512))
    for _ in range(400):
        queue.add(ticket("small", 5, 5, weight=weights[0]), 0.0)
        queue.add(ticket("large", 50, 50, weight=weights[1]), 0.0)
    tokens = {"small": 0, "large": 0}
    for entry in drained(queue):
        tokens[entry.tenant] += entry.prompt_tokens + entry.produced
        if sum(tokens.values()) >= 2000:
            break
    total = sum(tokens.values())
    assert tokens["small"] / total == pytest.approx(shares[0] / 200, abs=0.07)


def test_being_away_earns_no_credit() -> None:
    queue = FairQueue(EngineRoom(1, 512))
    for _ in range(20):
        queue.add(ticket("busy"), 0.0)
    for _ in range(10):
        entry = queue.pop(0.0)
        assert entry is not None
        queue.produced(entry, 10)
        queue.done(entry, 0.0)
    for _ in range(20):
        queue.add(ticket("new"), 0.0)
    order = [entry.tenant for entry in drained(queue)]
    assert order[:6].count("busy") == 3 and order[:20].count("busy") == 10  # in turn from now on


def test_what_was_expected_and_not_produced_is_given_back() -> None:
    """Both allow 1000 tokens and produce 10: who says so must not be billed for 1000."""
    queue = FairQueue(EngineRoom(2, 512))
    queue.add(entry := ticket("a", most=1000), 0.0)
    assert queue.pop(0.0) is entry and entry.expected == 256
    queue.produced(entry, 10)
    queue.done(entry, 0.0)
    queue.done(entry, 0.0)
    queue.add(again := ticket("a", most=1000), 0.0)
    assert queue.pop(0.0) is again and again.expected == pytest.approx(256 - 0.2 * 246)
    assert (queue.running, queue.prefill_tokens) == (1, 10)
    queue.done(again, 0.0)
    assert (queue.running, queue.prefill_tokens, queue.waiting_tokens) == (0, 0, 0)


def test_the_engine_gets_what_it_can_compute_and_others_find_a_place() -> None:
    queue = FairQueue(EngineRoom(16, 10_000))
    for _ in range(40):
        queue.add(ticket("flood"), 0.0)
    alone = list(granted(queue, 0.0))
    assert len(alone) == 17  # one more than places, so that none is empty between two steps
    queue.add(ticket("other"), 1.0)
    assert queue.pop(1.0) is None
    for entry in alone[:3]:
        queue.done(entry, 1.0)
    assert [entry.tenant for entry in granted(queue, 1.0)] == ["other"]
    assert queue.running == 15  # 2 of 16 are kept for who is below its share, and the other has one of them
    queue.done(alone[3], 1.0)
    assert queue.pop(1.0) is None
    queue.done(alone[4], 1.0)
    assert [entry.tenant for entry in granted(queue, 1.0)] == ["flood"]
    for entry in alone[5:]:
        queue.done(entry, 2.0)
    assert len(list(granted(queue, 2.0))) == 12 and queue.running == 14


def test_kept_places_are_used_when_the_others_have_long_gone() -> None:
    queue = FairQueue(EngineRoom(16, 10_000))
    queue.add(other := ticket("other"), 0.0)
    assert queue.pop(0.0) is other
    queue.done(other, 0.0)
    for _ in range(40):
        queue.add(ticket("flood"), 1.0)
    assert len(list(granted(queue, 29.0))) == 14
    assert len(list(granted(queue, 31.0))) == 3


def test_prompts_do_not_pile_up_in_the_engine() -> None:
    queue = FairQueue(EngineRoom(64, 512))
    for _ in range(20):
        queue.add(ticket(prompt=400), 0.0)
    first = list(granted(queue, 0.0))
    assert len(first) == 2  # two steps' worth
    queue.first_token(first[0])
    assert len(list(granted(queue, 0.0))) == 1
    queue = FairQueue(EngineRoom(64, 512))
    queue.add(ticket(prompt=100_000), 0.0)
    queue.add(ticket(prompt=10), 0.0)
    assert [entry.prompt_tokens for entry in granted(queue, 0.0)] == [
        100_000
    ]  # a large one goes alone, but goes


def test_priority_within_and_between_tenants() -> None:
    queue = FairQueue(EngineRoom(1, 512))
    for tenant, priority in (("a", 5), ("a", -1), ("a", 0), ("b", -2), ("b", 7)):
        queue.add(ticket(tenant, priority=priority), 0.0)
    assert [(t.tenant, t.priority) for t in drained(queue)] == [
        ("b", -2),
        ("a", -1),
        ("a", 0),
        ("a", 5),
        ("b", 7),
    ]


def test_waiting_makes_up_for_priority() -> None:
    """Urgent requests keep coming, one at a time: the patient one runs after priority x aging seconds, not never."""
    queue = FairQueue(EngineRoom(1, 512), aging_s=10.0)
    queue.add(patient := ticket("patient", at=0.0, priority=3), 0.0)
    now = 0.0
    while patient.state is TicketState.WAITING:
        queue.add(ticket("urgent", at=now, priority=0), now)
        entry = queue.pop(now)
        assert entry is not None
        queue.produced(entry, 10)
        queue.done(entry, now)
        now += 1.0
        assert now < 40, "it starves"
    assert 30 <= now <= 33


def test_a_flood_that_waits_does_not_age_past_others() -> None:
    queue = FairQueue(EngineRoom(1, 512), aging_s=10.0)
    for _ in range(500):
        queue.add(ticket("flood", at=0.0), 0.0)
    now = 0.0
    for _ in range(200):  # served all the time, although its head has waited for minutes
        entry = queue.pop(now)
        assert entry is not None
        queue.produced(entry, 10)
        queue.done(entry, now)
        now += 1.0
    queue.add(fresh := ticket("fresh", at=now), now)
    assert queue.pop(now) is fresh


def test_who_fills_the_queue_gives_way() -> None:
    queue = FairQueue(EngineRoom(1, 512))
    flood = [ticket("flood", prompt=10) for _ in range(5)]
    for entry in flood:
        queue.add(entry, 0.0)
    assert queue.to_push_out("flood", 1, 10, by_tokens=False) is None
    assert queue.to_push_out("new", 1, 10, by_tokens=False) is flood[-1]
    assert queue.to_push_out("new", 5, 10, by_tokens=False) is None  # it would hold as many itself
    assert queue.to_push_out("new", 1, 50, by_tokens=True) is None
    queue.add(ticket("large", prompt=1000), 0.0)
    assert queue.to_push_out("new", 1, 50, by_tokens=True).tenant == "large"  # type: ignore[union-attr]


def test_what_was_overpaid_alone_is_no_claim_on_others() -> None:
    """A tenant that promised much and produced little while it was alone does not pass who comes afterwards for long."""
    queue = FairQueue(EngineRoom(64, 10_000))
    for _ in range(60):
        queue.add(ticket("hoarder", most=1000), 0.0)
    held = list(granted(queue, 0.0))
    _one_place(queue)
    for _ in range(40):
        queue.add(ticket("hoarder", most=10), 0.0)
    queue.add(other := ticket("other", most=10), 0.0)
    for entry in held:
        queue.done(entry, 0.0)
    assert drained(queue).index(other) <= (10 + 256) / 20 + 1


def _one_place(queue: FairQueue) -> None:
    queue._room = EngineRoom(1, 10_000)
    queue._reserve = 0


def test_tenants_that_are_gone_are_forgotten() -> None:
    queue = FairQueue(EngineRoom(4, 512))
    for number in range(2000):
        queue.add(entry := ticket(f"t{number}"), float(number))
        assert queue.pop(float(number)) is entry
        queue.done(entry, float(number))
    assert len(queue._tenants) <= 300
    queue.add(debtor := ticket("debtor"), 5000.0)
    for number in range(300):
        queue.add(ticket(f"later{number}"), 5000.0 + number)
    assert "debtor" in queue._tenants and debtor.state is TicketState.WAITING


def test_output_beyond_what_was_expected_is_paid_when_it_comes() -> None:
    """One tenant's answers turn out four times longer than it used to need: it falls behind while they run, not when they end."""
    queue = FairQueue(EngineRoom(2, 512))
    queue.add(long := ticket("a", prompt=10, most=4000, weight=2.0), 0.0)
    assert queue.pop(0.0) is long and long.expected == 256
    queue.produced(long, 200)
    assert queue._tenants["a"].finish == 266 / 2
    queue.produced(long, 100)
    assert queue._tenants["a"].finish == 310 / 2
    queue.produced(long, 700)
    assert queue._tenants["a"].finish == 1010 / 2
    queue.add(ticket("a", at=0.0, weight=2.0), 0.0)
    queue.add(other := ticket("b", at=1.0), 1.0)
    assert queue.pop(1.0) is other


def test_credit_is_at_most_one_request() -> None:
    queue = FairQueue(EngineRoom(8, 10_000))
    for _ in range(8):
        queue.add(ticket("a", prompt=10, most=1000), 0.0)
    held = list(granted(queue, 0.0))
    assert len(held) == 9 - 1 and queue._virtual == 7 * 266
    for entry in held[:7]:
        queue.done(entry, 0.0)
    assert queue._tenants["a"].finish == queue._virtual - 266  # all seven together have overpaid 1792
    queue.produced(held[7], 256)
    queue.done(held[7], 0.0)
    assert queue._virtual == queue._tenants["a"].finish  # the end of a busy period: no debts, no credit


def test_leaving_while_waiting_is_counted_out() -> None:
    queue = FairQueue(EngineRoom(1, 512))
    entries = [ticket("a", prompt=100) for _ in range(3)]
    for entry in entries:
        queue.add(entry, 0.0)
    for entry in entries[1:]:
        queue.done(entry, 0.0)
    assert (queue.waiting, queue.waiting_tokens) == (1, 100)
    queue.add(mine := ticket("b", prompt=60), 0.0)
    assert queue.to_push_out("c", 1, 90, by_tokens=True) is entries[0]
    assert queue.to_push_out("c", 1, 100, by_tokens=True) is None
    queue.done(entries[0], 0.0)
    assert queue.to_push_out("c", 1, 50, by_tokens=True) is mine


def test_a_full_queue_weighs_by_weight() -> None:
    queue = FairQueue(EngineRoom(1, 512))
    heavy = [ticket("heavy", weight=4.0) for _ in range(6)]
    light = [ticket("light") for _ in range(3)]
    for entry in (*heavy, *light):
        queue.add(entry, 0.0)
    assert (
        queue.to_push_out("new", 1, 10, by_tokens=False) is light[-1]
    )  # 3 of weight 1 are more than 6 of weight 4


def test_a_heap_of_leavers_is_cleared() -> None:
    queue = FairQueue(EngineRoom(1, 512))
    entries = [ticket("a") for _ in range(200)]
    for entry in entries:
        queue.add(entry, 0.0)
    for entry in entries[:190]:
        queue.done(entry, 0.0)
    heap = queue._tenants["a"].heap
    assert len(heap) <= 64 and {e[2] for e in heap} >= set(entries[190:])
    assert drained(queue) == entries[190:]


@pytest.mark.parametrize(
    "slots, kept", [(1, 0), (3, 0), (4, 1), (8, 1), (15, 1), (16, 2), (64, 8), (256, 32)]
)
def test_places_that_are_kept_and_that_a_lone_tenant_may_have_more(slots: int, kept: int) -> None:
    queue = FairQueue(EngineRoom(slots, 100_000))
    for _ in range(2 * slots + 4):
        queue.add(ticket("flood", prompt=1), 0.0)
    queue.add(other := ticket("other", prompt=1, priority=1), 0.0)
    assert len([t for t in granted(queue, 0.0) if t.tenant == "flood"]) == slots - kept
    assert other.state is (TicketState.GRANTED if kept else TicketState.WAITING)
    lone = FairQueue(EngineRoom(slots, 100_000))
    for _ in range(2 * slots + 4):
        lone.add(ticket("flood", prompt=1), 0.0)
    assert len(list(granted(lone, 0.0))) == slots + max(1, slots // 16)


def test_a_tenant_of_more_weight_has_more_places() -> None:
    """16 places, weights 3 and 1: the heavy one's share is 12, below it no place is kept from it."""
    queue = FairQueue(EngineRoom(16, 100_000))
    for _ in range(40):
        queue.add(ticket("heavy", prompt=1, weight=3.0), 0.0)
        queue.add(ticket("light", prompt=1, weight=1.0), 0.0)
    names = [entry.tenant for entry in granted(queue, 0.0)]
    assert len(names) == 14 + 2 and 11 <= names.count("heavy") <= 13


def test_a_long_prompt_is_nobody_elses_stop() -> None:
    """It counts as the half of each step that the engine gives it; the next long one waits for it, short ones do not."""
    queue = FairQueue(EngineRoom(64, 512))
    queue.add(ticket("flood", prompt=100_000), 0.0)
    queue.add(ticket("flood", prompt=90_000), 0.0)
    long = queue.pop(0.0)
    assert long is not None and long.prompt_tokens == 100_000
    queue.add(ticket("quiet", prompt=80_000), 0.1)
    queue.add(ticket("small", prompt=100), 0.1)
    assert [entry.tenant for entry in granted(queue, 0.1)] == ["small"]
    queue.first_token(long)
    assert [entry.prompt_tokens for entry in granted(queue, 0.2)] == [80_000], "the flood has had its turn"


def test_prompts_in_the_engine_are_fewer_when_others_are_there() -> None:
    queue = FairQueue(EngineRoom(64, 512))
    for _ in range(8):
        queue.add(ticket("a", prompt=256), 0.0)
    assert len(list(granted(queue, 0.0))) == 4  # exactly two steps
    queue = FairQueue(EngineRoom(64, 512))
    queue.add(ticket("b", prompt=1), 0.0)
    for _ in range(8):
        queue.add(ticket("a", prompt=256), 0.0)
    first = [entry.prompt_tokens for entry in granted(queue, 0.0)]
    assert sum(first) <= 512 and first.count(256) == 1  # 1 + 256 + 256 would be more than a step


moves = st.lists(
    st.tuples(st.sampled_from("asgfd"), st.integers(0, 3), st.integers(1, 600), st.integers(-3, 3)),
    max_size=120,
)


@given(moves, st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_counts_add_up_whatever_happens(moves: list[tuple[str, int, int, int]], slots: int) -> None:
    queue = FairQueue(EngineRoom(slots, 256))
    live: list[Ticket] = []
    now = 0.0
    for move, tenant, number, priority in moves:
        now += number / 100
        if move in "as":
            queue.add(entry := ticket("abcd"[tenant], number, number, now, priority), now)
            live.append(entry)
        elif move == "g":
            live_before = queue.running
            entry_or_none = queue.pop(now)
            assert entry_or_none is not None or queue.running == live_before
        elif live:
            entry = live[number % len(live)]
            if move == "f" and entry.state is TicketState.GRANTED:
                queue.first_token(entry)
                queue.produced(entry, 3)
            elif move == "d":
                queue.done(entry, now)
                live.remove(entry)
        waiting = [t for t in live if t.state is TicketState.WAITING]
        running = [t for t in live if t.state is TicketState.GRANTED]
        assert (queue.waiting, queue.running) == (len(waiting), len(running))
        assert queue.running <= slots + max(1, slots // 16)
        assert queue.waiting_tokens == sum(t.prompt_tokens for t in waiting)
        assert queue.prefill_tokens == sum(t.prompt_tokens for t in running if t.in_prefill)
        oldest = queue.oldest_arrival()
        assert oldest == min((t.arrival for t in waiting), default=None)
        if waiting and not running:
            assert queue.pop(now) is not None, "nothing runs and nothing may start"
            live = [t for t in live if t.state is not TicketState.DONE]


# the flood


@dataclass(order=True)
class Arrival:
    at: float
    tenant: str = field(compare=False)
    choices: int = field(compare=False, default=1)


@dataclass(eq=False)
class Running:
    ticket: Ticket
    left_prompt: int
    left_output: int


class SimulatedEngine:
    """vsrv's engine as far as time goes: first come first served, one token budget a step, running sequences first.

    A step costs 6 ms plus 25 µs a token, which is about what the demo model takes on two cores."""

    def __init__(self, slots: int, budget: int) -> None:
        self.slots, self.budget = slots, budget
        self.waiting: list[Running] = []
        self.running: list[Running] = []

    def step(self) -> tuple[float, list[Running], list[Running]]:
        """(seconds, those that got a token, those that ended)."""
        while self.waiting and len(self.running) < self.slots:
            self.running.append(self.waiting.pop(0))
        left, got = self.budget, []
        for entry in self.running:
            count = min(left, entry.left_prompt or 1)
            left -= count
            if count and entry.left_prompt:
                entry.left_prompt -= count
            if count and not entry.left_prompt:
                entry.left_output -= 1
                got.append(entry)
        ended = [entry for entry in got if entry.left_output == 0]
        self.running = [entry for entry in self.running if entry not in ended]
        return 0.006 + 25e-6 * (self.budget - left), got, ended


PROMPT, OUTPUT, SLOTS, BUDGET, RATE = 64, 64, 16, 256, 0.5


def poisson(tenant: str, rate: float, seconds: float, seed: int, choices: int = 1) -> list[Arrival]:
    chance, at, made = random.Random(seed), 0.0, []
    while (at := at + chance.expovariate(rate)) < seconds:
        made.append(Arrival(at, tenant, choices))
    return made


def simulate(arrivals: list[Arrival], fair: bool = True) -> tuple[list[float], float]:
    """(the victim's times to first token, mean number of sequences in a step). Without `fair` all go to the engine as they come."""
    engine, queue = SimulatedEngine(SLOTS, BUDGET), FairQueue(EngineRoom(SLOTS, BUDGET))
    pending = sorted(arrivals)
    heapq.heapify(pending)
    now, steps, sequences = 0.0, 0, 0
    first: dict[Ticket, float] = {}
    while pending or engine.running or engine.waiting or queue.waiting:
        if not engine.running and not engine.waiting and not queue.waiting:
            now = max(now, pending[0].at)
        while pending and pending[0].at <= now:
            arrival = heapq.heappop(pending)
            for _ in range(arrival.choices):
                entry = ticket(arrival.tenant, PROMPT, OUTPUT, arrival.at)
                if not fair:
                    engine.waiting.append(Running(entry, PROMPT, OUTPUT))
                elif has_place(queue, arrival.tenant, now):
                    queue.add(entry, now)
        engine.waiting += [Running(entry, PROMPT, OUTPUT) for entry in granted(queue, now)]
        assert not fair or len(engine.waiting) + len(engine.running) <= SLOTS + 1, (
            "the engine has a queue of its own"
        )
        seconds, got, ended = engine.step()
        now, steps, sequences = now + seconds, steps + 1, sequences + len(engine.running)
        for running in got:
            if running.ticket not in first:
                first[running.ticket] = now - running.ticket.arrival
            if fair:
                queue.first_token(running.ticket)
                queue.produced(running.ticket, 1)
        for running in ended if fair else ():
            queue.done(running.ticket, now)
    return [ttft for entry, ttft in first.items() if entry.tenant == "victim"], sequences / max(1, steps)


def has_place(queue: FairQueue, tenant: str, now: float) -> bool:
    """The bounded queue, as Admission bounds it."""
    if queue.waiting < 1000:
        return True
    victim = queue.to_push_out(tenant, 1, PROMPT, by_tokens=False)
    if victim is None:
        return False
    queue.done(victim, now)
    return True


def p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


SECONDS = 120.0


@pytest.fixture(scope="module")
def victim() -> list[Arrival]:
    return poisson("victim", RATE, SECONDS, seed=1)


def test_a_flood_of_100_does_not_double_anothers_ttft(
    victim: list[Arrival], capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar of the issue: p95 TTFT under a 100x flood against a neighbour at the victim's own rate with the same total batch:
    each of the neighbour's requests asks for 100 choices."""
    flood, flood_batch = simulate(victim + poisson("flood", 100 * RATE, SECONDS, seed=2))
    calm, calm_batch = simulate(victim + poisson("neighbour", RATE, SECONDS, seed=2, choices=100))
    quiet, quiet_batch = simulate(victim + poisson("neighbour", RATE, SECONDS, seed=2))
    unfair, _ = simulate(victim + poisson("flood", 100 * RATE, 20.0, seed=2), fair=False)
    with capsys.disabled():
        print(
            f"\nvictim's p95 TTFT: flood {p95(flood) * 1e3:.1f} ms (batch {flood_batch:.1f}), same batch {p95(calm) * 1e3:.1f} ms "
            f"({calm_batch:.1f}), quiet neighbour {p95(quiet) * 1e3:.1f} ms ({quiet_batch:.1f}), without fair order {p95(unfair) * 1e3:.0f} ms"
        )
    assert len(flood) == len(calm) == len(victim)
    assert p95(flood) < 2 * p95(calm)
    assert p95(flood) < 2 * p95(quiet)  # even against a neighbour that leaves the engine nearly idle
    assert p95(unfair) > 10 * p95(flood), "the simulation would not notice an unfair server"
