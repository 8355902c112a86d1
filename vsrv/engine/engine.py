"""Engine: add, abort, step. The order of everything, on one page.

With lag 1 the results of step n are processed while step n + 1 runs: sampled ids stay on the device and feed the next step, text, usage
and stops follow one step later, and a token computed for a sequence that turned out to have ended is dropped. Where a sequence has a
grammar, n + 1 is launched up to its logits, the ids of n are read, and n + 1 is sampled with the masks that follow from them.
Every sequence gets exactly one end: an output with a finish reason, or a Failed.
"""

from __future__ import annotations

import bisect
import random
import sys
import traceback
from array import array
from dataclasses import dataclass

import torch

from vsrv.engine import batch as batches
from vsrv.engine.batch import Batch
from vsrv.engine.grammar import GrammarFailure, Grammars
from vsrv.engine.runner import Runner, Sampled
from vsrv.engine.scheduler import Plan, Scheduler
from vsrv.engine.sequence import Sequence, SequenceStatus, merge_logprobs
from vsrv.messages import (
    ITERATION_BUCKETS,
    Embed,
    Failed,
    FinishReason,
    Generate,
    LogProbs,
    Pooled,
    TokenOutput,
)

Output = TokenOutput | Failed | Pooled


@dataclass(frozen=True, slots=True)
class Forward:
    """A step that runs or has run up to its logits [R, V]."""

    batch: Batch
    logits: torch.Tensor


@dataclass(frozen=True, slots=True)
class InFlight:
    """A launched step whose results have not been processed."""

    batch: Batch
    sampled: Sampled


class Engine:
    """Owned by one thread; nothing here blocks on anything but the device."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        block_size: int,
        lag: int,
        seed: int,
        grammars: Grammars | None = None,
    ) -> None:
        self._runner = runner
        self.scheduler = scheduler
        self._block_size = block_size
        self._lag = lag
        self.grammars = grammars
        self._random = random.Random(seed)
        self._sequences: dict[int, Sequence] = {}
        self._in_flight: InFlight | None = None
        self._outbox: list[Output] = []
        self._arrivals = 0
        self.reset_statistics()

    def add(self, frame: Generate | Embed) -> None:
        """Queue a sequence. What can never run is answered with Failed by the next step."""
        if isinstance(frame, Embed):
            return self._refuse(frame.seq_id, "task_not_supported", "this model makes no vectors")
        limits, pool = self.scheduler.limits, self.scheduler.pool
        length, params = len(frame.prompt_token_ids), frame.params
        vocabulary = self._runner.model.spec.vocab_size
        if frame.seq_id in self._sequences:
            return self._refuse(frame.seq_id, "duplicate_id", "sequence id is already in use")
        if length == 0:
            return self._refuse(frame.seq_id, "empty_prompt", "the prompt has no tokens")
        if (
            length + min(1, params.max_tokens) > limits.max_model_len
            or pool.blocks_for(length + 1) > pool.num_blocks
        ):
            message = f"the prompt has {length} tokens, the model's context {limits.max_model_len}"
            return self._refuse(frame.seq_id, "context_length_exceeded", message)
        if max(frame.prompt_token_ids) >= vocabulary or any(t >= vocabulary for t in _ids_of(frame)):
            return self._refuse(frame.seq_id, "invalid_token_id", f"token ids must be below {vocabulary}")
        if params.grammar and self.grammars is None:
            return self._refuse(frame.seq_id, "invalid_grammar", "this engine has no grammars")
        seed = self._random.getrandbits(64) if params.seed is None else params.seed
        self._arrivals += 1
        sequence = Sequence.of(frame, self._arrivals, seed)
        self._sequences[frame.seq_id] = sequence
        self.prompt_tokens += length
        if params.grammar and self.grammars is not None:
            sequence.status = SequenceStatus.COMPILING
            self.grammars.submit(sequence)
        else:
            self.scheduler.add(sequence)

    def abort(self, seq_id: int) -> None:
        """End a sequence in any state; unknown ids have ended already."""
        sequence = self._sequences.get(seq_id)
        if sequence is not None:
            if sequence.status is SequenceStatus.COMPILING and self.grammars is not None:
                self.grammars.withdraw(sequence)
            self._end(sequence, FinishReason.ABORT)
            self._outbox.append(TokenOutput(seq_id, array("I"), FinishReason.ABORT))

    def has_work(self) -> bool:
        return bool(self._sequences or self._outbox or self._in_flight)

    @property
    def only_compiles(self) -> bool:
        """All work there is waits for grammars, so that a step would do nothing."""
        compiling = self.grammars.num_waiting if self.grammars is not None else 0
        return 0 < compiling == len(self._sequences) and not (self._outbox or self._in_flight)

    def step(self) -> list[Output]:
        """Schedule, launch, process the results that are due; returns what happened, in order."""
        self._take_compiled()
        plan = self.scheduler.schedule()
        forward = self._forward(plan) if plan is not None else None
        due, self._in_flight = self._in_flight, None
        if due is not None and forward is not None and forward.batch.is_constrained:
            self._process(due)  # the masks follow from these ids
            due = None
        launched = self._sample(forward) if forward is not None else None
        if self._lag:
            self._in_flight = launched
        else:
            due = launched
        if due is not None:
            self._process(due)
        outputs, self._outbox = self._outbox, []
        return outputs

    def queues(self) -> tuple[int, int]:
        """Sequences that run, and that wait."""
        return len(self.scheduler.running), len(self.scheduler.waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the cache's blocks that a sequence holds, 0..1."""
        return self.scheduler.pool.usage

    def counters(self) -> dict[str, float]:
        """Totals since the start, by the names of `Beat.counters`."""
        scheduler = self.scheduler
        counts = {
            "prompt_tokens": self.prompt_tokens,
            "generation_tokens": self.generation_tokens,
            "computed_tokens": self.computed_tokens,
            "prefix_cache_queries": scheduler.prefix_queries,
            "prefix_cache_hits": scheduler.prefix_hits,
            "preemptions": scheduler.num_preemptions,
            "cached_blocks": scheduler.pool.num_cached,
            **{f"finished_{reason}": count for reason, count in self.finished.items()},
        }
        return {name: float(count) for name, count in counts.items()}

    def reset_statistics(self) -> None:
        """Start counting anew, after the warm-up."""
        self.num_steps = self.prompt_tokens = self.generation_tokens = self.computed_tokens = 0
        self.iteration_tokens = [0] * (len(ITERATION_BUCKETS) + 1)  # steps by size, see Beat
        self.finished: dict[str, int] = {}
        self.scheduler.prefix_queries = self.scheduler.prefix_hits = self.scheduler.num_preemptions = 0

    def check(self) -> None:
        """Invariants, for tests."""
        self.scheduler.check()
        compiling = [s for s in self._sequences.values() if s.status is SequenceStatus.COMPILING]
        queued = self.scheduler.waiting + self.scheduler.running + compiling
        assert {id(s) for s in queued} == {id(s) for s in self._sequences.values()}, (
            "a sequence is lost or kept after its end"
        )

    def _take_compiled(self) -> None:
        """Sequences whose matcher has been built join the queue, in the place that their arrival gives them."""
        if self.grammars is None:
            return
        for compiled in self.grammars.compiled():
            if compiled.failure is not None:
                self._end_failed(compiled.sequence, compiled.failure.code, compiled.failure.message)
            else:
                compiled.sequence.status = SequenceStatus.WAITING
                self.scheduler.add(compiled.sequence)

    def _forward(self, plan: Plan) -> Forward | None:
        try:
            for item in plan.items:
                if item.sequence.assigned_slot != item.sequence.slot:
                    self._runner.assign(item.sequence)
                    item.sequence.assigned_slot = item.sequence.slot
            batch = batches.build(plan, self._block_size)
            return Forward(batch, self._runner.forward(batch))
        except Exception:
            self._fail(plan)
            return None

    def _sample(self, forward: Forward) -> InFlight | None:
        batch = forward.batch
        try:
            masks = None
            if batch.is_constrained and self.grammars is not None:
                masks = self.grammars.masks([item.sequence for item in batch.sampling])
            sampled = self._runner.sample(batch, forward.logits, masks)
        except Exception:
            self._fail(batch.plan)
            return None
        for item in batch.sampling:
            item.sequence.num_in_flight = 1
        return InFlight(batch, sampled)

    def _fail(self, plan: Plan) -> None:
        """A step that raises ends its own sequences and nothing else; what it claimed to have computed is forgotten.

        Raises when the device itself is lost: then the process must end, and the front starts another.
        """
        traceback.print_exc(file=sys.stderr)
        self._runner.placement.check()
        for item in plan.items:
            self.scheduler.pool.forget(item.named_blocks)
        for item in plan.items:
            if item.sequence.status is not SequenceStatus.FINISHED:
                self._end_failed(item.sequence, "engine_error", "the engine failed on this request")
        self.scheduler.step_done(plan.step)

    def _process(self, done: InFlight) -> None:
        self._count_step(len(done.batch.input_ids))
        results = done.sampled.read()
        for sequence, rows in results.prompt_logprobs:
            sequence.prompt_logprobs.append(rows)
        for row, (item, token) in enumerate(zip(done.batch.sampling, results.ids, strict=True)):
            sequence = item.sequence
            if sequence.last_step == done.batch.plan.step:  # else the next step has sampled for it already
                sequence.num_in_flight = 0
            if sequence.status is SequenceStatus.FINISHED:
                continue  # ended or aborted while this step ran: the overrun token is dropped
            self._confirm(sequence, token, results.logprobs.get(row))
        self.scheduler.step_done(done.batch.plan.step)

    def _count_step(self, tokens: int) -> None:
        self.num_steps += 1
        self.computed_tokens += tokens
        self.iteration_tokens[bisect.bisect_left(ITERATION_BUCKETS, tokens)] += 1

    def _confirm(self, sequence: Sequence, token: int, logprobs: LogProbs | None) -> None:
        prompt_logprobs = None if sequence.reported else merge_logprobs(sequence.prompt_logprobs)
        cached = None if sequence.reported else sequence.num_cached_tokens or 0
        sequence.reported = True
        sequence.prompt_logprobs = []
        if sequence.params.max_tokens == 0:  # only the prompt was asked for
            self._end(sequence, FinishReason.LENGTH)
            output = TokenOutput(
                sequence.seq_id, array("I"), FinishReason.LENGTH, None, cached, None, prompt_logprobs
            )
            self._outbox.append(output)
            return
        sequence.token_ids.append(token)
        self.generation_tokens += 1
        reason, stop_token = sequence.stop_after(token, self.scheduler.limits.max_model_len)
        if sequence.matcher is not None and self.grammars is not None:
            try:
                complete = self.grammars.accept(sequence, token)
            except GrammarFailure as failure:
                return self._end_failed(sequence, failure.code, failure.message)
            reason = FinishReason.STOP if complete else reason
        if reason is not FinishReason.NONE:
            self._end(sequence, reason)
        self._outbox.append(
            TokenOutput(
                sequence.seq_id,
                array("I", [token]),
                reason,
                stop_token,
                cached,
                logprobs,
                prompt_logprobs,
            )
        )

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        name = reason.name.lower()
        self.finished[name] = self.finished.get(name, 0) + 1
        self.scheduler.finish(sequence)
        del self._sequences[sequence.seq_id]

    def _end_failed(self, sequence: Sequence, code: str, message: str) -> None:
        self._end(sequence, FinishReason.ERROR)
        self._outbox.append(Failed(sequence.seq_id, code, message))

    def _refuse(self, seq_id: int, code: str, message: str) -> None:
        self._outbox.append(Failed(seq_id, code, message))


def _ids_of(frame: Generate) -> list[int]:
    """Every token id that the parameters name; they index arrays in the sampling kernel."""
    params = frame.params
    named = [*params.stop_token_ids, *params.allowed_token_ids, *(token for token, _ in params.logit_bias)]
    named += [token for word in params.bad_words for token in word]
    return named if params.eos_token_id is None else [*named, params.eos_token_id]
