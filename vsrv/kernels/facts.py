"""What the memory plan needs to know of a device's kernels, known without compiling them. tests/kernels holds it equal to the kernels.

Nothing of `kernels/cpu` is imported here: that folder is only ever taken from its private copy (`vsrv.kernels.load`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vsrv.errors import ConfigError


class CacheFacts(Protocol):
    """What `Kernels` and `KernelFacts` have in common."""

    @property
    def name(self) -> str: ...
    @property
    def dtypes(self) -> tuple[str, ...]: ...
    @property
    def block_size(self) -> int: ...
    @property
    def activation_dtype(self) -> str | None: ...
    @property
    def kv_block_bytes(self) -> Callable[[int, int, str], tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """See `Kernels` for the fields."""

    name: str
    dtypes: tuple[str, ...]
    block_size: int
    activation_dtype: str | None
    kv_block_bytes: Callable[[int, int, str], tuple[int, int]]


_CPU_BLOCK = 32


def _cpu_block_bytes(num_kv_heads: int, head_dim: int, dtype: str) -> tuple[int, int]:
    size = num_kv_heads * ((head_dim + 31) // 32 * 32) * _CPU_BLOCK * (4 if dtype == "float32" else 2)
    return size, size


def kernel_facts(device: str) -> KernelFacts:
    """The facts of "cpu" or "cuda". Raises ConfigError for another name."""
    if device == "cpu":
        return KernelFacts("cpu", ("bfloat16", "float16", "float32"), _CPU_BLOCK, "float32", _cpu_block_bytes)
    if device != "cuda":
        raise ConfigError(f"no kernels for device {device!r}; use --device cpu or --device cuda")
    from vsrv.kernels.cuda import layout
    from vsrv.kernels.cuda.operations import DTYPES

    def block_bytes(num_kv_heads: int, head_dim: int, dtype: str) -> tuple[int, int]:
        size = layout.block_bytes(num_kv_heads, head_dim)
        return size, size

    return KernelFacts("cuda", DTYPES, layout.BLOCK, None, block_bytes)
