"""ModelRunner: owns model, KV cache and sampling state; turns a Batch into sampled ids. The only file that touches tensors of a step.

forward and sample are separate launches: a sequence that waits for a grammar mask is sampled after its mask is there, and a captured
graph ends at the logits. Results are fetched, not waited for: with lag 1 the next step is launched before `Sampled.read`.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from vsrv.engine.batch import Batch
from vsrv.engine.graphs import Capture, Graphs
from vsrv.engine.placement import Fetched, Host, Inputs, Placement
from vsrv.engine.sequence import Sequence
from vsrv.kernels import Kernels
from vsrv.messages import LogProbs
from vsrv.models.decoder import Model

_LOGIT_ROWS = 64  # prompt logprobs are computed in slices of so many rows: 64 x 152k floats are 39 MB


@dataclass(frozen=True, slots=True)
class Results:
    """What a step gave: ids by row, logprobs of those rows that asked, rows of prompt logprobs by sequence."""

    ids: list[int]
    logprobs: dict[int, LogProbs]
    prompt_logprobs: list[tuple[Sequence, LogProbs]]


@dataclass(frozen=True, slots=True)
class Sampled:
    """Results on their way from the device."""

    fetched: Fetched
    rows: list[tuple[int, int]]  # (row, k) of those that asked for logprobs
    prompts: list[tuple[Sequence, int]]  # (sequence, k) of every slice of prompt logprobs

    def read(self) -> Results:
        """Wait for the device, then give everything as values."""
        ids, *tables = self.fetched()
        logprobs: dict[int, LogProbs] = {}
        if self.rows:
            wide, tables = tables[:3], tables[3:]
            for index, (row, k) in enumerate(self.rows):
                logprobs[row] = _logprobs([table[index : index + 1] for table in wide], k)
        prompts = [
            (sequence, _logprobs(tables[3 * i : 3 * i + 3], k))
            for i, (sequence, k) in enumerate(self.prompts)
        ]
        return Results(ids.tolist(), logprobs, prompts)


def _logprobs(tables: list[torch.Tensor], k: int) -> LogProbs:
    """ids and values [R, at least k + 1], ranks [R] → packed arrays of k + 1 columns."""
    ids, values, ranks = tables
    return LogProbs(
        k,
        array("I", ids[:, : k + 1].contiguous().numpy().tobytes()),
        array("f", values[:, : k + 1].contiguous().numpy().tobytes()),
        array("I", ranks.numpy().tobytes()),
    )


def new_cache(
    model: Model, kernels: Kernels, num_blocks: int, placement: Placement
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """K and V blocks of every layer."""
    spec = model.spec
    k_bytes, v_bytes = kernels.kv_block_bytes(spec.num_kv_heads, spec.head_dim, model.dtype)
    return [
        (placement.kv_blocks(num_blocks, k_bytes), placement.kv_blocks(num_blocks, v_bytes))
        for _ in range(spec.num_layers)
    ]


class Runner(Protocol):
    """What the engine's loop asks of whoever computes its steps."""

    model: Model
    placement: Placement

    def assign(self, sequence: Sequence) -> None: ...

    def forward(self, batch: Batch) -> torch.Tensor: ...

    def sample(self, batch: Batch, logits: torch.Tensor, mask: torch.Tensor | None = None, /) -> Sampled: ...


class ModelRunner:
    """Owned by the engine thread."""

    def __init__(
        self,
        model: Model,
        kernels: Kernels,
        num_blocks: int,
        max_num_seqs: int,
        placement: Placement | None = None,
    ) -> None:
        self.model = model
        self._kernels = kernels
        self.placement = placement or Host()
        self.kv_cache = new_cache(model, kernels, num_blocks, self.placement)
        self.state = kernels.new_sampling_state(max_num_seqs, model.spec.vocab_size)
        self.last_token = torch.as_tensor(self.state.last_token)
        self.graphs: Graphs | None = None  # set where steps can be captured
        self._slots: torch.Tensor | None = None
        self._prompts: list[tuple[Sequence, int]] = []
        self._prompt_tables: list[torch.Tensor] = []

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
        """Run the model over a batch → float32 logits [R, V] of the rows that sample; starts prompt logprobs on the way."""
        replayed = self.graphs.forward(batch) if self.graphs is not None else None
        if replayed is not None:
            logits, self._slots = replayed
            return logits
        inputs = self.placement.place(batch, self.last_token)
        self._slots = inputs.slots
        hidden = self.run(inputs)
        self._prompt_logprobs(batch, hidden)
        return self.model.logits(hidden, inputs.logits_index)

    def use_graphs(self, capture: Capture, max_num_seqs: int, max_blocks: int) -> None:
        """From now on replay decode steps. The kernels must be prepared and the model's buffers reserved: nothing may move any more."""
        self.graphs = Graphs(
            self.run,
            lambda hidden: self.model.logits(hidden, None),
            self.placement,
            self.last_token,
            capture,
            max_num_seqs,
            max_blocks,
        )

    def run(self, inputs: Inputs) -> torch.Tensor:
        """The model's layers → hidden [T, H]."""
        meta = replace(inputs.attention, plan=self._kernels.plan(inputs.attention, self.model.heads))
        return self.model.forward(inputs.ids, meta, self.kv_cache)

    def sample(self, batch: Batch, logits: torch.Tensor, mask: torch.Tensor | None = None) -> Sampled:
        """logits [R, V] and host masks i32 [R, ceil(V / 32)] (`Grammars.masks`) → ids, and logprobs of raw logits where asked."""
        if mask is not None and mask.device != logits.device:
            host, mask = mask, torch.empty(mask.shape, dtype=mask.dtype, device=logits.device)
            self.placement.upload(mask, host)
        ids = torch.empty(len(batch.sampling), dtype=torch.int32, device=logits.device)
        if batch.sampling:
            self._kernels.sample(logits, self._slots, self.state, mask, ids)
        vocabulary = self.model.spec.vocab_size
        rows = [
            (row, min(item.sequence.params.logprobs, vocabulary))
            for row, item in enumerate(batch.sampling)
            if item.sequence.params.logprobs is not None
        ]
        tables: list[torch.Tensor] = []
        if rows:
            index = self._placed([row for row, _ in rows], logits.device)
            picked = logits.new_empty(len(rows), logits.stride(0))[
                :, :vocabulary
            ]  # rows keep their boundaries
            torch.index_select(logits, 0, index, out=picked)
            tables = self._best(picked, ids.index_select(0, index), max(k for _, k in rows))
        prompts, self._prompts = self._prompts, []
        prompt_tables, self._prompt_tables = self._prompt_tables, []
        return Sampled(self.placement.fetch([ids, *tables, *prompt_tables]), rows, prompts)

    def _placed(self, values: list[int], device: torch.device) -> torch.Tensor:
        """int32 [n] on the device without waiting for it, as torch.tensor(…, device=…) would."""
        target = torch.empty(len(values), dtype=torch.int32, device=device)
        self.placement.upload(target, torch.tensor(values, dtype=torch.int32))
        return target

    def _best(self, logits: torch.Tensor, chosen: torch.Tensor, k: int) -> list[torch.Tensor]:
        """ids i32 [R, k+1], values f32 [R, k+1], ranks i32 [R] of raw log_softmax."""
        rows = logits.shape[0]
        ids = torch.empty(rows, k + 1, dtype=torch.int32, device=logits.device)
        values = torch.empty(rows, k + 1, device=logits.device)
        ranks = torch.empty(rows, dtype=torch.int32, device=logits.device)
        self._kernels.logprobs(logits, chosen, k, ids, values, ranks)
        return [ids, values, ranks]

    def _prompt_logprobs(self, batch: Batch, hidden: torch.Tensor) -> None:
        for row, item in enumerate(batch.items):
            sequence = item.sequence
            k = sequence.params.prompt_logprobs
            # position p predicts token p + 1; a preempted sequence has its rows already
            last = min(item.start + item.num_tokens, sequence.num_prompt_tokens - 1)
            if k is None or sequence.reported or item.start >= last:
                continue
            k = min(k, self.model.spec.vocab_size)
            first_row = sum(batch.attention.query_lens[:row])
            for start in range(max(item.start, sequence.num_prompt_logprobs), last, _LOGIT_ROWS):
                end = min(start + _LOGIT_ROWS, last)
                first = first_row + start - item.start
                rows = torch.arange(first, first + end - start, device=hidden.device)
                chosen = self._placed(sequence.token_ids[start + 1 : end + 1], hidden.device)
                self._prompts.append((sequence, k))
                self._prompt_tables += self._best(self.model.logits(hidden, rows), chosen, k)
                sequence.num_prompt_logprobs = end
