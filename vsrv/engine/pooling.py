"""A decoder that makes vectors: the paged prefill of generation, with its chunks and shared prefixes, but nothing is sampled.

A sequence is a prompt without an answer; the last token's hidden state, through the pooler, is its end.
"""

from __future__ import annotations

from array import array
from dataclasses import replace

import torch

from vsrv.engine.batch import Batch
from vsrv.engine.engine import Engine, InFlight
from vsrv.engine.placement import Placement
from vsrv.engine.runner import Sampled, new_cache
from vsrv.engine.scheduler import Scheduler
from vsrv.engine.sequence import Sequence, SequenceStatus
from vsrv.kernels import AttentionMetadata, Kernels
from vsrv.messages import Embed, FinishReason, Generate, Pooled, SamplingParams
from vsrv.models.decoder import Model
from vsrv.models.pooling import Pooler, Wanted

_NO_ANSWER = SamplingParams(max_tokens=0, temperature=0.0)


class PoolingRunner:
    """In the place of a ModelRunner: the rows that would be sampled are handed on. Owned by the engine thread."""

    def __init__(self, model: Model, kernels: Kernels, num_blocks: int, placement: Placement) -> None:
        self.model = model
        self.placement = placement
        self._kernels = kernels
        self._cache = new_cache(model, kernels, num_blocks, placement)
        self._no_tokens = torch.zeros(1, dtype=torch.int32, device=kernels.device)

    def assign(self, sequence: Sequence) -> None:
        """Nothing is kept for a sequence beside its blocks."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """Run the model over a batch → hidden states [R, H] of the sequences' last tokens."""
        inputs = self.placement.place(batch, self._no_tokens)
        meta = self._planned(inputs.attention)
        return self.model.forward(inputs.ids, meta, self._cache).index_select(0, inputs.logits_index)

    def sample(self, batch: Batch, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> Sampled:
        """hidden [R, H], on its way to the host."""
        return Sampled(self.placement.fetch([hidden.float()]), [], [])

    def _planned(self, meta: AttentionMetadata) -> AttentionMetadata:
        return replace(meta, plan=self._kernels.plan(meta, self.model.heads))


class PoolingEngine(Engine):
    """`Engine` for Embed frames."""

    def __init__(self, runner: PoolingRunner, pooler: Pooler, scheduler: Scheduler, block_size: int) -> None:
        super().__init__(runner, scheduler, block_size, lag=0, seed=0)
        self._pooler = pooler
        self._wanted: dict[int, Wanted] = {}

    def add(self, frame: Generate | Embed) -> None:
        """Queue a sequence. What can never run is answered with Failed by the next step."""
        if not isinstance(frame, Embed):
            return self._refuse(frame.seq_id, "task_not_supported", "this model generates no text")
        prompt = Generate(
            frame.seq_id, frame.token_ids, _NO_ANSWER, frame.cache_salt, priority=frame.priority
        )
        super().add(prompt)
        if frame.seq_id in self._sequences:
            self._wanted[frame.seq_id] = Wanted(frame.dimensions, frame.raw)

    def _process(self, done: InFlight) -> None:
        self._count_step(len(done.batch.input_ids))
        (hidden,) = done.sampled.fetched()
        sequences = [item.sequence for item in done.batch.sampling]
        wanted = [self._wanted.get(sequence.seq_id, Wanted()) for sequence in sequences]
        for sequence, vector in zip(sequences, self._pooler.finish(hidden, wanted), strict=True):
            sequence.num_in_flight = 0
            if sequence.status is not SequenceStatus.FINISHED:
                self._end(sequence, FinishReason.STOP)
                self._outbox.append(
                    Pooled(sequence.seq_id, array("f", vector.contiguous().numpy().tobytes()))
                )
        self.scheduler.step_done(done.batch.plan.step)

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        self._wanted.pop(sequence.seq_id, None)
        super()._end(sequence, reason)
