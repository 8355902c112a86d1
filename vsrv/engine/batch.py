"""Plan → flat arrays for one forward pass. Complete when built, frozen after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vsrv.engine.scheduler import Plan, Scheduled
from vsrv.kernels import AttentionMetadata


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of S sequences, those with one token in front.

    input_ids i32 [T]; where an id is still on the device, `pending` names the token's index and
    `pending_slots` the sampling slot that holds it. logits_index i64 [R]: rows that sample; `sampling` their items in order."""

    plan: Plan
    items: tuple[Scheduled, ...]
    input_ids: torch.Tensor
    attention: AttentionMetadata
    pending: torch.Tensor
    pending_slots: torch.Tensor
    logits_index: torch.Tensor
    slots: torch.Tensor
    sampling: tuple[Scheduled, ...]

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether hidden states of this step are needed for more than sampling."""
        return any(
            item.sequence.params.prompt_logprobs is not None and not item.sequence.reported
            for item in self.items
        )


def build(plan: Plan, block_size: int) -> Batch:
    """Arrays for every scheduled token, sequence after sequence."""
    items = tuple(sorted(plan.items, key=lambda item: item.num_tokens > 1))
    total = sum(item.num_tokens for item in items)
    ids = np.empty(total, np.int32)
    positions = np.empty(total, np.int32)
    slot_mapping = np.empty(total, np.int32)
    width = max(len(item.sequence.block_table) for item in items)
    tables = np.zeros((len(items), width), np.int32)
    offsets = np.zeros(len(items) + 1, np.int32)
    lengths = np.empty(len(items), np.int32)
    pending: list[int] = []
    pending_slots: list[int] = []
    at = 0
    for row, item in enumerate(items):
        sequence, start, end = item.sequence, item.start, item.start + item.num_tokens
        known = sequence.token_ids[start:end]
        ids[at : at + len(known)] = known
        if len(known) < item.num_tokens:  # only the newest token can be on the device
            ids[at + len(known)] = 0
            pending.append(at + len(known))
            pending_slots.append(sequence.slot)
        tables[row, : len(sequence.block_table)] = sequence.block_table
        where = np.arange(start, end, dtype=np.int32)
        positions[at : at + item.num_tokens] = where
        slot_mapping[at : at + item.num_tokens] = (
            tables[row, where // block_size] * block_size + where % block_size
        )
        at += item.num_tokens
        offsets[row + 1] = at
        lengths[row] = end
    sampling = tuple(item for item in items if item.samples)
    last = [int(offsets[row + 1]) - 1 for row, item in enumerate(items) if item.samples]
    meta = AttentionMetadata(
        positions=torch.from_numpy(positions),
        slot_mapping=torch.from_numpy(slot_mapping),
        block_tables=torch.from_numpy(tables),
        cu_seqlens_q=torch.from_numpy(offsets),
        seq_lens=torch.from_numpy(lengths),
        max_query_len=max(item.num_tokens for item in plan.items),
        max_seq_len=int(lengths.max()),
        num_decodes=sum(item.num_tokens == 1 for item in items),
        query_lens=tuple(item.num_tokens for item in items),
    )
    return Batch(
        plan=plan,
        items=items,
        input_ids=torch.from_numpy(ids),
        attention=meta,
        pending=torch.tensor(pending, dtype=torch.int64),
        pending_slots=torch.tensor(pending_slots, dtype=torch.int64),
        logits_index=torch.tensor(last, dtype=torch.int64),
        slots=torch.tensor([item.sequence.slot for item in sampling], dtype=torch.int32),
        sampling=sampling,
    )
