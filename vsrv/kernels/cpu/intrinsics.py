"""LLVM IR pieces that numba's Python cannot express: register tiles, raw loads, atomics, bit casts.

Every tile multiplies MT activation rows (fp32) with 16-column panels of packed weights, widened to fp32 in registers, and
keeps the whole MT x NB accumulator in vector registers. `<16 x float>` is one AVX-512 register and two on AVX2: LLVM
legalises it, so that there is one text for both.

Packed weights are [N/32][K][32]: one 64-byte line (16-bit types) holds 32 columns of one k.
- bfloat16: word j of the line = column j (low half) and column 16+j (high half), so that a shift and a mask widen it;
- float16 and float32: columns in order.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BFLOAT16, FLOAT16, FLOAT32 = 0, 1, 2  # weight and KV types as the kernels' arguments name them
_F32, _I8, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VF, _VI = ir.VectorType(_F32, 16), ir.VectorType(_I32, 16)
_VH = ir.VectorType(ir.HalfType(), 16)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_VF, ir.Undefined)
    lane = builder.insert_element(undefined, value, _I32(0))
    return builder.shuffle_vector(lane, undefined, ir.Constant(_VI, [0] * 16))


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    value = builder.load(_pointer(builder, address, kind))
    value.align = align
    return value


def _widened(builder: Any, dtype: int, address: Any) -> tuple[Any, Any]:
    """The two 16-column halves of one packed line as fp32 vectors."""
    if dtype == BFLOAT16:
        line = _load(builder, address, _VI, 64)
        low = builder.bitcast(builder.shl(line, ir.Constant(_VI, [16] * 16)), _VF)
        high = builder.bitcast(builder.and_(line, ir.Constant(_VI, [-65536] * 16)), _VF)
        return low, high
    if dtype == FLOAT16:
        low = builder.fpext(_load(builder, address, _VH, 32), _VF)
        return low, builder.fpext(_load(builder, builder.add(address, _I64(32)), _VH, 32), _VF)
    return _load(builder, address, _VF, 64), _load(builder, builder.add(address, _I64(64)), _VF, 64)


def make_tile(dtype: int, rows: int, panels: int, accumulate: bool) -> Any:
    """tile(x, x_stride, w, w_stride, k, out, out_stride): out[rows, panels*32] (+)= x[rows, k] @ w.

    Addresses and strides in bytes; w_stride lies between panels. One fused multiply-add per k and element in rising k,
    whatever `rows` and `panels` are: an output element does not depend on the tile that computed it.
    """
    line_bytes = 128 if dtype == FLOAT32 else 64

    @intrinsic
    def tile(typing_context, x, x_stride, w, w_stride, k_count, out, out_stride):  # type: ignore[no-untyped-def]
        signature = types.void(*[types.int64] * 7)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            x, x_stride, w, w_stride, k_count, out, out_stride = arguments
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_VF, [_VF, _VF, _VF]), "llvm.fma.v16f32"
            )
            cells = [(i, j) for i in range(rows) for j in range(2 * panels)]

            def out_address(i: int, j: int) -> Any:
                return builder.add(builder.add(out, builder.mul(out_stride, _I64(i))), _I64(64 * j))

            start = {
                c: _load(builder, out_address(*c), _VF, 4) if accumulate else ir.Constant(_VF, None)
                for c in cells
            }
            before = builder.block
            loop = builder.function.append_basic_block("k")
            done = builder.function.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", k_count, _I64(0)), loop, done)
            builder.position_at_end(loop)
            k = builder.phi(_I64)
            k.add_incoming(_I64(0), before)
            sums = {}
            for c in cells:
                sums[c] = builder.phi(_VF)
                sums[c].add_incoming(start[c], before)
            w_offset = builder.mul(k, _I64(line_bytes))
            x_offset = builder.mul(k, _I64(4))
            columns: list[Any] = []
            for j in range(panels):
                address = builder.add(builder.add(w, builder.mul(w_stride, _I64(j))), w_offset)
                columns += _widened(builder, dtype, address)
            updated = {}
            for i in range(rows):
                address = builder.add(builder.add(x, builder.mul(x_stride, _I64(i))), x_offset)
                value = _splat(builder, _load(builder, address, _F32, 4))
                for j, column in enumerate(columns):
                    updated[i, j] = builder.call(fma, [value, column, sums[i, j]])
            following = builder.add(k, _I64(1))
            end = builder.block
            k.add_incoming(following, end)
            for c in cells:
                sums[c].add_incoming(updated[c], end)
            builder.cbranch(builder.icmp_signed("<", following, k_count), loop, done)
            builder.position_at_end(done)
            for c in cells:
                total = builder.phi(_VF)
                total.add_incoming(start[c], before)
                total.add_incoming(updated[c], end)
                start[c] = total
            for c in cells:
                store = builder.store(start[c], _pointer(builder, out_address(*c), _VF))
                store.align = 4
            return context.get_dummy_value()

        return signature, generate

    return tile


def _pointer_cast(kind: Any) -> Any:
    @intrinsic
    def cast(typing_context, address):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return cast


pointer_f32 = _pointer_cast(types.float32)
pointer_i32 = _pointer_cast(types.int32)
pointer_u32 = _pointer_cast(types.uint32)
pointer_u16 = _pointer_cast(types.uint16)
pointer_i64 = _pointer_cast(types.int64)


def _bits(source: Any, target: Any, kind: Any) -> Any:
    @intrinsic
    def cast(typing_context, value):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.bitcast(arguments[0], kind)

        return target(source), generate

    return cast


bits_of_f32 = _bits(types.float32, types.int32, _I32)
f32_of_bits = _bits(types.int32, types.float32, _F32)


@intrinsic
def f16_bits_of_f32(typing_context, value):  # type: ignore[no-untyped-def]
    """float32 → IEEE binary16 bits, rounded to nearest even."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@intrinsic
def f32_of_f16_bits(typing_context, value):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), _F32)

    return types.float32(types.uint16), generate


@intrinsic
def atomic_add(typing_context, address, value):  # type: ignore[no-untyped-def]
    """Sequentially consistent fetch-and-add on an int64; returns the old value."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", _pointer(builder, arguments[0], _I64), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_load(typing_context, address):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_pointer(builder, arguments[0], _I64), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def atomic_store(typing_context, address, value):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store_atomic(arguments[1], _pointer(builder, arguments[0], _I64), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate
