"""A CUDA block on greenlets: the same names as vsrv.kernels.cuda.intrinsics with meanings in Python, for kernels on any laptop.

Every thread of a block is a greenlet; barriers and warp collectives are rendezvous. Shared memory starts poisoned, threads are woken in an
order that is shuffled at every barrier (a missing barrier shows as a wrong result or as poison), asynchronous copies land only when they
are waited for, and a rendezvous that not every thread reaches is a Deadlock. Blocks run one after the other, in shuffled order.
Fragment layouts of mma.m16n8k16, ldmatrix and movmatrix are those of the PTX ISA 9.0, section 9.7.14.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from greenlet import getcurrent, greenlet

POISON = 0xCD
_MASK = 0xFFFFFFFF


class Deadlock(RuntimeError):
    """A barrier or warp collective that some threads never reach."""


class Cast:
    """A numba scalar type: calling it converts, and as an element type it names a numpy dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._mask = (1 << 8 * self.dtype.itemsize) - 1 if self.dtype.kind == "u" else None

    def __call__(self, value: Any) -> Any:
        if self._mask is not None:
            return self.dtype.type(int(value) & self._mask)
        return int(value) if self.dtype.kind == "i" else self.dtype.type(value)


u8, u16, u32, u64 = Cast(np.uint8), Cast(np.uint16), Cast(np.uint32), Cast(np.uint64)
i32, i64, f32 = Cast(np.int32), Cast(np.int64), Cast(np.float32)
F, U = np.float32, np.uint32


def device(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


# ---------------------------------------------------------------- threads


class _Block:
    def __init__(self, index: Any, grid: Any, threads: int, shared_bytes: int, order: random.Random) -> None:
        self.index, self.grid, self.dim = index, grid, SimpleNamespace(x=threads, y=1, z=1)
        self.shared = np.full(max(shared_bytes, 1), POISON, np.uint8)
        self.order = order
        self.barriers: dict[int, Any] = {}  # by offset


class _Warp:
    def __init__(self) -> None:
        self.lanes: list[_Thread] = []
        self.values: list[Any] = [None] * 32
        self.arrived = 0


class _Thread(greenlet):
    block: _Block
    warp: _Warp
    lane: int
    place: Any
    waiting: str
    result: Any
    groups: list[list[Callable[[], None]]]  # committed groups of asynchronous copies, oldest first
    pending: list[Callable[[], None]]


def run_kernel(
    function: Callable[..., None],
    grid: tuple[int, ...],
    threads: int,
    shared_bytes: int,
    arguments: tuple[Any, ...],
    seed: int = 0,
) -> None:
    """Run every block of a grid. Arrays are flat numpy arrays; an index below 0 or beyond the end raises."""
    order = random.Random(seed)
    x, y, z = (*grid, 1, 1)[:3]
    places = [(i, j, k) for k in range(z) for j in range(y) for i in range(x)]
    order.shuffle(places)
    shape = SimpleNamespace(x=x, y=y, z=z)
    arguments = tuple(_Pointer(a) if isinstance(a, np.ndarray) else a for a in arguments)
    for i, j, k in places:
        _run_block(
            function, _Block(SimpleNamespace(x=i, y=j, z=k), shape, threads, shared_bytes, order), arguments
        )


def _run_block(function: Callable[..., None], block: _Block, arguments: tuple[Any, ...]) -> None:
    threads: list[_Thread] = []
    warps: dict[int, _Warp] = {}
    for number in range(block.dim.x):
        thread = _Thread(lambda: function(*arguments))
        thread.block, thread.lane, thread.waiting, thread.result = block, number % 32, "", None
        thread.place, thread.groups, thread.pending = SimpleNamespace(x=number, y=0, z=0), [], []
        thread.warp = warps.setdefault(number // 32, _Warp())
        thread.warp.lanes.append(thread)
        threads.append(thread)
    live = threads
    while live:
        block.order.shuffle(live)
        ran = False
        for thread in live:
            if not thread.waiting:
                ran = True
                thread.switch()
        live = [thread for thread in live if not thread.dead]
        if not ran and live:
            states = {thread.waiting for thread in live}
            if states != {"block"}:
                raise Deadlock(
                    f"threads wait at {sorted(states)} and nobody comes; {len(live)} of {len(threads)} are left"
                )
            for thread in live:
                thread.waiting = ""


def _pause(why: str) -> None:
    thread = getcurrent()
    thread.waiting = why
    thread.parent.switch()


def _collective(value: Any, meet: Callable[[list[Any]], list[Any]]) -> Any:
    """All 32 lanes bring a value; meet(values by lane) gives each lane its result."""
    thread = getcurrent()
    warp = thread.warp
    warp.values[thread.lane] = value
    warp.arrived += 1
    if warp.arrived < 32:
        _pause("warp")
        return thread.result
    results = meet(warp.values)
    warp.values, warp.arrived = [None] * 32, 0
    for other in warp.lanes:
        other.result, other.waiting = results[other.lane], ""
    return results[thread.lane]


class _Cuda:
    """numba.cuda as kernels use it."""

    threadIdx = property(lambda self: getcurrent().place)
    blockIdx = property(lambda self: getcurrent().block.index)
    blockDim = property(lambda self: getcurrent().block.dim)
    gridDim = property(lambda self: getcurrent().block.grid)

    @staticmethod
    def syncthreads() -> None:
        _pause("block")

    class shared:
        @staticmethod
        def array(shape: int, dtype: Any) -> Any:
            assert shape == 0, "kernels use one dynamic array"
            return getcurrent().block.shared.view(dtype.dtype)

    class local:
        @staticmethod
        def array(shape: int, dtype: Any) -> Any:
            return np.full(shape * dtype.dtype.itemsize, POISON, np.uint8).view(dtype.dtype)


cuda = _Cuda()


class _Pointer:
    """A flat array that refuses negative and too large indices instead of wrapping around."""

    def __init__(self, array: Any) -> None:
        self.array = array.reshape(-1)

    def __getitem__(self, index: Any) -> Any:
        return self.array[self.checked(index, 1)]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.array[self.checked(index, 1)] = value

    def checked(self, index: Any, count: int) -> int:
        at = int(index)
        if not 0 <= at <= len(self.array) - count:
            raise IndexError(f"element {at} (and {count - 1} more) of {len(self.array)}")
        return at

    def window(self, index: Any, num_bytes: int) -> Any:
        """uint8 view of num_bytes from element `index`, which must lie on such a boundary as the access needs."""
        size = self.array.itemsize
        at = self.checked(index, max(1, num_bytes // size))
        if at * size % min(num_bytes, 16):
            raise IndexError(f"element {at} is not aligned for an access of {num_bytes} bytes")
        return self.array[at : at + num_bytes // size].view(np.uint8)


def _shared(shared: Any, offset: Any, num_bytes: int) -> Any:
    at = int(offset)
    if at < 0 or at + num_bytes > len(shared) or at % min(num_bytes, 16):
        raise IndexError(f"shared bytes {at} to {at + num_bytes} of {len(shared)}")
    return shared[at : at + num_bytes]


# ---------------------------------------------------------------- arithmetic


def bits_of_f32(value: Any) -> Any:
    return np.array(value, F).view(U)[()]


def f32_of_bits(bits: Any) -> Any:
    return np.array(bits, U).view(F)[()]


def exp2(value: Any) -> Any:
    with np.errstate(over="ignore", under="ignore"):
        return F(np.exp2(F(value)))


def log2(value: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return F(np.log2(F(value)))


def reciprocal(value: Any) -> Any:
    with np.errstate(divide="ignore"):
        return F(1) / F(value)


def rsqrt(value: Any) -> Any:
    return F(1 / np.sqrt(np.float64(value)))


def fma(a: Any, b: Any, c: Any) -> Any:
    with np.errstate(invalid="ignore", over="ignore"):
        return F(np.float64(a) * np.float64(b) + np.float64(c))


def add_u32(a: Any, b: Any) -> Any:
    return U((int(a) + int(b)) & _MASK)


def sub_u32(a: Any, b: Any) -> Any:
    return U((int(a) - int(b)) & _MASK)


def add_f32(a: Any, b: Any) -> Any:
    with np.errstate(invalid="ignore", over="ignore"):
        return F(a) + F(b)


def mul_f32(a: Any, b: Any) -> Any:
    with np.errstate(invalid="ignore", over="ignore"):
        return F(a) * F(b)


def _bf16_bits(value: Any) -> int:
    bits = int(bits_of_f32(value))
    if bits & 0x7FFFFFFF > 0x7F800000:
        return 0x7FFF
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


def pack_bf16(low: Any, high: Any) -> Any:
    return U(_bf16_bits(low) | _bf16_bits(high) << 16)


def low_bf16(pair: Any) -> Any:
    return f32_of_bits((int(pair) << 16) & _MASK)


def high_bf16(pair: Any) -> Any:
    return f32_of_bits(int(pair) & 0xFFFF0000)


def pack_f16(low: Any, high: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.array([low, high], F).astype(np.float16).view(U)[0]


def low_f16(pair: Any) -> Any:
    return F(np.array([pair], U).view(np.float16)[0])


def high_f16(pair: Any) -> Any:
    return F(np.array([pair], U).view(np.float16)[1])


# ---------------------------------------------------------------- warps


def _lanes(value: Any) -> tuple[list[Any], int]:
    return _collective(value, lambda values: [(values, lane) for lane in range(32)])


def shuffle_xor_f32(value: Any, mask: int) -> Any:
    values, lane = _lanes(value)
    return values[lane ^ int(mask)]


shuffle_xor_u32 = shuffle_xor_f32


def shuffle_up_u32(value: Any, distance: int) -> Any:
    values, lane = _lanes(value)
    return values[lane - int(distance)] if lane >= distance else values[lane]


def shuffle_u32(value: Any, source: int) -> Any:
    return _lanes(value)[0][int(source) & 31]


def warp_add_u32(value: Any) -> Any:
    return U(sum(int(other) for other in _lanes(value)[0]) & _MASK)


def warp_max_u32(value: Any) -> Any:
    return U(max(int(other) for other in _lanes(value)[0]))


def sync_warp() -> None:
    _lanes(0)


def transpose_8x8(value: Any) -> Any:
    def meet(values: list[Any]) -> list[Any]:
        matrix = np.array(values, U).view(np.uint16).reshape(8, 8)
        return list(np.ascontiguousarray(matrix.T).reshape(-1).view(U))

    return _collective(value, meet)


_GROUP, _PLACE = np.arange(32) >> 2, np.arange(32) & 3


def _bf16_floats(words: Any) -> Any:
    return (words.astype(U) << 16).view(F)


def _product(slots: list[Any], floats: Callable[[Any], Any]) -> list[Any]:
    halves = floats(np.array([slot[:6] for slot in slots], U).view(np.uint16).reshape(32, 6, 2))
    sums = np.array([slot[6:] for slot in slots], F)
    a, b, d = np.zeros((16, 16), F), np.zeros((16, 8), F), np.zeros((16, 8), F)
    for e in range(2):
        a[_GROUP, 2 * _PLACE + e], a[_GROUP + 8, 2 * _PLACE + e] = halves[:, 0, e], halves[:, 1, e]
        a[_GROUP, 2 * _PLACE + 8 + e], a[_GROUP + 8, 2 * _PLACE + 8 + e] = halves[:, 2, e], halves[:, 3, e]
        b[2 * _PLACE + e, _GROUP], b[2 * _PLACE + 8 + e, _GROUP] = halves[:, 4, e], halves[:, 5, e]
        d[_GROUP, 2 * _PLACE + e], d[_GROUP + 8, 2 * _PLACE + e] = sums[:, e], sums[:, 2 + e]
    with np.errstate(all="ignore"):  # rows that nobody owns may hold infinities
        d = d + a @ b
    return [
        (d[g, 2 * p], d[g, 2 * p + 1], d[g + 8, 2 * p], d[g + 8, 2 * p + 1])
        for g, p in zip(_GROUP, _PLACE, strict=True)
    ]


def _mma(sums: Any, at: int, a: Any, b0: Any, b1: Any, floats: Callable[[Any], Any]) -> None:
    slot = (*a, b0, b1, *sums[at : at + 4])
    sums[at : at + 4] = _collective(slot, lambda slots: _product(slots, floats))


def mma_bf16(sums: Any, at: int, a: Any, b0: Any, b1: Any) -> None:
    _mma(sums, at, a, b0, b1, _bf16_floats)


def mma_f16(sums: Any, at: int, a: Any, b0: Any, b1: Any) -> None:
    _mma(sums, at, a, b0, b1, lambda words: words.view(np.float16).astype(F))


# ---------------------------------------------------------------- global memory


def load_16(pointer: Any, index: Any) -> Any:
    return tuple(pointer.window(index, 16).view(U))


load_16_fresh = load_16


def load_4(pointer: Any, index: Any) -> Any:
    return pointer.window(index, 4).view(U)[0]


def load_f32_l2(pointer: Any, index: Any) -> Any:
    return pointer.window(index, 4).view(F)[0]


def store_16(pointer: Any, index: Any, words: Any) -> None:
    pointer.window(index, 16)[:] = np.array(words, U).view(np.uint8)


def store_4(pointer: Any, index: Any, word: Any) -> None:
    pointer.window(index, 4)[:] = np.array([word], U).view(np.uint8)


def global_add(pointer: Any, index: Any, value: Any) -> Any:
    cell = pointer.window(index, 4).view(U)
    old = cell[0]
    cell[0] = (int(old) + int(value)) & _MASK
    return old


def fence_global() -> None:
    """Blocks run one after the other: what they wrote is there."""


# ---------------------------------------------------------------- shared memory


def shared_f32(shared: Any, offset: Any) -> Any:
    return _shared(shared, offset, 4).view(F)[0]


def shared_u32(shared: Any, offset: Any) -> Any:
    return _shared(shared, offset, 4).view(U)[0]


def shared_16(shared: Any, offset: Any) -> Any:
    return tuple(_shared(shared, offset, 16).view(U))


def store_shared_f32(shared: Any, offset: Any, value: Any) -> None:
    _shared(shared, offset, 4).view(F)[0] = value


def store_shared_u32(shared: Any, offset: Any, value: Any) -> None:
    _shared(shared, offset, 4).view(U)[0] = value


def store_shared_16(shared: Any, offset: Any, words: Any) -> None:
    _shared(shared, offset, 16)[:] = np.array(words, U).view(np.uint8)


def shared_add(shared: Any, offset: Any, value: Any) -> Any:
    cell = _shared(shared, offset, 4).view(U)
    old = cell[0]
    cell[0] = (int(old) + int(value)) & _MASK
    return old


def _matrices(shared: Any, offset: Any, transposed: bool) -> Any:
    def meet(slots: list[Any]) -> list[Any]:
        rows = np.stack([_shared(memory, at, 16).view(np.uint16) for memory, at in slots]).reshape(4, 8, 8)
        if transposed:
            rows = rows.transpose(0, 2, 1)
        words = np.ascontiguousarray(rows).reshape(4, 64).view(U)
        return [tuple(words[:, lane]) for lane in range(32)]

    return _collective((shared, int(offset)), meet)


def ldmatrix(shared: Any, offset: Any) -> Any:
    return _matrices(shared, offset, False)


def ldmatrix_transposed(shared: Any, offset: Any) -> Any:
    return _matrices(shared, offset, True)


# ---------------------------------------------------------------- asynchronous copies


def copy_16(shared: Any, offset: Any, pointer: Any, index: Any, num_bytes: Any) -> None:
    assert int(num_bytes) in (0, 16)
    target = _shared(shared, offset, 16)
    source = pointer.window(index, 16) if num_bytes else np.zeros(16, np.uint8)
    getcurrent().pending.append(lambda: target.__setitem__(slice(None), source))


def copy_commit() -> None:
    thread = getcurrent()
    thread.groups.append(thread.pending)
    thread.pending = []


def _wait(left: int) -> Callable[[], None]:
    def wait() -> None:
        groups = getcurrent().groups
        while len(groups) > left:
            for copy in groups.pop(0):
                copy()

    return wait


copy_wait_0, copy_wait_1, copy_wait_2, copy_wait_3 = (_wait(left) for left in range(4))


class _Barrier:
    """An mbarrier: a phase is over when all arrivals have come and all announced bytes have landed."""

    def __init__(self, arrivals: int) -> None:
        self.phase, self.arrivals, self.missing, self.bytes = 0, arrivals, arrivals, 0
        self.copies: list[Callable[[], None]] = []

    def turn(self) -> None:
        if self.missing == 0 and self.bytes == 0:
            self.phase, self.missing = self.phase + 1, self.arrivals


def barrier_init(shared: Any, offset: Any, arrivals: Any) -> None:
    _shared(shared, offset, 8)[:] = 0
    getcurrent().block.barriers[int(offset)] = _Barrier(int(arrivals))


def barrier_fence() -> None:
    """Makes initialised barriers visible to the copy engine; here they are at once."""


def fence_async_proxy() -> None:
    """Orders plain accesses to shared memory before later bulk copies into it; here they are in order."""


def barrier_expect(shared: Any, offset: Any, num_bytes: Any) -> None:
    barrier = getcurrent().block.barriers[int(offset)]
    barrier.bytes += int(num_bytes)
    barrier.missing -= 1
    barrier.turn()


def bulk_copy(shared: Any, offset: Any, pointer: Any, index: Any, num_bytes: Any, barrier: Any) -> None:
    """Lands only when somebody waits for it: a kernel that reads too early reads what was there before."""
    size, at, first = int(num_bytes), int(offset), int(index)
    assert size % 16 == 0 and at % 16 == 0 and 0 <= at <= len(shared) - size
    pointer.window(first, 16)
    pointer.checked(first, size // pointer.array.itemsize)
    source = pointer.array[first : first + size // pointer.array.itemsize].view(np.uint8)
    state = getcurrent().block.barriers[int(barrier)]

    def land() -> None:
        shared[at : at + size] = source
        state.bytes -= size
        state.turn()

    state.copies.append(land)


def barrier_wait(shared: Any, offset: Any, parity: Any) -> None:
    """All lanes of a warp, until the phase of this parity is over: the barrier's phase has the other parity then."""
    barrier = getcurrent().block.barriers[int(offset)]
    sync_warp()
    copies, barrier.copies = barrier.copies, []
    for land in copies:
        land()
    if barrier.phase % 2 == int(parity):
        raise Deadlock("a bulk copy is waited for that nobody has started")
    sync_warp()


class Half:
    """The operations of one 16-bit float type."""

    def __init__(self, pack: Any, low: Any, high: Any, mma: Any) -> None:
        self.pack, self.low, self.high, self.mma = pack, low, high, mma


def half(dtype: str) -> Half:
    return {
        "bfloat16": Half(pack_bf16, low_bf16, high_bf16, mma_bf16),
        "float16": Half(pack_f16, low_f16, high_f16, mma_f16),
    }[dtype]
