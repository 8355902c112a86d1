"""Decode attention in the simulator against the numpy reference: ragged batches, every split, windows, both ways of copying."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import simulator
from paged import Histories, from_half

from vsrv.kernels.cuda import decode, layout
from vsrv.kernels.cuda.source import KernelSource

LOG2E = 1.4426950408889634


def run(source: KernelSource, blocks: int, arguments: tuple[Any, ...], seed: int = 0) -> None:
    simulator.run_kernel(source.function, (blocks,), source.threads, source.shared_bytes, arguments, seed)


def planned(lengths: list[int], blocks: int, groups: int, window: int, least: int, threads: int = 64) -> Any:
    plan = np.full(decode.plan_size(len(lengths)), -1, np.int32)
    run(
        decode.make_decode_plan(simulator, threads=threads),
        1,
        (np.array(lengths, np.int32), plan, len(lengths), blocks, groups, window, least),
    )
    return plan


@pytest.mark.parametrize("window", [0, 20, 64])
@pytest.mark.parametrize("blocks", [1, 3, 70])
@pytest.mark.parametrize("lengths", [[5], [0, 33, 0, 16, 1, 300, 0], list(range(0, 190, 2))], ids=len)
def test_the_plan_deals_every_tile_once(lengths: list[int], blocks: int, window: int) -> None:
    plan = planned(lengths, blocks, 3, window, 2)
    tiles = [-(-n // 16) - (max(0, n - window) // 16 if window else 0) for n in lengths]
    starts = np.cumsum([0, *(3 * count for count in tiles)])
    np.testing.assert_array_equal(plan[decode.PLAN_STARTS :], starts)
    per, total = int(plan[0]), int(plan[1])
    assert total == starts[-1] and per == max(2, -(-total // blocks))
    for block in range(blocks):
        first = plan[decode.PLAN_SEQUENCES + block]
        if block * per < total:
            assert starts[first] <= block * per < starts[first + 1]
        else:
            assert first == -1, "written for a block that has nothing to do"


CASES = [
    # dtype, head_dim, group, kv heads, lengths, grid blocks, window, bulk, stages, warps
    ("bfloat16", 128, 4, 1, [37], 1, 0, True, 3, 2),
    ("bfloat16", 64, 8, 2, [5, 100, 0, 64], 3, 0, True, 2, 2),
    ("bfloat16", 128, 1, 2, [16, 17, 1], 5, 0, False, 2, 2),
    ("float16", 64, 7, 1, [150], 4, 0, True, 3, 1),
    ("bfloat16", 80, 2, 2, [33, 70], 3, 0, False, 3, 2),
    ("bfloat16", 64, 12, 1, [90, 20], 3, 0, True, 3, 2),  # two groups for one KV head
    ("bfloat16", 64, 2, 1, [130, 40, 20], 3, 50, True, 3, 2),
    ("float16", 96, 3, 1, [200], 3, 33, False, 2, 4),
    ("bfloat16", 256, 2, 1, [50], 2, 0, True, 2, 1),
    ("bfloat16", 64, 2, 2, [300], 9, 0, True, 3, 2),  # one sequence over nine blocks: the combination
]


@pytest.mark.parametrize(
    ("dtype", "head_dim", "group", "num_kv_heads", "lengths", "blocks", "window", "bulk", "stages", "warps"),
    CASES,
)
def test_decode_attention(
    dtype: str, head_dim: int, group: int, num_kv_heads: int, lengths: list[int],
    blocks: int, window: int, bulk: bool, stages: int, warps: int,
) -> None:  # fmt: skip
    paged = Histories(dtype, head_dim, group, num_kv_heads, lengths)
    groups = decode.groups_of(num_kv_heads, group)
    scale = head_dim**-0.5
    source = decode.make_decode_attention(
        simulator, dtype=dtype, padded=layout.halves(head_dim) * 64, bulk=bulk, stages=stages, warps=warps
    )  # fmt: skip
    plan = planned(lengths, blocks, groups, window, warps)
    padded = layout.halves(head_dim) * 64
    partial, lse = (
        np.full(2 * blocks * 8 * padded, np.nan, np.float32),
        np.full(2 * blocks * 8, np.nan, np.float32),
    )
    arrived = np.zeros(len(lengths) * groups, np.uint32)
    qkv = paged.qkv([(max(0, n - 1), max(1, n)) if n else (0, 0) for n in lengths])
    rows = np.cumsum([0, *(1 if n else 0 for n in lengths)])
    placed = np.full(
        (len(lengths), qkv.shape[1]), 0x7FC1, np.uint16
    )  # the row of an absent sequence holds anything
    for row, (first, end) in enumerate(pairwise(rows)):
        placed[row] = qkv[first] if end > first else placed[row]
    for seed in range(2):
        out = np.full((len(lengths), num_kv_heads * group * head_dim), 0x7FC2, np.uint16)
        arguments = (
            placed, paged.k_cache, paged.v_cache, paged.tables, np.array(lengths, np.int32), plan,
            partial, lse, arrived, out, paged.tables.shape[1],
            num_kv_heads, group, head_dim, np.float32(scale * LOG2E), window,
        )  # fmt: skip
        run(source, blocks, arguments, seed)
        assert not arrived.any(), "the counters must be ready for the next layer"
        for row, length in enumerate(lengths):
            if length == 0:
                assert (out[row] == 0x7FC2).all(), "a sequence without tokens was written"
            else:
                expected = paged.expected(row, length - 1, length, scale, window)
                np.testing.assert_allclose(from_half(out[row], dtype), expected[0], rtol=2e-2, atol=2e-2)
