"""Norms, gates, rotary embedding with the cache write, and the products that torch does for the engine, on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from attention_cases import cells, is_sentinel, sentinels
from target import Case, Context, Errors, Target, errors, held, same_bits

from vsrv.kernels import AttentionMetadata, HeadShape, Kernels, KernelShapes, reference
from vsrv.kernels.cuda import layout

_DTYPES = ("bfloat16", "float16")
_EPS = 1e-5


def _kernels(
    target: Target,
    dtype: str,
    width: int,
    activation: str = "silu",
    heads: HeadShape | None = None,
    norms: bool = False,
) -> Kernels:
    kernels = target.kernels()
    shape = heads or HeadShape(1, 1, 64, 0.125)
    kernels.prepare(KernelShapes(dtype, width, width, activation, norms, (shape,), 4, 64))
    target.blocking = True
    return kernels


def _random(target: Target, dtype: str, *shape: int) -> torch.Tensor:
    return (torch.randn(shape, device=target.torch_device) * 2).to(getattr(torch, dtype))


def _numpy(values: torch.Tensor) -> Any:
    return values.float().cpu().numpy()


def _back(target: Target, values: Any) -> torch.Tensor:
    return torch.from_numpy(values).to(target.torch_device)


def _rows_are_independent(out: torch.Tensor, again: Callable[[slice, torch.Tensor], None]) -> None:
    """Row 1 and the last, computed alone, have the bits that they have in the batch."""
    for row in {min(1, len(out) - 2), len(out) - 2}:
        alone = out[-1:].clone()
        again(slice(row, row + 1), alone)
        same_bits(f"row {row} with other neighbours", out[row : row + 1], alone)


def norm_case(dtype: str, rows: int, width: int) -> Case:
    def run(context: Context) -> str:
        target = context.target
        kernels = _kernels(target, dtype, width)
        x, residual = (_random(target, dtype, rows, width) for _ in range(2))
        weight = torch.rand(width, device=target.torch_device) + 0.5
        out = sentinels(target, dtype, rows + 1, width)
        kernels.rms_norm(x, weight, _EPS, out[:rows])
        plain = errors(out[:rows], _back(target, reference.rms_norm(_numpy(x), _numpy(weight), _EPS)))
        _rows_are_independent(out, lambda at, alone: kernels.rms_norm(x[at], weight, _EPS, alone))
        total, added = residual.clone(), sentinels(target, dtype, rows + 1, width)
        kernels.add_rms_norm(x, total, weight, _EPS, added[:rows])
        target.finish()
        same_bits("residual", total, (x.float() + residual.float()).to(x.dtype))
        wide = reference.rms_norm(_numpy(total), _numpy(weight), _EPS)
        both = errors(added[:rows], _back(target, wide))
        if not (is_sentinel(out[rows]) and is_sentinel(added[rows])):
            raise AssertionError("wrote behind the last row")
        return f"{held(plain, dtype)}; with addition {held(both, dtype)}"

    return Case(f"rms_norm {dtype} {rows} x {width}", run)


def gate_case(dtype: str, activation: str, rows: int, width: int) -> Case:
    def run(context: Context) -> str:
        target = context.target
        kernels = _kernels(target, dtype, width, activation)
        x = _random(target, dtype, rows, 2 * width)
        out = sentinels(target, dtype, rows + 1, width)
        kernels.gated(x, activation, out[:rows])
        target.finish()
        found = errors(out[:rows], _back(target, reference.gated(_numpy(x), activation)))
        _rows_are_independent(out, lambda at, alone: kernels.gated(x[at], activation, alone))
        if not is_sentinel(out[rows]):
            raise AssertionError("wrote behind the last row")
        return held(found, dtype)

    return Case(f"gated {activation} {dtype} {rows} x {width}", run)


class Rope:
    """Tokens at scattered positions of one sequence; the last one is padding and must write nothing but its own q."""

    def __init__(
        self, target: Target, dtype: str, head_dim: int, group: int, kv_heads: int, tokens: int
    ) -> None:
        self.target, self.dtype, self.tokens = target, dtype, tokens
        self.heads = HeadShape(group * kv_heads, kv_heads, head_dim, head_dim**-0.5)
        device, length = target.torch_device, 3 * tokens
        self.positions = (torch.randperm(length)[:tokens]).int().to(device)
        self.num_blocks = -(-length // layout.BLOCK)
        self.blocks = torch.randperm(self.num_blocks).to(device)
        places = self.positions.long()
        self.slots = (self.blocks[places // layout.BLOCK] * layout.BLOCK + places % layout.BLOCK).int()
        self.slots[-1] = -1
        angles = np.arange(length)[:, None] * 1e4 ** (-np.arange(head_dim // 2) / (head_dim // 2))
        self.cos_sin = _back(target, np.stack((np.cos(angles), np.sin(angles)), 1).astype(np.float32))
        self.norms = [torch.rand(head_dim, device=device) + 0.5 for _ in range(2)]
        self.raw = _random(target, dtype, tokens, (group + 2) * kv_heads * head_dim)

    def run(
        self, kernels: Kernels, norms: bool, rows: slice
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k and v in place, and the two pools, which start as sentinels."""
        shape = (
            self.num_blocks,
            self.heads.num_kv_heads,
            layout.halves(self.heads.head_dim),
            layout.BLOCK,
            8,
            8,
        )
        pools = tuple(sentinels(self.target, self.dtype, *shape) for _ in range(2))
        qkv = self.raw[rows].clone()
        meta = AttentionMetadata(self.positions[rows], self.slots[rows], None, None, None, 1)
        q_norm, k_norm = self.norms if norms else (None, None)
        kernels.rope_cache(qkv, meta, self.cos_sin, (q_norm, k_norm, _EPS), pools, self.heads, self.dtype)
        self.target.finish()
        return qkv, *pools

    def expected(self, norms: bool) -> list[torch.Tensor]:
        """q, k, v f32 [T, heads, D]."""
        raw = _numpy(self.raw).reshape(self.tokens, -1, self.heads.head_dim)
        q, k, v = np.split(raw, [self.heads.num_heads, self.heads.num_heads + self.heads.num_kv_heads], 1)
        if norms:
            q, k = (reference.rms_norm(a, _numpy(w), _EPS) for a, w in zip((q, k), self.norms, strict=True))
        table = self.cos_sin[self.positions.long()].cpu().numpy()
        q, k = (reference.rotate(a, table[:, 0], table[:, 1]) for a in (q, k))
        return [_back(self.target, np.ascontiguousarray(a)) for a in (q, k, v)]


def rope_case(dtype: str, head_dim: int, group: int, kv_heads: int, norms: bool, tokens: int) -> Case:
    def run(context: Context) -> str:
        target = context.target
        rope = Rope(target, dtype, head_dim, group, kv_heads, tokens)
        kernels = _kernels(target, dtype, 64, heads=rope.heads, norms=norms)
        qkv, k_pool, v_pool = rope.run(kernels, norms, slice(None))
        q, k, v = rope.expected(norms)
        width = rope.heads.num_heads * head_dim
        words = held(errors(qkv[:, :width], q.flatten(1)), dtype)
        same_bits("k and v columns of the input", qkv[:, width:], rope.raw[:, width:])
        where = cells(rope.positions[:-1].long(), rope.blocks, head_dim)
        words += "; k " + held(errors(k_pool[where].transpose(1, 2), k[:-1]), dtype)
        same_bits("v in the cache", v_pool[where].transpose(1, 2), v[:-1].to(v_pool.dtype))
        one, k_one, _ = rope.run(kernels, norms, slice(1, 2))
        same_bits("q with other neighbours", qkv[1:2], one)
        first = cells(rope.positions[1:2].long(), rope.blocks, head_dim)
        same_bits("k with other neighbours", k_pool[first], k_one[first])
        for pool in (k_pool, v_pool):
            pool[where] = sentinels(target, dtype, 1)
            if not is_sentinel(pool):
                raise AssertionError("wrote into cells of other tokens")
        return words

    return Case(f"rope_cache {dtype} D{head_dim} G{group} kv{kv_heads} norms {norms} x {tokens}", run)


def product_case(rows: int, n: int, k: int, bias: bool, wide: bool) -> Case:
    """cuBLAS as the engine calls it: rows on a stride, with a bias, with an unrounded float32 result."""

    def run(context: Context) -> str:
        target = context.target
        kernels = target.kernels()
        weight = _random(target, "bfloat16", n, k).cpu() * k**-0.5
        offset = torch.randn(n) if bias else None
        packed = kernels.pack_linear(weight, offset, "bfloat16")
        x = _random(target, "bfloat16", rows, k)
        kind = torch.float32 if wide else torch.bfloat16
        held_out = torch.full(
            (rows + 1, n + (2 if wide else 0)), float("nan"), dtype=kind, device=target.torch_device
        )
        out = held_out[:rows, :n]
        kernels.linear(x, packed, out)
        target.finish()
        exact = x.double() @ weight.to(x.device).double().T
        if offset is not None:
            exact += offset.to(x.device, torch.bfloat16).double()
        found = errors(out, exact)
        if not (torch.isnan(held_out[rows:]).all() and torch.isnan(held_out[:, n:]).all()):
            raise AssertionError("wrote outside of its rows and columns")
        limit = Errors(1e-5, 1e-4, 1e-4)
        if wide and not (found.whole <= limit.whole):
            raise AssertionError(f"{found}: a float32 result must not be rounded to 16 bits")
        ids = torch.tensor([0, n - 1, n // 2], dtype=torch.int32, device=target.torch_device)
        picked = torch.empty(3, k, dtype=torch.bfloat16, device=target.torch_device)
        kernels.embedding(ids, packed, picked)
        same_bits("rows of the embedding", picked.cpu(), weight[ids.cpu().long()])
        return held(found, "bfloat16")

    return Case(f"product {rows} x {k} -> {n} bias {bias} float32 {wide}", run)


def elementwise_cases(tiny: bool) -> list[Case]:
    if tiny:
        return [
            norm_case("bfloat16", 3, 72), gate_case("float16", "silu", 3, 40), gate_case("bfloat16", "gelu", 3, 40),
            rope_case("bfloat16", 64, 2, 1, True, 4), rope_case("float16", 80, 1, 1, False, 4),
            product_case(3, 30, 48, True, False), product_case(3, 30, 48, False, True),
        ]  # fmt: skip
    cases = [
        product_case(rows, n, k, bias, wide)
        for rows in (1, 7, 64)
        for n, k, bias, wide in (
            (4096, 1024, False, False),
            (1152, 896, True, False),
            (1002, 512, False, True),
            (151936, 1024, False, True),
        )
    ]
    for dtype in _DTYPES:
        cases += [
            norm_case(dtype, rows, width)
            for rows, width in ((1, 64), (5, 1000), (33, 2560), (300, 4096), (7, 8192))
        ]
        cases += [
            gate_case(dtype, kind, 37, width)
            for kind in ("silu", "gelu", "gelu_tanh")
            for width in (96, 11008)
        ]
        for head_dim, group, kv_heads in ((64, 7, 2), (128, 4, 8), (80, 1, 3), (256, 2, 1)):
            cases += [rope_case(dtype, head_dim, group, kv_heads, norms, 200) for norms in (False, True)]
    return cases
