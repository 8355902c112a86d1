"""Prefill attention in the simulator against the numpy reference: whole prompts, chunks behind a prefix, ragged batches, windows."""

from __future__ import annotations

import numpy as np
import pytest
import simulator
from paged import Histories, from_half

from vsrv.kernels.cuda import layout, prefill

LOG2E = 1.4426950408889634
CASES = [
    # dtype, head_dim, group, kv heads, spans (first, end) of new tokens, window, warps, tile
    ("bfloat16", 64, 2, 1, [(0, 40)], 0, 2, 32),
    ("bfloat16", 128, 1, 2, [(0, 5), (30, 50)], 0, 1, 32),
    ("float16", 64, 4, 1, [(60, 75), (0, 1), (17, 18)], 0, 2, 64),
    ("bfloat16", 80, 3, 1, [(0, 33)], 0, 1, 16),
    ("bfloat16", 64, 7, 2, [(0, 20)], 0, 2, 64),
    ("bfloat16", 64, 2, 1, [(0, 90), (100, 130)], 21, 2, 32),
    ("float16", 96, 1, 1, [(40, 70)], 5, 1, 16),
    ("bfloat16", 256, 2, 1, [(10, 24)], 0, 1, 32),
]


@pytest.mark.parametrize(
    ("dtype", "head_dim", "group", "num_kv_heads", "spans", "window", "warps", "tile"), CASES
)
def test_prefill_attention(
    dtype: str, head_dim: int, group: int, num_kv_heads: int,
    spans: list[tuple[int, int]], window: int, warps: int, tile: int,
) -> None:  # fmt: skip
    ends = [end for _, end in spans]
    paged = Histories(dtype, head_dim, group, num_kv_heads, ends)
    source = prefill.make_prefill_attention(
        simulator, dtype=dtype, padded=layout.halves(head_dim) * 64, warps=warps, tile=tile
    )
    rows = prefill.rows_of(warps)
    work = [(s, block) for s, (a, b) in enumerate(spans) for block in range(-(-(b - a) * group // rows))]
    offsets = np.cumsum([0, *(b - a for a, b in spans)]).astype(np.int32)
    scale = head_dim**-0.5
    out = np.full((offsets[-1] + 1, num_kv_heads * group * head_dim), 0x7FC2, np.uint16)
    arguments = (
        paged.qkv(spans), paged.k_cache, paged.v_cache, paged.tables, offsets, np.array(ends, np.int32),
        np.array(work, np.int32), out, paged.tables.shape[1], group, head_dim,
        np.float32(scale * LOG2E), window,
    )  # fmt: skip
    simulator.run_kernel(
        source.function,
        (len(work), num_kv_heads),
        source.threads,
        source.shared_bytes,
        arguments,
        seed=len(work),
    )
    for s, (first, end) in enumerate(spans):
        got = from_half(out[offsets[s] : offsets[s + 1]], dtype)
        np.testing.assert_allclose(got, paged.expected(s, first, end, scale, window), rtol=2e-2, atol=2e-2)
    assert (out[-1] == 0x7FC2).all(), "wrote beyond the last token"
