"""Sequences with random histories in the GPU's block layout, and what attention over them must give."""

from __future__ import annotations

from typing import Any

import numpy as np

from vsrv.kernels import reference
from vsrv.kernels.cuda import layout


def to_half(values: Any, dtype: str) -> Any:
    """float32 → bits of a 16-bit type, u16, rounded to nearest even."""
    if dtype == "float16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_half(bits: Any, dtype: str) -> Any:
    if dtype == "float16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Histories:
    """One sequence for each length; q, k, v rounded to `dtype`. Cells that no token owns are infinite."""

    def __init__(
        self, dtype: str, head_dim: int, group: int, num_kv_heads: int, lengths: list[int], seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.dtype, self.head_dim, self.group, self.num_kv_heads, self.lengths = (
            dtype,
            head_dim,
            group,
            num_kv_heads,
            lengths,
        )
        counts = [-(-length // layout.BLOCK) for length in lengths]
        self.num_blocks = sum(counts) + 2
        order = rng.permutation(self.num_blocks)
        width = max([*counts, 1]) + 1
        self.tables = np.full((len(lengths), width), 10**8, np.int32)  # a block that must never be read
        taken = 0
        for row, count in enumerate(counts):
            self.tables[row, :count] = order[taken : taken + count]
            taken += count
        self.k, self.v = ([self._random(rng, (n, num_kv_heads, head_dim)) for n in lengths] for _ in range(2))
        self.q = [self._random(rng, (n, num_kv_heads * group, head_dim)) for n in lengths]
        self.k_cache, self.v_cache = self.filled(self.k), self.filled(self.v)

    def _random(self, rng: Any, shape: tuple[int, ...]) -> Any:
        return from_half(to_half(rng.normal(size=shape).astype(np.float32), self.dtype), self.dtype)

    def empty(self) -> Any:
        """A pool whose live rows are infinite and whose padding is zero."""
        halves = layout.halves(self.head_dim)
        pool = np.zeros((self.num_blocks, self.num_kv_heads, halves, layout.BLOCK, 8, 8), np.float32)
        for dim in range(self.head_dim):
            for token in range(layout.BLOCK):
                pool[:, :, dim // 64, token, (dim % 64 // 8) ^ (token % 8), dim % 8] = np.inf
        return to_half(pool, self.dtype)

    def filled(self, values: list[Any]) -> Any:
        pool = self.empty()
        dims = np.arange(self.head_dim)
        for row, history in enumerate(values):
            for position, heads in enumerate(to_half(h, self.dtype) for h in history):
                block, token = self.tables[row, position // layout.BLOCK], position % layout.BLOCK
                pool[block, :, dims // 64, token, (dims % 64 // 8) ^ (token % 8), dims % 8] = heads.T
        return pool

    def qkv(self, spans: list[tuple[int, int]]) -> Any:
        """u16 [T, (Hq + 2 Hkv) * D] of the tokens first … end of each sequence; k and v columns are poison."""
        rows = []
        for row, (first, end) in enumerate(spans):
            width = self.num_kv_heads * self.group * self.head_dim
            q = to_half(self.q[row][first:end], self.dtype).reshape(end - first, width)
            poison = np.full((end - first, 2 * self.num_kv_heads * self.head_dim), 0x7FC1, np.uint16)
            rows.append(np.concatenate((q, poison), 1))
        return np.concatenate(rows)

    def expected(self, row: int, first: int, end: int, scale: float, window: int) -> Any:
        """float32 [end - first, Hq * D]."""
        out = reference.attention(self.q[row][first:end], self.k[row][:end], self.v[row][:end], scale, window)
        return out.reshape(end - first, -1)
