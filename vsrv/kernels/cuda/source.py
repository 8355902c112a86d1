"""What a kernel is before it is compiled: a function, the kinds of its arguments, its launch shape. No numba needed to read it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vsrv.errors import ConfigError

_ARCH = re.compile(r"sm_(\d+)(\d)(a?)")


@dataclass(frozen=True, slots=True)
class Arch:
    """A GPU architecture. `specific` marks the variant that runs on this compute capability alone (sm_90a)."""

    major: int
    minor: int
    specific: bool = False

    @property
    def name(self) -> str:
        return f"sm_{self.major}{self.minor}{'a' if self.specific else ''}"

    @property
    def has_bulk_copies(self) -> bool:
        return self.major >= 9


def parse_arch(name: str) -> Arch:
    """ "sm_90a" → Arch. Raises ConfigError."""
    match = _ARCH.fullmatch(name)
    if match is None or int(match[1]) < 8:
        raise ConfigError(
            f"{name!r} is no GPU architecture that vsrv has kernels for: sm_80 or later, such as sm_80, sm_89, sm_90a"
        )
    return Arch(int(match[1]), int(match[2]), bool(match[3]))


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One specialised kernel.

    `arguments` are kinds in order: "*u16" is a pointer to u16 (u8, u16, u32, i32, u64, f32), "i32", "u32", "i64", "f32" are scalars.
    `launch_bounds`: threads of a block, or (threads, blocks that should fit on one multiprocessor).
    `parameters` name the specialisation; with the text of vsrv/kernels/cuda they are the key of the cache.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[str, ...]
    threads: int
    shared_bytes: int
    parameters: tuple[Any, ...]
    min_blocks: int = 1
    max_registers: int | None = None

    @property
    def launch_bounds(self) -> tuple[int, int]:
        return self.threads, self.min_blocks
