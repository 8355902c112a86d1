"""The memory plan says what would work when something does not fit."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from vsrv.config import EngineConfig
from vsrv.engine.memory import Room, plan_memory, step_bytes
from vsrv.errors import ConfigError
from vsrv.kernels.facts import KernelFacts

SPEC: Any = SimpleNamespace(
    num_kv_heads=1, head_dim=32, num_layers=2, num_parameters=1000, max_position_embeddings=4096, vocab_size=1000,
    sliding_windows=(0, 512), buffer_widths={"residual": 64, "qkv": 96, "gate_up": 256},
)  # fmt: skip
KERNELS: Any = KernelFacts("cpu", ("float32",), 32, None, lambda heads, size, dtype: (1024, 1024))

ROOM = Room(1 << 30, 0.3, 64, 512)


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"num_gpu_blocks_override": 3}, "use --max-model-len 96 or --num-gpu-blocks-override 10$"),
        ({"kv_cache_memory_bytes": 3 * 4096}, "use --max-model-len 96 or --kv-cache-memory-bytes 40960$"),
        ({"kv_cache_memory_bytes": 1}, "use --kv-cache-memory-bytes 40960$"),
    ],
    ids=str,
)
def test_the_hint_names_the_option_that_decided(given: dict[str, int], remedy: str) -> None:
    config = EngineConfig("m", max_model_len=320, **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=remedy):
        plan_memory(config, SPEC, KERNELS, "float32", ROOM)
    enough = {name: value * 60_000 for name, value in given.items()}
    assert plan_memory(EngineConfig("m", max_model_len=320, **enough), SPEC, KERNELS, "float32", ROOM)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "asked"), [("num_gpu_blocks_override", 10**9), ("kv_cache_memory_bytes", 900 << 30)]
)
@pytest.mark.parametrize("fills", [False, True])
def test_a_cache_that_is_not_there_is_refused_and_what_is_named_fits(
    name: str, asked: int, fills: bool
) -> None:
    room = replace(ROOM, fills=fills)
    with pytest.raises(ConfigError, match="are left beside the weights") as error:
        plan_memory(EngineConfig("m", **{name: asked}), SPEC, KERNELS, "float32", room)  # type: ignore[arg-type]
    flag, _, value = error.value.remedy.partition(" ")
    assert flag == "--" + name.replace("_", "-")
    # what is free on a host changes; a GPU is vsrv's alone
    later = replace(room, free_bytes=room.free_bytes if fills else int(room.free_bytes * 0.91))
    budget = plan_memory(EngineConfig("m", **{name: int(value)}), SPEC, KERNELS, "float32", later)  # type: ignore[arg-type]
    assert budget.num_blocks * budget.block_bytes > 0.8 * room.free_bytes


def test_auto_takes_the_length_that_fits() -> None:
    config = EngineConfig("m", num_gpu_blocks_override=3)
    assert plan_memory(config, SPEC, KERNELS, "float32", ROOM).max_model_len == 96
    plenty = plan_memory(EngineConfig("m"), SPEC, KERNELS, "float32", ROOM)
    assert plenty.max_model_len == SPEC.max_position_embeddings
    narrow = plan_memory(EngineConfig("m", disable_sliding_window=True), SPEC, KERNELS, "float32", ROOM)
    assert narrow.max_model_len == 512, "vLLM: capped at the window"
    with pytest.raises(ConfigError, match="window has 512"):
        plan_memory(
            EngineConfig("m", max_model_len=4096, disable_sliding_window=True), SPEC, KERNELS, "float32", ROOM
        )
    with pytest.raises(ConfigError, match="--block-size 16") as error:
        plan_memory(EngineConfig("m", block_size=16), SPEC, KERNELS, "float32", ROOM)
    assert error.value.remedy == "--block-size 32"
    assert plan_memory(EngineConfig("m", kv_cache_dtype="float32"), SPEC, KERNELS, "float32", ROOM) == plenty
    with pytest.raises(ConfigError, match="--kv-cache-dtype float16"):
        plan_memory(EngineConfig("m", kv_cache_dtype="float16"), SPEC, KERNELS, "float32", ROOM)


def test_a_gpu_is_filled_and_a_host_is_not() -> None:
    host = plan_memory(EngineConfig("m"), SPEC, KERNELS, "float32", ROOM)
    assert (host.max_num_seqs, host.max_num_batched_tokens) == (64, 512)
    assert host.num_blocks == 64 * 4096 // 32, "all sequences fit into 30 %"
    room = Room(1 << 30, 1.0, 256, 8192, fills=True, reserve_bytes=100 << 20)
    budget = plan_memory(EngineConfig("m"), SPEC, KERNELS, "bfloat16", room)
    taken = 2000 + (100 << 20) + step_bytes(SPEC, "bfloat16", 256, 8192)
    assert budget.num_blocks == ((1 << 30) - taken) // budget.block_bytes
    with pytest.raises(ConfigError, match="the weights need"):
        plan_memory(
            EngineConfig("m", load_format="dummy"),
            SPEC,
            KERNELS,
            "bfloat16",
            Room(1000, 1.0, 8, 8, fills=True),
        )
