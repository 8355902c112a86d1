"""Norms, gates and rotary embedding with the cache write, in the simulator against the numpy reference."""

from __future__ import annotations

import numpy as np
import pytest
import simulator
from paged import Histories, from_half, to_half

from vsrv.kernels import reference
from vsrv.kernels.cuda import elementwise, layout
from vsrv.kernels.cuda.source import KernelSource


def run(source: KernelSource, grid: tuple[int, ...], *arguments: object) -> None:
    simulator.run_kernel(source.function, grid, source.threads, source.shared_bytes, arguments, seed=grid[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("rows", "width", "threads"), [(1, 8, 32), (3, 264, 32), (2, 1032, 64)])
@pytest.mark.parametrize("add", [False, True])
def test_rms_norm(dtype: str, rows: int, width: int, threads: int, add: bool) -> None:
    rng = np.random.default_rng(width)
    x, residual = (to_half(rng.normal(size=(rows, width)), dtype) for _ in range(2))
    weight = rng.uniform(0.5, 2, width).astype(np.float32)
    out, held = np.full((rows + 1, width), 0x7FC1, np.uint16), residual.copy()
    source = elementwise.make_rms_norm(
        simulator, dtype=dtype, add=add, passes=-(-width // 8 // threads), threads=threads
    )
    run(source, (rows,), x, held, weight, out, width, np.float32(1 / width), np.float32(1e-5))
    total = from_half(x, dtype)
    if add:
        rounded = to_half(total + from_half(residual, dtype), dtype)
        np.testing.assert_array_equal(held, rounded)
        total = from_half(rounded, dtype)
    else:
        np.testing.assert_array_equal(held, residual)
    unit = 2**-8 if dtype == "bfloat16" else 2**-11
    np.testing.assert_allclose(
        from_half(out[:rows], dtype), reference.rms_norm(total, weight, 1e-5), rtol=unit, atol=1e-4 * unit
    )
    assert (out[rows] == 0x7FC1).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
def test_gated(dtype: str, activation: str) -> None:
    rows, width = 5, 72
    x = to_half(np.random.default_rng(0).normal(size=(rows, 2 * width)) * 4, dtype)
    out = np.full((rows + 1, width), 0x7FC1, np.uint16)
    source = elementwise.make_gated(simulator, dtype=dtype, activation=activation, threads=32)
    run(source, (rows, -(-width // 8 // 32)), x, out, width)
    unit = 2**-8 if dtype == "bfloat16" else 2**-11
    expected = reference.gated(from_half(x, dtype), activation)
    np.testing.assert_allclose(from_half(out[:rows], dtype), expected, rtol=unit, atol=2e-5)
    assert (out[rows] == 0x7FC1).all()


@pytest.mark.parametrize(
    ("dtype", "head_dim", "group", "num_kv_heads", "norms"),
    [
        ("bfloat16", 128, 2, 1, True),
        ("bfloat16", 64, 1, 2, False),
        ("float16", 80, 3, 1, True),
        ("bfloat16", 256, 1, 1, False),
    ],
)
def test_rope_cache(dtype: str, head_dim: int, group: int, num_kv_heads: int, norms: bool) -> None:
    """Token i of the batch is position 3 i of its sequence; the last token is padding and must write nothing."""
    paged = Histories(dtype, head_dim, group, num_kv_heads, [20])
    rng = np.random.default_rng(1)
    num_heads, tokens = group * num_kv_heads, 5
    heads = num_heads + 2 * num_kv_heads
    raw = to_half(rng.normal(size=(tokens, heads, head_dim)), dtype)
    positions = np.arange(tokens, dtype=np.int32) * 3
    slots = paged.tables[0, positions // layout.BLOCK] * layout.BLOCK + positions % layout.BLOCK
    slots[-1] = -1
    angles = np.arange(20)[:, None] * 100.0 ** (-np.arange(head_dim // 2) / head_dim)
    cos_sin = np.stack((np.cos(angles), np.sin(angles)), 1).astype(np.float32)
    weights = [rng.uniform(0.5, 1.5, head_dim).astype(np.float32) for _ in range(2)]
    k_cache, v_cache = paged.empty(), paged.empty()
    qkv = raw.copy()
    source = elementwise.make_rope_cache(
        simulator, dtype=dtype, padded=layout.halves(head_dim) * 64, norms=norms, threads=64
    )
    run(
        source, (-(-tokens * heads // 2),), qkv, *weights, cos_sin, positions, slots.astype(np.int32),
        k_cache, v_cache, np.float32(1e-6), tokens, num_heads, num_kv_heads, head_dim,
    )  # fmt: skip
    q, k, v = np.split(from_half(raw, dtype), [num_heads, num_heads + num_kv_heads], 1)
    if norms:
        q, k = reference.rms_norm(q, weights[0], 1e-6), reference.rms_norm(k, weights[1], 1e-6)
    q, k = (reference.rotate(a, cos_sin[positions, 0], cos_sin[positions, 1]) for a in (q, k))
    unit = 2**-8 if dtype == "bfloat16" else 2**-10
    np.testing.assert_allclose(from_half(qkv[:, :num_heads], dtype), q, rtol=unit, atol=unit)
    np.testing.assert_array_equal(
        qkv[:, num_heads:], raw[:, num_heads:], "k and v columns are not q's to write"
    )
    paged.k, paged.v = (
        [np.full((20, num_kv_heads, head_dim), np.inf, np.float32)],
        [np.full((20, num_kv_heads, head_dim), np.inf, np.float32)],
    )
    paged.k[0][positions[:-1]], paged.v[0][positions[:-1]] = k[:-1], v[:-1]
    np.testing.assert_allclose(
        from_half(k_cache, dtype), from_half(paged.filled(paged.k), dtype), rtol=2 * unit, atol=2 * unit
    )
    np.testing.assert_array_equal(v_cache, paged.filled(paged.v))
