"""What a kernel may call: inline PTX and a few LLVM instructions, as numba sees them.

A kernel factory takes this module, or the simulator's of the same names (tests/cuda/simulator.py), as its argument `ops`, so that one
kernel text is compiled for the GPU and runs on any laptop. numba's own bfloat16, float16 and float8 types are not used: their
operators are extern functions that need a second compiler. 16-bit values travel as u16, or as pairs in a u32.

Shared memory is one dynamic byte array, addressed by byte offsets; global memory is a raw pointer with an element index.
Instructions and their semantics: PTX ISA 9.0; fragment layouts of mma.m16n8k16 and ldmatrix: section 9.7.14.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic
from numba.cuda.np import arrayobj

u8, u16, u32, i32, u64, i64, f32 = (
    types.uint8,
    types.uint16,
    types.uint32,
    types.int32,
    types.uint64,
    types.int64,
    types.float32,
)
_LLVM = {
    u16: ir.IntType(16),
    u32: ir.IntType(32),
    i32: ir.IntType(32),
    u64: ir.IntType(64),
    i64: ir.IntType(64),
    f32: ir.FloatType(),
}
_CONSTRAINT = {u16: "h", u32: "r", i32: "r", u64: "l", i64: "l", f32: "f"}
device = cuda.jit(device=True, forceinline=True)

# ---------------------------------------------------------------- how an instruction becomes a function


def _assembly(text: str, results: tuple[Any, ...], arguments: tuple[Any, ...], effect: str = "none") -> Any:
    """A device function for one PTX instruction; $0, $1 … are results, then arguments.

    effect: "none" (may be merged and moved), "volatile" (stays where it is), "memory" (orders other memory accesses as well).
    """
    constraints = [f"={_CONSTRAINT[kind]}" for kind in results] + [_CONSTRAINT[kind] for kind in arguments]
    if effect == "memory":
        constraints.append("~{memory}")
    if not results:
        returned, llvm_returned = types.void, ir.VoidType()
    elif len(results) == 1:
        returned, llvm_returned = results[0], _LLVM[results[0]]
    else:
        returned = types.UniTuple(results[0], len(results))
        llvm_returned = ir.LiteralStructType([_LLVM[kind] for kind in results])
    shape = ir.FunctionType(llvm_returned, [_LLVM[kind] for kind in arguments])
    together = ".sync" in text or text.startswith(
        "bar."
    )  # must not be moved into a branch that only some lanes take

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        assembly = ir.InlineAsm(
            shape, text, ",".join(constraints), side_effect=effect != "none" or not results
        )
        value = builder.call(assembly, values, attrs=("convergent",) if together else ())
        if not results:
            return context.get_dummy_value()
        if len(results) == 1:
            return value
        parts = [builder.extract_value(value, i) for i in range(len(results))]
        return context.make_tuple(builder, returned, parts)

    def typed(typing_context: Any, *given: Any) -> Any:
        return returned(*arguments), generate

    names = ["typing_context", *(f"argument_{i}" for i in range(len(arguments)))]
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # numba binds calls by it
    return intrinsic(typed)


def _bit_cast(source: Any, target: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], _LLVM[target])

    def typed(typing_context: Any, value: Any) -> Any:
        return target(source), generate

    return intrinsic(typed)


@intrinsic
def _global_address(typing_context: Any, pointer: Any, index: Any) -> Any:
    """Address of pointer[index] as u64."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.ptrtoint(builder.gep(values[0], [values[1]]), ir.IntType(64))

    return u64(pointer, i64), generate


@intrinsic
def _shared_address(typing_context: Any, array: Any) -> Any:
    """32-bit address of a shared array's first byte in the shared window."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = builder.ptrtoint(arrayobj.make_array(array)(context, builder, values[0]).data, ir.IntType(64))
        shape = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
        return builder.trunc(
            builder.call(ir.InlineAsm(shape, "cvta.to.shared.u64 $0, $1;", "=l,l"), [data]), ir.IntType(32)
        )

    return u32(array), generate


# ---------------------------------------------------------------- arithmetic

bits_of_f32 = _bit_cast(f32, u32)
f32_of_bits = _bit_cast(u32, f32)
exp2 = _assembly("ex2.approx.ftz.f32 $0, $1;", (f32,), (f32,))
log2 = _assembly("lg2.approx.ftz.f32 $0, $1;", (f32,), (f32,))
reciprocal = _assembly("rcp.approx.ftz.f32 $0, $1;", (f32,), (f32,))
rsqrt = _assembly("rsqrt.approx.ftz.f32 $0, $1;", (f32,), (f32,))
fma = _assembly("fma.rn.ftz.f32 $0, $1, $2, $3;", (f32,), (f32, f32, f32))
add_u32 = _assembly("add.u32 $0, $1, $2;", (u32,), (u32, u32))
sub_u32 = _assembly("sub.u32 $0, $1, $2;", (u32,), (u32, u32))
# rounded as written: fast math may fuse or reorder + and *, which breaks error-free sums and sums that must agree between kernels
add_f32 = _assembly("add.rn.ftz.f32 $0, $1, $2;", (f32,), (f32, f32))
mul_f32 = _assembly("mul.rn.ftz.f32 $0, $1, $2;", (f32,), (f32, f32))

# pairs of 16-bit floats in a u32: the first argument or result is the low half
pack_bf16 = _assembly("cvt.rn.bf16x2.f32 $0, $2, $1;", (u32,), (f32, f32))
pack_f16 = _assembly("cvt.rn.f16x2.f32 $0, $2, $1;", (u32,), (f32, f32))
low_f16 = _assembly("{.reg .b16 a,b; mov.b32 {a,b}, $1; cvt.f32.f16 $0, a;}", (f32,), (u32,))
high_f16 = _assembly("{.reg .b16 a,b; mov.b32 {a,b}, $1; cvt.f32.f16 $0, b;}", (f32,), (u32,))


@device
def low_bf16(pair):  # type: ignore[no-untyped-def]
    return f32_of_bits(u32(pair << u32(16)))


@device
def high_bf16(pair):  # type: ignore[no-untyped-def]
    return f32_of_bits(u32(pair & u32(0xFFFF0000)))


# ---------------------------------------------------------------- warps

_FULL = "-1"
shuffle_xor_f32 = _assembly(f"shfl.sync.bfly.b32 $0, $1, $2, 31, {_FULL};", (f32,), (f32, i32), "volatile")
shuffle_xor_u32 = _assembly(f"shfl.sync.bfly.b32 $0, $1, $2, 31, {_FULL};", (u32,), (u32, i32), "volatile")
shuffle_up_u32 = _assembly(f"shfl.sync.up.b32 $0, $1, $2, 0, {_FULL};", (u32,), (u32, i32), "volatile")
shuffle_u32 = _assembly(f"shfl.sync.idx.b32 $0, $1, $2, 31, {_FULL};", (u32,), (u32, i32), "volatile")
warp_add_u32 = _assembly(f"redux.sync.add.u32 $0, $1, {_FULL};", (u32,), (u32,), "volatile")
warp_max_u32 = _assembly(f"redux.sync.max.u32 $0, $1, {_FULL};", (u32,), (u32,), "volatile")
sync_warp = _assembly(f"bar.warp.sync {_FULL};", (), (), "memory")
transpose_8x8 = _assembly("movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", (u32,), (u32,), "volatile")


def _mma(kind: str) -> Any:
    text = f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.{kind}.f32 {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
    return _assembly(text, (f32,) * 4, (u32,) * 6 + (f32,) * 4)


_mma_bf16, _mma_f16 = _mma("bf16"), _mma("f16")


@device
def mma_bf16(sums, at, a, b0, b1):  # type: ignore[no-untyped-def]
    """sums[at : at + 4] += A [16, 16] @ B [16, 8], this lane's share. sums: a local array, which stays in registers."""
    d = _mma_bf16(a[0], a[1], a[2], a[3], b0, b1, sums[at], sums[at + 1], sums[at + 2], sums[at + 3])
    sums[at] = d[0]
    sums[at + 1] = d[1]
    sums[at + 2] = d[2]
    sums[at + 3] = d[3]


@device
def mma_f16(sums, at, a, b0, b1):  # type: ignore[no-untyped-def]
    d = _mma_f16(a[0], a[1], a[2], a[3], b0, b1, sums[at], sums[at + 1], sums[at + 2], sums[at + 3])
    sums[at] = d[0]
    sums[at + 1] = d[1]
    sums[at + 2] = d[2]
    sums[at + 3] = d[3]


# ---------------------------------------------------------------- global memory

_load_16 = _assembly(
    "ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {$0,$1,$2,$3}, [$4];", (u32,) * 4, (u64,), "none"
)
_load_16_fresh = _assembly("ld.global.v4.u32 {$0,$1,$2,$3}, [$4];", (u32,) * 4, (u64,), "memory")
_load_4 = _assembly("ld.global.u32 $0, [$1];", (u32,), (u64,), "memory")
_load_f32_l2 = _assembly("ld.global.cg.f32 $0, [$1];", (f32,), (u64,), "memory")
_store_16 = _assembly("st.global.v4.u32 [$0], {$1,$2,$3,$4};", (), (u64, u32, u32, u32, u32), "memory")
_store_4 = _assembly("st.global.u32 [$0], $1;", (), (u64, u32), "memory")
_global_add = _assembly("atom.global.add.u32 $0, [$1], $2;", (u32,), (u64, u32), "memory")
fence_global = _assembly("fence.acq_rel.gpu;", (), (), "memory")


@device
def load_16(pointer, index):  # type: ignore[no-untyped-def]
    """16 bytes at pointer[index] as four u32, for data that no kernel running now writes; bypasses L1."""
    return _load_16(_global_address(pointer, index))


@device
def load_16_fresh(pointer, index):  # type: ignore[no-untyped-def]
    """16 bytes that this kernel may have written."""
    return _load_16_fresh(_global_address(pointer, index))


@device
def load_4(pointer, index):  # type: ignore[no-untyped-def]
    return _load_4(_global_address(pointer, index))


@device
def load_f32_l2(pointer, index):  # type: ignore[no-untyped-def]
    """A float that another block has written: read from L2, where blocks meet."""
    return _load_f32_l2(_global_address(pointer, index))


@device
def store_16(pointer, index, words):  # type: ignore[no-untyped-def]
    _store_16(_global_address(pointer, index), words[0], words[1], words[2], words[3])


@device
def store_4(pointer, index, word):  # type: ignore[no-untyped-def]
    _store_4(_global_address(pointer, index), word)


@device
def global_add(pointer, index, value):  # type: ignore[no-untyped-def]
    """Atomic fetch-and-add of a u32; returns the old value."""
    return _global_add(_global_address(pointer, index), value)


# ---------------------------------------------------------------- shared memory

_shared_load_f32 = _assembly("ld.shared.f32 $0, [$1];", (f32,), (u32,), "memory")
_shared_load_u32 = _assembly("ld.shared.u32 $0, [$1];", (u32,), (u32,), "memory")
_shared_load_16 = _assembly("ld.shared.v4.u32 {$0,$1,$2,$3}, [$4];", (u32,) * 4, (u32,), "memory")
_shared_store_f32 = _assembly("st.shared.f32 [$0], $1;", (), (u32, f32), "memory")
_shared_store_u32 = _assembly("st.shared.u32 [$0], $1;", (), (u32, u32), "memory")
_shared_store_16 = _assembly("st.shared.v4.u32 [$0], {$1,$2,$3,$4};", (), (u32, u32, u32, u32, u32), "memory")
_shared_add = _assembly("atom.shared.add.u32 $0, [$1], $2;", (u32,), (u32, u32), "memory")
_LDMATRIX = "ldmatrix.sync.aligned.m8n8.x4{}.shared.b16 {{$0,$1,$2,$3}}, [$4];"
_ldmatrix = _assembly(_LDMATRIX.format(""), (u32,) * 4, (u32,), "memory")
_ldmatrix_transposed = _assembly(_LDMATRIX.format(".trans"), (u32,) * 4, (u32,), "memory")


@device
def shared_f32(shared, offset):  # type: ignore[no-untyped-def]
    return _shared_load_f32(_shared_address(shared) + u32(offset))


@device
def shared_u32(shared, offset):  # type: ignore[no-untyped-def]
    return _shared_load_u32(_shared_address(shared) + u32(offset))


@device
def shared_16(shared, offset):  # type: ignore[no-untyped-def]
    return _shared_load_16(_shared_address(shared) + u32(offset))


@device
def store_shared_f32(shared, offset, value):  # type: ignore[no-untyped-def]
    _shared_store_f32(_shared_address(shared) + u32(offset), value)


@device
def store_shared_u32(shared, offset, value):  # type: ignore[no-untyped-def]
    _shared_store_u32(_shared_address(shared) + u32(offset), value)


@device
def store_shared_16(shared, offset, words):  # type: ignore[no-untyped-def]
    _shared_store_16(_shared_address(shared) + u32(offset), words[0], words[1], words[2], words[3])


@device
def shared_add(shared, offset, value):  # type: ignore[no-untyped-def]
    """Atomic fetch-and-add of a u32; returns the old value."""
    return _shared_add(_shared_address(shared) + u32(offset), value)


@device
def ldmatrix(shared, offset):  # type: ignore[no-untyped-def]
    """Four 8x8 matrices of 16-bit values; lane l names row l % 8 of matrix l // 8."""
    return _ldmatrix(_shared_address(shared) + u32(offset))


@device
def ldmatrix_transposed(shared, offset):  # type: ignore[no-untyped-def]
    return _ldmatrix_transposed(_shared_address(shared) + u32(offset))


# ---------------------------------------------------------------- asynchronous copies (sm_80: cp.async; sm_90: bulk + mbarrier)

_copy_16 = _assembly("cp.async.cg.shared.global.L2::128B [$0], [$1], 16, $2;", (), (u32, u64, u32), "memory")
copy_commit = _assembly("cp.async.commit_group;", (), (), "memory")
copy_wait_0 = _assembly("cp.async.wait_group 0;", (), (), "memory")
copy_wait_1 = _assembly("cp.async.wait_group 1;", (), (), "memory")
copy_wait_2 = _assembly("cp.async.wait_group 2;", (), (), "memory")
copy_wait_3 = _assembly("cp.async.wait_group 3;", (), (), "memory")
_barrier_init = _assembly("mbarrier.init.shared.b64 [$0], $1;", (), (u32, u32), "memory")
_barrier_expect = _assembly("mbarrier.arrive.expect_tx.shared.b64 _, [$0], $1;", (), (u32, u32), "memory")
_barrier_passed = _assembly(
    "{.reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [$1], $2; selp.u32 $0,1,0,p;}",
    (u32,),
    (u32, u32),
    "memory",
)
_bulk_copy = _assembly(
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$0], [$1], $2, [$3];",
    (),
    (u32, u64, u32, u32),
    "memory",
)
fence_async_proxy = _assembly("fence.proxy.async.shared::cta;", (), (), "memory")
barrier_fence = _assembly("fence.mbarrier_init.release.cluster;", (), (), "memory")


@device
def copy_16(shared, offset, pointer, index, num_bytes):  # type: ignore[no-untyped-def]
    """Start copying 16 bytes; num_bytes 0 writes zeros and reads nothing."""
    _copy_16(_shared_address(shared) + u32(offset), _global_address(pointer, index), u32(num_bytes))


@device
def barrier_init(shared, offset, arrivals):  # type: ignore[no-untyped-def]
    _barrier_init(_shared_address(shared) + u32(offset), u32(arrivals))


@device
def barrier_expect(shared, offset, num_bytes):  # type: ignore[no-untyped-def]
    """Arrive, and make the phase wait for so many bytes of bulk copies."""
    _barrier_expect(_shared_address(shared) + u32(offset), u32(num_bytes))


@device
def barrier_wait(shared, offset, parity):  # type: ignore[no-untyped-def]
    """Until the phase of this parity is complete. All lanes of the warp call it."""
    while _barrier_passed(_shared_address(shared) + u32(offset), u32(parity)) == u32(0):
        pass


@device
def bulk_copy(shared, offset, pointer, index, num_bytes, barrier):  # type: ignore[no-untyped-def]
    """One thread copies num_bytes (a multiple of 16, both ends 16-byte aligned) and completes them on `barrier`."""
    base = _shared_address(shared)
    _bulk_copy(base + u32(offset), _global_address(pointer, index), u32(num_bytes), base + u32(barrier))


# ---------------------------------------------------------------- by element type


class Half:
    """The operations of one 16-bit float type."""

    def __init__(self, pack: Callable[..., Any], low: Any, high: Any, mma: Any) -> None:
        self.pack, self.low, self.high, self.mma = pack, low, high, mma


def half(dtype: str) -> Half:
    """dtype "bfloat16" or "float16"."""
    return {
        "bfloat16": Half(pack_bf16, low_bf16, high_bf16, mma_bf16),
        "float16": Half(pack_f16, low_f16, high_f16, mma_f16),
    }[dtype]
