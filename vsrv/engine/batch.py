"""Plan → flat arrays for one forward pass. Complete when built, frozen after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vsrv.engine.scheduler import Plan, Scheduled
from vsrv.kernels import AttentionMetadata

_ON_DEVICE = -1


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

    @property
    def is_constrained(self) -> bool:
        """Whether a row that samples has a grammar, and so needs a mask."""
        return any(item.sequence.matcher is not None for item in self.sampling)


def build(plan: Plan, block_size: int) -> Batch:
    """Arrays for every scheduled token, sequence after sequence."""
    items = tuple(sorted(plan.items, key=lambda item: item.num_tokens > 1))
    counts = np.array([item.num_tokens for item in items], np.int32)
    starts = np.array([item.start for item in items], np.int32)
    offsets = np.zeros(len(items) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    tables = _tables(items)
    rows = np.repeat(np.arange(len(items)), counts)
    positions = np.arange(offsets[-1], dtype=np.int32) + np.repeat(starts - offsets[:-1], counts)
    slot_mapping = tables[rows, positions // block_size] * block_size + positions % block_size
    ids = _ids(items, offsets)
    pending = np.flatnonzero(ids == _ON_DEVICE)
    pending_slots = [items[row].sequence.slot for row in rows[pending]]
    ids[pending] = 0
    lengths = starts + counts
    sampling = tuple(item for item in items if item.samples)
    last = (offsets[1:] - 1)[[item.samples for item in items]].astype(np.int64)
    meta = AttentionMetadata(
        positions=torch.from_numpy(positions),
        slot_mapping=torch.from_numpy(slot_mapping),
        block_tables=torch.from_numpy(tables),
        cu_seqlens_q=torch.from_numpy(offsets),
        seq_lens=torch.from_numpy(lengths),
        max_seq_len=int(lengths.max()),
        num_decodes=int((counts == 1).sum()),
        query_lens=tuple(counts.tolist()),
    )
    return Batch(
        plan=plan,
        items=items,
        input_ids=torch.from_numpy(ids),
        attention=meta,
        pending=torch.from_numpy(pending),
        pending_slots=torch.tensor(pending_slots, dtype=torch.int64),
        logits_index=torch.from_numpy(last),
        slots=torch.tensor([item.sequence.slot for item in sampling], dtype=torch.int32),
        sampling=sampling,
    )


def _tables(items: tuple[Scheduled, ...]) -> NDArray[np.int32]:
    """[S, longest table] padded with 0. Block tables are packed arrays, so that a row is one copy: 256 rows of 63 blocks take 0.15 ms."""
    tables = np.zeros((len(items), max(len(item.sequence.block_table) for item in items)), np.int32)
    for row, item in enumerate(items):
        blocks = item.sequence.block_table
        tables[row, : len(blocks)] = np.frombuffer(blocks, np.int32)
    return tables


def _ids(items: tuple[Scheduled, ...], offsets: NDArray[np.int32]) -> NDArray[np.int32]:
    """Token ids of every scheduled token; _ON_DEVICE for a sequence's newest one while only the device knows it."""
    ids = np.full(offsets[-1], _ON_DEVICE, np.int32)
    for item, at in zip(items, offsets.tolist(), strict=False):
        tokens, start = item.sequence.token_ids, item.start
        if item.num_tokens == 1:
            if start < len(tokens):
                ids[at] = tokens[start]
        else:
            known = tokens[start : start + item.num_tokens]
            ids[at : at + len(known)] = known
    return ids
