"""Decode steps replayed from captured graphs: one launch instead of some ten for each layer, which is what a small batch would wait for.

A graph belongs to a padded batch size and ends at the logits, because sampling may have to wait for a mask. Its inputs lie in buffers that
never move; padding rows have length 0 and slot -1, so that they read and write nothing. Sizes are captured when they have been needed a few
times, most needed first by that rule, and until then a larger graph or the eager path serves: start-up is not held up.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch

from vsrv.engine.batch import Batch
from vsrv.engine.placement import Inputs, Placement
from vsrv.kernels import AttentionMetadata

_NEEDED = 3  # uses of a size before it is captured: a capture costs about as much as twenty eager steps
_ROWS = 6  # ids, positions, slot_mapping, seq_lens, sources, sampling slots
Replay = Callable[[], None]
Capture = Callable[
    [Callable[[], None]], Replay
]  # runs the function at least once; replaying repeats its device work


@dataclass(frozen=True, slots=True)
class Graph:
    """A captured step: `inputs` i32 [6, size]; `logits` f32 [size, V] is where a replay leaves its result."""

    inputs: torch.Tensor
    logits: torch.Tensor
    replay: Replay


def graph_sizes(max_num_seqs: int) -> list[int]:
    """1, 2, 4, 8, then every eighth, up to the whole batch."""
    sizes = [size for size in (1, 2, 4) if size < max_num_seqs]
    return [*sizes, *range(8, max_num_seqs, 8), max_num_seqs]


class Graphs:
    """Owned by the engine thread. `run` computes hidden states from inputs, `head` their logits; both without synchronising."""

    def __init__(
        self,
        run: Callable[[Inputs], torch.Tensor],
        head: Callable[[torch.Tensor], torch.Tensor],
        placement: Placement,
        last_token: torch.Tensor,
        capture: Capture,
        max_num_seqs: int,
        max_blocks: int,
    ) -> None:
        self._run, self._head = run, head
        self._placement, self._last_token, self._capture = placement, last_token, capture
        self._sizes = graph_sizes(max_num_seqs)
        device = last_token.device
        self._tables = torch.zeros(max_num_seqs, max_blocks, dtype=torch.int32, device=device)
        self._offsets = torch.arange(max_num_seqs + 1, dtype=torch.int32, device=device)
        self._graphs: dict[int, Graph] = {}
        self._needed: Counter[int] = Counter()
        self._refused: set[int] = set()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Logits f32 [R, V] and sampling slots i32 [R] of a pure decode batch; None if it must run eagerly."""
        count = len(batch.items)
        if batch.attention.num_decodes < count or len(batch.sampling) < count or batch.wants_prompt_logprobs:
            return None
        graph = self._graph(count)
        if graph is None:
            return None
        self._fill(graph.inputs, batch)
        graph.replay()
        return graph.logits[:count], graph.inputs[_ROWS - 1, :count]

    def _graph(self, count: int) -> Graph | None:
        """The graph of the padded size, captured when it is due; else one that is not more than twice as large."""
        size = next(size for size in self._sizes if size >= count)
        if size not in self._graphs and size not in self._refused:
            self._needed[size] += 1
            if self._needed[size] >= _NEEDED:
                self._try_capture(size)
        larger = [other for other in sorted(self._graphs) if count <= other <= 2 * size]
        return self._graphs[larger[0]] if larger else None

    def _try_capture(self, size: int) -> None:
        """A size that cannot be captured (no memory is left, say) is not tried again: its steps stay eager and cost their launches."""
        try:
            self._graphs[size] = self._captured(size)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self._placement.check()  # a lost device still ends the process
            self._refused.add(size)

    def _captured(self, size: int) -> Graph:
        inputs = torch.zeros(_ROWS, size, dtype=torch.int32, device=self._last_token.device)
        inputs[2], inputs[4], inputs[5] = -1, -1, -1
        made: list[torch.Tensor] = []

        def step() -> None:
            ids, positions, slot_mapping, lengths, sources, slots = inputs
            known = self._last_token.index_select(0, sources.clamp(min=0))
            meta = AttentionMetadata(
                positions, slot_mapping, self._tables[:size], self._offsets[: size + 1], lengths,
                max_seq_len=self._tables.shape[1], num_decodes=size, query_lens=(1,) * size,
            )  # fmt: skip
            hidden = self._run(
                Inputs(torch.where(sources >= 0, known, ids), meta, self._offsets[:size], slots)
            )
            made.append(self._head(hidden))

        replay = self._capture(step)
        return Graph(inputs, made[-1], replay)

    def _fill(self, inputs: torch.Tensor, batch: Batch) -> None:
        meta, count = batch.attention, len(batch.items)
        host = torch.zeros(inputs.shape, dtype=torch.int32)
        host[2, count:] = host[5, count:] = -1
        host[4] = -1
        host[0, :count], host[1, :count] = batch.input_ids, meta.positions
        host[2, :count], host[3, :count] = meta.slot_mapping, meta.seq_lens
        host[4, batch.pending] = batch.pending_slots.int()
        host[5, :count] = batch.slots
        self._placement.upload(inputs, host)
        self._placement.upload(self._tables[:count, : meta.block_tables.shape[1]], meta.block_tables)
