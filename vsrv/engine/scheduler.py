"""Who computes how many tokens in the next step. Sees counts of tokens and blocks only.

There are no phases: every sequence has tokens that are computed and tokens that are not, and one token budget is dealt first to
running sequences, then to waiting ones. That gives chunked prefill beside decode, prefix hits and preemption in one loop.
"""

from __future__ import annotations

import bisect
from array import array
from dataclasses import dataclass

from vsrv.engine.blocks import BlockPool
from vsrv.engine.sequence import Sequence, SequenceStatus


@dataclass(frozen=True, slots=True)
class Scheduled:
    """`num_tokens` tokens from position `start` of one sequence; `samples` when the last of them is its newest token.

    `named_blocks` were registered because this item fills them: they are forgotten again if it is not computed after all.
    """

    sequence: Sequence
    start: int
    num_tokens: int
    samples: bool
    named_blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    step: int
    items: tuple[Scheduled, ...]


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    long_prefill_token_threshold: int = 0  # 0 = a prompt may take the whole budget of a step
    policy: str = "fcfs"  # or "priority": (priority, arrival), smaller first


class Scheduler:
    """Owns the queues and decides. Freed blocks of sequences in the step in flight wait in `_parked` until that step is done."""

    def __init__(self, limits: SchedulerLimits, pool: BlockPool) -> None:
        self.limits = limits
        self.pool = pool
        self.waiting: list[Sequence] = []  # kept sorted by `_rank`
        self.running: list[Sequence] = []  # in order of admission
        self.step = 0  # number of the newest plan
        self._done = 0  # number of the newest plan whose results are in
        self.num_preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self._free_slots = list(range(limits.max_num_seqs - 1, -1, -1))
        self._parked: list[tuple[int, array[int], int]] = []  # step, blocks, slot

    def _rank(self, sequence: Sequence) -> tuple[int, int]:
        return (sequence.priority if self.limits.policy == "priority" else 0, sequence.arrival)

    def add(self, sequence: Sequence) -> None:
        bisect.insort(self.waiting, sequence, key=self._rank)

    def schedule(self) -> Plan | None:
        """The next step's plan, or None when nothing can run now."""
        budget = self.limits.max_num_batched_tokens
        items: list[Scheduled] = []
        preempted = False
        for sequence in list(self.running):
            if sequence.status is not SequenceStatus.RUNNING or budget == 0:
                continue
            count = min(self._wanted(sequence), budget, self._share(len(self.waiting)))
            if count == 0:
                continue
            while not self.pool.grow(sequence, sequence.num_computed_tokens + count):
                preempted = True
                victim = max(self.running, key=self._rank)
                budget += self._unschedule(items, victim)
                freed = self._preempt(victim)
                if victim is sequence or not freed:
                    break
            else:
                items.append(self._take(sequence, count))
                budget -= count
        if not preempted:
            self._admit(items, budget)
        if not items:
            return None
        self.step += 1
        return Plan(self.step, tuple(items))

    def _share(self, num_others: int) -> int:
        """Most tokens of one prompt in a step: half of it while others wait to be let in, so that a long prompt is nobody else's stop."""
        budget = self.limits.max_num_batched_tokens
        return max(1, budget // 2) if num_others and self._free_slots else budget

    def _wanted(self, sequence: Sequence) -> int:
        """Tokens that could be computed now; 0 for one that ends with the token in flight whatever it is."""
        if sequence.num_in_flight:
            ends = sequence.num_output_tokens + 1 >= sequence.params.max_tokens
            if ends or sequence.num_scheduled_tokens >= self.limits.max_model_len:
                return 0
        wanted = sequence.num_scheduled_tokens - sequence.num_computed_tokens
        threshold = self.limits.long_prefill_token_threshold
        return min(wanted, threshold) if threshold else wanted

    def _take(self, sequence: Sequence, count: int) -> Scheduled:
        start = sequence.num_computed_tokens
        sequence.num_computed_tokens += count
        sequence.last_step = self.step + 1
        samples = sequence.num_computed_tokens == sequence.num_scheduled_tokens
        return Scheduled(sequence, start, count, samples, tuple(self.pool.register(sequence)))

    def _unschedule(self, items: list[Scheduled], victim: Sequence) -> int:
        """Take a victim that already had its turn out of the plan; returns the budget it gives back."""
        for item in items:
            if item.sequence is victim:
                items.remove(item)
                self.pool.forget(item.named_blocks)
                victim.last_step = self.step
                return item.num_tokens
        return 0

    def _admit(self, items: list[Scheduled], budget: int) -> None:
        while self.waiting and budget > 0 and self._free_slots:
            sequence = self.waiting[0]
            if sequence.num_in_flight:
                return  # preempted in this very step: its token must be read back before it can be recomputed
            cached = self.pool.match_prefix(sequence)
            total = len(sequence.token_ids)
            fresh = self.pool.blocks_for(total) - len(cached) + self.pool.num_evicted_by(cached)
            if fresh > self.pool.num_free:
                return  # its whole prompt must fit, else it would push others out again
            self.waiting.pop(0)
            self._count_prefix(sequence, cached)
            self.pool.take_cached(sequence, cached)
            sequence.status = SequenceStatus.RUNNING
            sequence.slot = self._free_slots.pop()
            self.running.append(sequence)
            count = min(self._wanted(sequence), budget, self._share(len(self.waiting)))
            grown = self.pool.grow(sequence, sequence.num_computed_tokens + count)
            assert grown, "admission counted the free blocks"
            items.append(self._take(sequence, count))
            budget -= count

    def _count_prefix(self, sequence: Sequence, cached: list[int]) -> None:
        if sequence.num_cached_tokens is None:
            sequence.num_cached_tokens = len(cached) * self.pool.block_size
            self.prefix_queries += len(sequence.token_ids)
            self.prefix_hits += sequence.num_cached_tokens

    def _preempt(self, sequence: Sequence) -> bool:
        """Back to the front of the queue; its tokens stay, its K and V are computed again. True if its blocks are free now."""
        self.num_preemptions += 1
        sequence.num_preemptions += 1
        sequence.status = SequenceStatus.WAITING
        self.running.remove(sequence)
        freed = self._give_back(sequence)
        sequence.num_computed_tokens = 0
        sequence.num_registered_blocks = 0
        self.add(sequence)
        return freed

    def finish(self, sequence: Sequence) -> None:
        """Take an ended or aborted sequence out of the queues."""
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
            self._give_back(sequence)
        elif sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED

    def _give_back(self, sequence: Sequence) -> bool:
        """Free blocks and slot, now or when the step in flight that works on them is done."""
        self._parked.append((sequence.last_step, sequence.block_table, sequence.slot))
        sequence.block_table = array("i")
        sequence.slot = sequence.assigned_slot = -1
        if sequence.last_step <= self._done:
            self.step_done(self._done)
            return True
        return False

    def step_done(self, step: int) -> None:
        """Free what waited for steps up to `step`."""
        self._done = step
        ready = [entry for entry in self._parked if entry[0] <= step]
        self._parked = [entry for entry in self._parked if entry[0] > step]
        for _, blocks, slot in ready:
            self.pool.release(blocks)
            self._free_slots.append(slot)

    def check(self) -> None:
        """Invariants, for tests and idle moments: blocks add up, every slot has one owner."""
        self.pool.check([s.block_table for s in self.running] + [blocks for _, blocks, _ in self._parked])
        slots = self._free_slots + [s.slot for s in self.running] + [slot for _, _, slot in self._parked]
        assert sorted(slots) == list(range(self.limits.max_num_seqs)), "sampling slots do not add up"
