"""ModelRunner: owns model, KV cache and sampling state; turns a Batch into sampled ids. The only file that touches tensors of a step.

forward and sample are separate launches: a sequence that waits for a grammar mask is sampled after its mask is there.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import torch

from vsrv.engine.batch import Batch
from vsrv.engine.sequence import Sequence
from vsrv.kernels import Kernels
from vsrv.messages import LogProbs
from vsrv.models.decoder import Model

_LOGIT_ROWS = 64  # prompt logprobs are computed in slices of so many rows: 64 x 152k floats are 39 MB
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Sampled:
    """Results of one step in device memory: ids i32 [R]; logprobs rows for those items that asked."""

    ids: torch.Tensor
    logprobs: dict[int, LogProbs]  # by row


def _blocks(count: int, size: int) -> torch.Tensor:
    """Zeroed KV blocks u8 [count, size] on a page boundary (kernels load whole cache lines). numpy asks for zero pages, which
    take no memory and no time until they are used; torch.zeros would write them all at start (6 GB: 2 to 10 s)."""
    raw = np.zeros(count * size + _PAGE_BYTES, np.uint8)
    start = -raw.ctypes.data % _PAGE_BYTES
    return torch.from_numpy(raw[start : start + count * size].reshape(count, size))


class ModelRunner:
    """Owned by the engine thread."""

    def __init__(self, model: Model, kernels: Kernels, num_blocks: int, max_num_seqs: int) -> None:
        self.model = model
        self._kernels = kernels
        spec = model.spec
        sizes = kernels.kv_block_bytes(spec.num_kv_heads, spec.head_dim, model.dtype)
        self._kv_cache = [
            (_blocks(num_blocks, sizes[0]), _blocks(num_blocks, sizes[1])) for _ in range(spec.num_layers)
        ]
        self.state = kernels.new_sampling_state(max_num_seqs, spec.vocab_size)
        self._last_token = torch.from_numpy(self.state.last_token)

    def assign(self, sequence: Sequence) -> None:
        """Load a newly admitted sequence's sampling parameters into its slot."""
        self.state.assign(
            sequence.slot,
            sequence.params,
            sequence.seed,
            sequence.token_ids[: sequence.num_prompt_tokens],
            sequence.output_token_ids,
        )

    def forward(self, batch: Batch) -> torch.Tensor:
        """Run the model over a batch → float32 logits [R, V] of the rows that sample; collects prompt logprobs on the way."""
        ids = batch.input_ids
        if len(batch.pending):
            ids[batch.pending] = self._last_token[batch.pending_slots]
        hidden = self.model.forward(ids, batch.attention, self._kv_cache)
        self._prompt_logprobs(batch, hidden)
        return self.model.logits(hidden, batch.logits_index)

    def sample(self, batch: Batch, logits: torch.Tensor, mask: torch.Tensor | None = None) -> Sampled:
        """logits [R, V] → ids, and logprobs of raw logits where asked."""
        ids = torch.empty(len(batch.sampling), dtype=torch.int32)
        if not batch.sampling:
            return Sampled(ids, {})
        self._kernels.sample(logits, batch.slots, self.state, mask, ids)
        logprobs: dict[int, LogProbs] = {}
        for row, item in enumerate(batch.sampling):
            k = item.sequence.params.logprobs
            if k is not None:
                logprobs[row] = self._logprobs(logits[row : row + 1], ids[row : row + 1], k)
        return Sampled(ids, logprobs)

    def _logprobs(self, logits: torch.Tensor, chosen: torch.Tensor, k: int) -> LogProbs:
        rows, k = logits.shape[0], min(k, logits.shape[1])
        ids = torch.empty(rows, k + 1, dtype=torch.int32)
        values = torch.empty(rows, k + 1)
        ranks = torch.empty(rows, dtype=torch.int32)
        self._kernels.logprobs(logits, chosen, k, ids, values, ranks)
        return LogProbs(
            k,
            array("I", ids.numpy().tobytes()),
            array("f", values.numpy().tobytes()),
            array("I", ranks.numpy().tobytes()),
        )

    def _prompt_logprobs(self, batch: Batch, hidden: torch.Tensor) -> None:
        for row, item in enumerate(batch.plan.items):
            sequence = item.sequence
            k = sequence.params.prompt_logprobs
            # position p predicts token p + 1; a preempted sequence has its rows already
            last = min(item.start + item.num_tokens, sequence.num_prompt_tokens - 1)
            if k is None or sequence.reported or item.start >= last:
                continue
            done = sum(part.num_positions for part in sequence.prompt_logprobs)
            first_row = int(batch.attention.cu_seqlens_q[row])
            for start in range(max(item.start, done), last, _LOGIT_ROWS):
                end = min(start + _LOGIT_ROWS, last)
                rows = torch.arange(first_row + start - item.start, first_row + end - item.start)
                chosen = torch.tensor(sequence.token_ids[start + 1 : end + 1], dtype=torch.int32)
                sequence.prompt_logprobs.append(self._logprobs(self.model.logits(hidden, rows), chosen, k))
