"""What a kernel is before it is compiled: a function, the kinds of its arguments, its launch shape. No numba needed to read it.

A kernel's factory is a plain function `make_xxx(ops, **parameters) -> KernelSource`. `ops` is the module of instructions that the kernel
is written in: vsrv.kernels.cuda.intrinsics to compile it, tests/cuda/simulator.py to run it on any laptop, `NoInstructions` to learn its
name, arguments and launch shape where numba is absent. Callers name a kernel by `specialise(make_xxx, D=128, …)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vsrv.errors import ConfigError

# of scalars, of what pointers point to
_KINDS = (("i32", "u32", "i64", "f32"), ("u8", "u16", "u32", "i32", "u64", "f32"))
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

    def __post_init__(self) -> None:
        described = (self.threads, self.shared_bytes, self.min_blocks, self.max_registers or 0)
        if not all(isinstance(number, int) for number in described):
            raise TypeError(f"kernel {self.name}: its launch shape is made of whole numbers, not {described}")
        unknown = [
            kind for kind in self.arguments if kind.removeprefix("*") not in _KINDS[kind.startswith("*")]
        ]
        taken = self.function.__code__.co_argcount
        if unknown or taken != len(self.arguments):
            raise TypeError(
                f"kernel {self.name}: {taken} arguments against kinds {self.arguments}, unknown: {unknown}"
            )


Factory = Callable[..., KernelSource]


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """A specialised kernel by name, as callers hand it over: nothing is compiled or imported for it. Made by `specialise`."""

    factory: Factory
    parameters: tuple[tuple[str, Any], ...]

    def source(self, ops: Any) -> KernelSource:
        """The kernel in the instructions of `ops`."""
        return self.factory(ops, **dict(self.parameters))

    def describe(self) -> KernelSource:
        """Name, arguments and launch shape; its function must not be called."""
        return self.source(NoInstructions())

    @property
    def label(self) -> str:
        """ "make_decode(D=128, G=4)", for people."""
        return f"{self.factory.__name__}({', '.join(f'{name}={value!r}' for name, value in self.parameters)})"


def specialise(factory: Factory, **parameters: Any) -> KernelSpec:
    """Name a specialisation. Parameters are numbers, texts, None and tuples of such: their repr is a part of the cache's key."""
    for name, value in parameters.items():
        _check_plain(f"{factory.__name__}: parameter {name}", value)
    return KernelSpec(factory, tuple(sorted(parameters.items())))


def _check_plain(what: str, value: Any) -> None:
    if isinstance(value, tuple):
        for part in value:
            _check_plain(what, part)
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(
            f"{what} is a {type(value).__name__}; a kernel is specialised by numbers, texts and tuples"
        )


class NoInstructions:
    """Stands for a module of instructions where nobody will compile the kernel: every attribute, call and arithmetic use is itself.

    A factory mentions `ops.u32(1)`, decorates helpers with `ops.device` and builds constants before it returns its KernelSource.
    Importing the real module for that would cost a GPU host 0.9 s at each start, and a compiler that a host with shipped cubins need not
    have. A factory that branches on such a value, or iterates over it, would describe another kernel than it compiles, so that is refused.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> NoInstructions:
        if name.startswith("__"):
            raise AttributeError(name)  # protocols of Python itself, such as copying, see a plain object
        return self

    def _self(self, *others: Any) -> NoInstructions:
        return self

    def __call__(self, *arguments: Any, **named: Any) -> NoInstructions:
        return self

    def _undecidable(self, *others: Any) -> Any:
        raise TypeError(
            "a kernel's factory depends on the value of an instruction, which only a compiler knows"
        )

    __getitem__ = __neg__ = __pos__ = __invert__ = _self
    __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = _self
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = _self
    __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = _self
    __rand__ = __ror__ = __rxor__ = __rlshift__ = __rrshift__ = _self
    __bool__ = __iter__ = __len__ = __index__ = __int__ = __float__ = _undecidable
    __lt__ = __le__ = __gt__ = __ge__ = _undecidable
