"""Who of those that wait may run next. Pure: no clock, no event loop; the caller says what time it is.

Start-time fair queueing between tenants (Goyal, Vin and Cheng 1996), by tokens as in the virtual token counter of Sheng et al. 2024: a tenant
pays a prompt when a sequence starts and its output as it is produced, so that a flood moves only its sender's own place in the order. Within a
tenant the order is by priority, then arrival, and waiting makes up for priority.

The engine has a queue of its own, first come first served, which a flood would fill. Therefore it is given no more sequences than it computes
at once and no more prompt tokens than one or two of its steps, and a tenant above its share leaves a few places free for the others.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from dataclasses import dataclass, field

_ACTIVE_S = 30.0  # a tenant counts as active for so long after its last sequence: its place is kept that long
_RESERVED_SHARE = 8  # one of 8 places is kept for tenants below their share
_SPARE_SHARE = 16  # a lone tenant may have that much more in the engine than it computes at once
_FIRST_GUESS_TOKENS = 256  # output of a tenant's first sequence, when it allows more
_LEARNING = 0.2
_MANY_TENANTS = 256


class TicketState(enum.Enum):
    WAITING = "waiting"
    GRANTED = "granted"
    DONE = "done"


@dataclass(slots=True, eq=False)
class Ticket:
    """One sequence's place in the order. n choices of a request are n tickets."""

    tenant: str
    weight: float
    priority: int
    prompt_tokens: int
    max_tokens: int
    arrival: float
    number: int = 0
    state: TicketState = TicketState.WAITING
    in_prefill: bool = False
    expected: float = 0.0
    produced: int = 0


@dataclass(slots=True)
class _Tenant:
    """`finish` is its virtual time: tokens paid so far, divided by its weight."""

    name: str
    weight: float = 1.0
    finish: float = 0.0
    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    last_seen: float = 0.0
    last_grant: float = 0.0
    mean_output: float = _FIRST_GUESS_TOKENS
    heap: list[tuple[float, int, Ticket]] = field(default_factory=list)

    def head(self) -> Ticket | None:
        while self.heap and self.heap[0][2].state is not TicketState.WAITING:
            heapq.heappop(self.heap)
        return self.heap[0][2] if self.heap else None


@dataclass(frozen=True, slots=True)
class EngineRoom:
    """What the engine takes: sequences at once, and tokens of one step."""

    slots: int
    step_tokens: int

    @property
    def spare(self) -> int:
        """Sequences that may wait in the engine, so that no place is empty between two steps."""
        return max(1, self.slots // _SPARE_SHARE)


class FairQueue:
    """Tickets of all tenants. Sequence of calls: add, pop → first_token → produced → done; done at any time."""

    def __init__(self, room: EngineRoom, aging_s: float = 10.0) -> None:
        self._room = room
        self._aging_s = aging_s
        self._reserve = room.slots // _RESERVED_SHARE or (1 if room.slots >= 4 else 0)
        self._tenants: dict[str, _Tenant] = {}
        self._numbers = itertools.count(1)
        self._virtual = 0.0
        self.running = 0
        self.waiting = 0
        self._prefill_load = 0  # the same, a long prompt counted as half a step
        self._long_prefills = 0
        self.prefill_tokens = 0  # of sequences that were given to the engine and have no token yet
        self.waiting_tokens = 0

    def add(self, ticket: Ticket, now: float) -> None:
        """Let a ticket wait."""
        ticket.number = next(self._numbers)
        if ticket.tenant not in self._tenants:
            self._forget_idle(now)
        tenant = self._tenants.setdefault(ticket.tenant, _Tenant(ticket.tenant))
        tenant.weight, tenant.last_seen = ticket.weight, now
        if tenant.waiting == 0:
            tenant.finish = max(tenant.finish, self._virtual)  # being away earns no credit
        # priority - waited / aging compares like this at any time, so the heap's order holds
        rank = ticket.priority * self._aging_s + ticket.arrival
        heapq.heappush(tenant.heap, (rank, ticket.number, ticket))
        tenant.waiting += 1
        tenant.waiting_tokens += ticket.prompt_tokens
        self.waiting += 1
        self.waiting_tokens += ticket.prompt_tokens

    def _forget_idle(self, now: float) -> None:
        """Tenants come and go with the key file; who is away and owes nothing is forgotten before there are many."""
        if len(self._tenants) >= _MANY_TENANTS:
            self._tenants = {
                name: t
                for name, t in self._tenants.items()
                if t.running or t.waiting or t.finish > self._virtual or now - t.last_seen < _ACTIVE_S
            }

    def pop(self, now: float) -> Ticket | None:
        """The ticket that may run now, or None. The engine's room is checked here."""
        heads = [(tenant, head) for tenant in self._tenants.values() if (head := tenant.head()) is not None]
        active = self._active(now) if heads else ()
        heads = [(tenant, head) for tenant, head in heads if self._has_room(tenant, active)]
        if not heads:
            return None
        # Waiting lifts a tenant up to the most urgent of the others and no further: among equals, tokens decide.
        most_urgent = min(head.priority for _, head in heads)

        def order(entry: tuple[_Tenant, Ticket]) -> tuple[int, float, int]:
            tenant, head = entry
            since = now - max(head.arrival, tenant.last_grant)
            aged = head.priority - int(since / self._aging_s)
            return max(most_urgent, aged), tenant.finish, head.number

        # Prompts that are being computed stand before whoever comes next: two steps' worth keeps the engine busy, one is kinder to others.
        alone = len(active) == 1
        limit = self._room.step_tokens * (2 if alone else 1)
        for tenant, ticket in sorted(heads, key=order):
            if not alone and self._is_long(ticket) and self._long_prefills:
                continue  # it follows the long prompt that is in; others pass it without delaying that one's half of each step
            computing = self.prefill_tokens if alone else self._prefill_load
            if computing and computing + (ticket.prompt_tokens if alone else self._load(ticket)) > limit:
                return None  # it stays first: passing it over would let small prompts starve large ones
            self._grant(tenant, ticket, now)
            return ticket
        return None

    def _is_long(self, ticket: Ticket) -> bool:
        return ticket.prompt_tokens > self._room.step_tokens // 2

    def _load(self, ticket: Ticket) -> int:
        """Tokens that a prompt takes of a step: the engine gives a long one half of it while others wait."""
        return min(ticket.prompt_tokens, max(1, self._room.step_tokens // 2))

    def _count_prefill(self, ticket: Ticket, sign: int) -> None:
        self.prefill_tokens += sign * ticket.prompt_tokens
        self._prefill_load += sign * self._load(ticket)
        self._long_prefills += sign * self._is_long(ticket)

    def _active(self, now: float) -> tuple[_Tenant, ...]:
        return tuple(
            t for t in self._tenants.values() if t.running or t.waiting or now - t.last_seen < _ACTIVE_S
        )

    def _has_room(self, tenant: _Tenant, active: tuple[_Tenant, ...]) -> bool:
        slots = self._room.slots
        if len(active) == 1:
            return self.running < slots + self._room.spare
        share = slots * tenant.weight / sum(other.weight for other in active)
        return self.running < (slots if tenant.running < share else slots - self._reserve)

    def _grant(self, tenant: _Tenant, ticket: Ticket, now: float) -> None:
        heapq.heappop(tenant.heap)
        self._virtual = max(self._virtual, tenant.finish)
        ticket.expected = min(float(ticket.max_tokens), tenant.mean_output)
        tenant.finish += (ticket.prompt_tokens + ticket.expected) / tenant.weight
        ticket.state, ticket.in_prefill = TicketState.GRANTED, True
        tenant.last_grant = tenant.last_seen = now
        self._unwait(tenant, ticket)
        tenant.running += 1
        self.running += 1
        self._count_prefill(ticket, 1)

    def _unwait(self, tenant: _Tenant, ticket: Ticket) -> None:
        tenant.waiting -= 1
        tenant.waiting_tokens -= ticket.prompt_tokens
        self.waiting -= 1
        self.waiting_tokens -= ticket.prompt_tokens

    def first_token(self, ticket: Ticket) -> None:
        """Its prompt has been computed."""
        if ticket.in_prefill:
            ticket.in_prefill = False
            self._count_prefill(ticket, -1)

    def produced(self, ticket: Ticket, count: int) -> None:
        """Output beyond what was expected is paid when it comes."""
        before = max(ticket.expected, float(ticket.produced))
        ticket.produced += count
        if ticket.produced > before:
            tenant = self._tenants[ticket.tenant]
            tenant.finish += (ticket.produced - before) / tenant.weight

    def done(self, ticket: Ticket, now: float) -> None:
        """The sequence has ended or is not wanted any more, in whatever state; safe more than once."""
        if ticket.state is TicketState.DONE:
            return
        tenant = self._tenants[ticket.tenant]
        if ticket.state is TicketState.WAITING:
            self._unwait(tenant, ticket)
        else:
            self.first_token(ticket)
            self.running -= 1
            tenant.running -= 1
            refund = max(0.0, ticket.expected - ticket.produced) / tenant.weight
            # never further back than one request's price: what was overpaid while nobody else was there is no claim on others
            least = self._virtual - (ticket.prompt_tokens + ticket.expected) / tenant.weight
            tenant.finish = max(tenant.finish - refund, min(tenant.finish, least))
            tenant.mean_output += _LEARNING * (ticket.produced - tenant.mean_output)
        tenant.last_seen = now
        ticket.state = TicketState.DONE
        self._compact(tenant)
        if not self.running and not self.waiting:  # the end of a busy period: nobody owes anybody anything
            self._virtual = max(t.finish for t in self._tenants.values())

    def _compact(self, tenant: _Tenant) -> None:
        """Tickets that left while waiting are dropped when they reach the top, or when they are the most of a heap."""
        if len(tenant.heap) > 64 and len(tenant.heap) > 2 * tenant.waiting:
            tenant.heap = [entry for entry in tenant.heap if entry[2].state is TicketState.WAITING]
            heapq.heapify(tenant.heap)

    def to_push_out(self, tenant: str, count: int, tokens: int, by_tokens: bool) -> Ticket | None:
        """Whom a full queue should let go when `tenant` wants in with `count` sequences of `tokens` prompt tokens: the newest ticket of
        the tenant that has most in it for its weight, or None when that is `tenant` itself, which has to be refused then."""

        def load(other: _Tenant, more: int = 0) -> float:
            return ((other.waiting_tokens if by_tokens else other.waiting) + more) / other.weight

        longest = max(self._tenants.values(), key=load, default=None)
        asking = self._tenants.get(tenant) or _Tenant(tenant)
        if (
            longest is None
            or longest is asking
            or load(longest) <= load(asking, tokens if by_tokens else count)
        ):
            return None
        waiting = [entry[2] for entry in longest.heap if entry[2].state is TicketState.WAITING]
        return max(waiting, key=lambda ticket: ticket.number)

    def oldest_arrival(self) -> float | None:
        """When the one that waits longest came."""
        arrivals = (
            e[2].arrival for t in self._tenants.values() for e in t.heap if e[2].state is TicketState.WAITING
        )
        return min(arrivals, default=None)
