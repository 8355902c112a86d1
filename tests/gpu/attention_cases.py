"""Decode and prefill attention through the table that the engine uses, against references in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from target import Case, Context, Target, errors, held, same_bits

from vsrv.kernels import AttentionMetadata, HeadShape, KernelShapes, reference
from vsrv.kernels.cuda import layout
from vsrv.kernels.cuda.operations import CudaOperations

SENTINEL = 0x7FC2  # a NaN of both 16-bit types' patterns that no kernel makes
Span = tuple[int, int]  # new tokens of a sequence, first … end
_SCORES = 1 << 25  # of the reference at once


def sentinels(target: Target, dtype: str, *shape: int) -> torch.Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    return torch.full(shape, SENTINEL, dtype=torch.int16, device=target.torch_device).view(kind)


def is_sentinel(values: torch.Tensor) -> bool:
    return bool((values.contiguous().view(torch.int16) == SENTINEL).all())


def cells(positions: torch.Tensor, blocks: torch.Tensor, head_dim: int) -> tuple[Any, ...]:
    """Where values [token, dim, head] lie in a pool [blocks, heads, halves, 16, 8, 8]: layout.py, said a second time."""
    dims = torch.arange(head_dim, device=positions.device)[None]
    token = (positions % layout.BLOCK)[:, None]
    chunk = (dims % 64 // 8) ^ (token % 8)
    return blocks[positions // layout.BLOCK][:, None], slice(None), dims // 64, token, chunk, dims % 8


class Paged:
    """Sequences with random histories in the GPU's block layout. Cells that no token owns are infinite, padding of heads is zero,
    and behind each table comes a block of NaN: whoever reads too far shows it, and does not end the process."""

    def __init__(
        self, target: Target, dtype: str, head_dim: int, group: int, kv_heads: int, ends: list[int], seed: int
    ) -> None:
        self.target, self.dtype, self.head_dim = target, dtype, head_dim
        self.num_heads, self.kv_heads, self.ends = group * kv_heads, kv_heads, ends
        random, kind = target.generator(seed), getattr(torch, dtype)
        device = target.torch_device

        def draw(tokens: int, heads: int) -> torch.Tensor:
            return torch.randn((tokens, heads, head_dim), generator=random, device=device).to(kind)

        counts = [-(-end // layout.BLOCK) for end in ends]
        total, width = sum(counts) + 1, max([*counts, 1]) + 1
        order = torch.randperm(total - 1, generator=random, device=device)
        self.tables = torch.full((len(ends), width), total - 1, dtype=torch.int32, device=device)
        self.k, self.v, self.q = (
            [draw(end, heads) for end in ends] for heads in (kv_heads, kv_heads, self.num_heads)
        )
        shape = (total, kv_heads, layout.halves(head_dim), layout.BLOCK, 8, 8)
        self.k_cache, self.v_cache = (torch.zeros(shape, dtype=kind, device=device) for _ in range(2))
        at = 0
        for row, count in enumerate(counts):
            blocks = order[at : at + count]
            self.tables[row, :count] = blocks.int()
            at += count
            for pool, values in ((self.k_cache, self.k[row]), (self.v_cache, self.v[row])):
                if count:
                    every = torch.arange(count * layout.BLOCK, device=device)
                    pool[cells(every, blocks, head_dim)] = float("inf")
                    pool[cells(every[: len(values)], blocks, head_dim)] = values.transpose(1, 2)
        self.k_cache[-1] = self.v_cache[-1] = float("nan")

    def qkv(self, rows: Sequence[int], spans: list[Span]) -> torch.Tensor:
        """[T, (Hq + 2 Hkv) * D]; the columns of k and v, and whole rows of absent sequences, are NaN."""
        width = self.num_heads * self.head_dim
        parts = []
        for row in rows:
            first, end = spans[row]
            part = sentinels(
                self.target, self.dtype, max(1, end - first), width + 2 * self.kv_heads * self.head_dim
            )
            part[: end - first, :width] = self.q[row][first:end].reshape(end - first, width)
            parts.append(part)
        return torch.cat(parts)

    def attend(self, heads: HeadShape, spans: list[Span], rows: Sequence[int]) -> list[torch.Tensor]:
        """Outputs of the sequences `rows`, decodes in front as the engine has them; a decode without tokens is padding of a graph."""
        lengths = [max(1, spans[row][1] - spans[row][0]) for row in rows]
        ends = [spans[row][1] for row in rows]
        device, tokens = self.target.torch_device, sum(lengths)
        offsets = np.cumsum([0, *lengths]).astype(np.int32)
        meta = AttentionMetadata(
            positions=None,
            slot_mapping=None,
            block_tables=self.tables[list(rows)],
            cu_seqlens_q=torch.from_numpy(offsets).to(device),
            seq_lens=torch.tensor(ends, dtype=torch.int32, device=device),
            max_seq_len=max(ends),
            num_decodes=sum(length == 1 for length in lengths),
            query_lens=tuple(lengths),
        )
        kernels = self.target.kernels()
        kernels.prepare(KernelShapes(self.dtype, 64, 64, "silu", False, (heads,), len(rows), tokens))
        object.__setattr__(meta, "plan", kernels.plan(meta, (heads,)))
        qkv = self.qkv(rows, spans)
        out = sentinels(self.target, self.dtype, tokens + 1, self.num_heads * self.head_dim)
        again = out.clone()
        for buffer in (out, again):
            kernels.attention(qkv, (self.k_cache, self.v_cache), meta, heads, self.dtype, buffer)
        self.target.finish()
        same_bits("the same launch twice", out, again)
        if not is_sentinel(out[tokens]):
            raise AssertionError("wrote behind the last token")
        operations: CudaOperations = kernels.attention.__self__  # type: ignore[attr-defined]
        if operations._arrived.any():
            raise AssertionError("the counters are not ready for the next layer")
        return [out[offsets[i] : offsets[i + 1]] for i in range(len(rows))]

    def expected(self, row: int, span: Span, heads: HeadShape) -> torch.Tensor:
        """f64 [T, Hq, D] by torch on the device."""
        first, end = span
        group = self.num_heads // self.kv_heads
        q = self.q[row][first:end].double().transpose(0, 1)
        k, v = (
            values[:end].double().transpose(0, 1).repeat_interleave(group, 0)
            for values in (self.k[row], self.v[row])
        )
        seen_by = torch.arange(first, end, device=q.device)
        places = torch.arange(end, device=q.device)
        step = max(1, _SCORES // (end * self.num_heads))
        parts = []
        for at in range(0, end - first, step):
            own = seen_by[at : at + step, None]
            hidden = places > own
            if heads.sliding_window:
                hidden = hidden | (places <= own - heads.sliding_window)
            scores = (q[:, at : at + step] @ k.transpose(1, 2) * heads.scale).masked_fill(hidden, -torch.inf)
            parts.append((scores.softmax(-1) @ v).transpose(0, 1))
        return torch.cat(parts)

    def by_numpy(self, row: int, span: Span, heads: HeadShape) -> torch.Tensor:
        """The specification in numpy, for short histories."""
        first, end = span
        q, k, v = (values[row].float().cpu().numpy() for values in (self.q, self.k, self.v))
        found = reference.attention(q[first:end], k[:end], v[:end], heads.scale, heads.sliding_window)
        return torch.from_numpy(found).to(self.target.torch_device)


def attention_case(
    name: str, dtype: str, head_dim: int, group: int, kv_heads: int, spans: list[Span], window: int = 0
) -> Case:
    spans = sorted(spans, key=lambda span: span[1] - span[0] > 1)

    def run(context: Context) -> str:
        target = context.target
        target.blocking = True
        seed = int(torch.randint(2**31, (1,)))
        paged = Paged(target, dtype, head_dim, group, kv_heads, [end for _, end in spans], seed)
        heads = HeadShape(group * kv_heads, kv_heads, head_dim, head_dim**-0.5, window)
        every = range(len(spans))
        got = paged.attend(heads, spans, every)
        outputs, references = [], []
        for row in every:
            if spans[row][1] == 0:
                if not is_sentinel(got[row]):
                    raise AssertionError(f"sequence {row} has no tokens and was written")
                continue
            work = spans[row][1] * (spans[row][1] - spans[row][0]) * group * kv_heads
            source = paged.by_numpy if work <= 60_000 else paged.expected
            references.append(source(row, spans[row], heads).flatten(1))
            outputs.append(got[row])
        words = held(errors(torch.cat(outputs), torch.cat(references)), dtype)
        return words + _with_other_neighbours(paged, heads, spans, got)

    shown = f"{len(spans)} x {spans[0]}" if len(spans) > 4 else str(spans)
    return Case(f"{name} {dtype} D{head_dim} G{group} kv{kv_heads} {shown} window {window}", run)


def _with_other_neighbours(paged: Paged, heads: HeadShape, spans: list[Span], got: list[torch.Tensor]) -> str:
    """Prefill promises the same bits in any batch; decode splits by the batch, so that its sums may differ in their order."""
    queries = [row for row, (first, end) in enumerate(spans) if end - first > 1]
    if not queries or len(spans) == 1:
        return ""
    chosen = queries[len(queries) // 2 :][::-1]
    for row, alone in zip(chosen, paged.attend(heads, spans, chosen), strict=True):
        same_bits(f"sequence {row} with other neighbours", got[row], alone)
    return ", same bits with other neighbours"


def _decodes(lengths: Sequence[int]) -> list[Span]:
    return [(max(0, length - 1), length) for length in lengths]


_RAGGED = [0, 1, 15, 16, 17, 0, 33, 64, 100, 255, 256, 257, 600, 0]


def decode_cases(tiny: bool) -> list[Case]:
    if tiny:
        return [
            attention_case("decode", "bfloat16", 64, 2, 1, _decodes([0, 37, 16])),
            attention_case("decode", "float16", 80, 3, 1, _decodes([50, 5]), 20),
        ]
    cases = []
    for dtype in ("bfloat16", "float16"):
        for head_dim in (64, 128, 80, 256):
            cases.append(attention_case("decode", dtype, head_dim, 4, 2, _decodes(_RAGGED)))
            cases.append(attention_case("decode", dtype, head_dim, 5, 1, _decodes(_RAGGED), 100))
    cases += [
        attention_case("decode", "bfloat16", 128, group, 2, _decodes(_RAGGED))
        for group in range(1, 17)
        if group not in (4, 5)
    ]
    for batch in (1, 2, 3, 8, 64, 256):
        lengths = np.random.default_rng(batch).integers(1, 1500, batch).tolist()
        cases.append(attention_case("decode", "bfloat16", 128, 4, 8, _decodes(lengths)))
        cases.append(attention_case("decode", "bfloat16", 64, 8, 2, _decodes(lengths), 257))
    cases.append(attention_case("decode long", "bfloat16", 128, 4, 8, _decodes([32768, 8191, 1, 20000])))
    cases.append(attention_case("decode long", "bfloat16", 128, 16, 1, _decodes([32768])))
    cases.append(attention_case("decode long", "float16", 64, 1, 4, _decodes([32767, 16384]), 4096))
    return cases


def prefill_cases(tiny: bool) -> list[Case]:
    if tiny:
        return [
            attention_case("prefill", "bfloat16", 64, 2, 1, [(0, 20), (17, 24)]),
            attention_case("mixed", "bfloat16", 64, 1, 1, [(29, 30), (0, 9), (3, 9)], 7),
        ]
    cases = []
    for dtype in ("bfloat16", "float16"):
        for head_dim in (64, 128, 80, 256):
            cases.append(
                attention_case("prefill", dtype, head_dim, 4, 2, [(0, 200), (150, 333), (0, 2), (64, 96)])
            )
            cases.append(attention_case("prefill", dtype, head_dim, 3, 1, [(0, 300), (500, 530)], 61))
    spans = [(0, 77), (100, 228), (1000, 1003)]
    cases += [
        attention_case("prefill", "bfloat16", 128, group, 2, spans) for group in (1, 2, 5, 7, 8, 12, 16)
    ]
    cases += [
        attention_case("mixed", "bfloat16", 128, 4, 2, [(99, 100), (0, 1), (0, 64), (700, 720), (511, 512)]),
        attention_case("mixed", "bfloat16", 64, 7, 2, [(2999, 3000), (0, 129), (128, 257)], 200),
        attention_case("prefill whole", "bfloat16", 128, 4, 8, [(0, 2048)]),
        attention_case("prefill behind a prefix", "bfloat16", 128, 4, 8, [(4096, 5120), (8000, 8192)]),
        attention_case("prefill behind a prefix", "float16", 64, 8, 1, [(32768 - 300, 32768)]),
        attention_case("prefill long window", "bfloat16", 128, 4, 2, [(0, 6000)], 1024),
    ]
    return cases
