"""The memory plan says what would work when something does not fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vsrv.config import EngineConfig
from vsrv.engine.memory import plan_memory
from vsrv.errors import ConfigError

SPEC: Any = SimpleNamespace(
    num_kv_heads=1, head_dim=32, num_layers=2, num_parameters=1000, max_position_embeddings=4096
)
KERNELS: Any = SimpleNamespace(
    block_size=32, num_threads=1, kv_block_bytes=lambda heads, size, dtype: (1024, 1024)
)


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
        plan_memory(config, SPEC, KERNELS, "float32", 1 << 30)
    enough = {name: value * 10**5 for name, value in given.items()}
    assert plan_memory(EngineConfig("m", max_model_len=320, **enough), SPEC, KERNELS, "float32", 1 << 30)  # type: ignore[arg-type]
