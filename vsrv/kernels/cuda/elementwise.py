"""What lies between the matrix products: norms, the gate of the MLP, rotary embedding with the write into the KV cache.

All are bound by memory: each value is read once and written once, in 16-byte accesses where rows allow. Sums are fp32, stored values 16 bits.
"""

from __future__ import annotations

from typing import Any

from vsrv.kernels.cuda.layout import BLOCK, halves
from vsrv.kernels.cuda.source import KernelSource

LOG2E = 1.4426950408889634


def make_rms_norm(ops: Any, *, dtype: str, add: bool, passes: int, threads: int = 256) -> KernelSource:
    """x u16 [T, width], residual u16 [T, width], weight f32 [width], out u16 [T, width], width, 1 / width, eps. One block for each row.

    out = x / rms(x) * weight (Zhang & Sennrich 2019); with `add` first residual += x, rounded to 16 bits, and the norm is of that sum.
    width is a multiple of 8 and at most passes * threads * 8. Shared: 128 bytes. Tolerance: one unit of the 16-bit type.
    """
    cuda, f32, i64, u8 = ops.cuda, ops.f32, ops.i64, ops.u8
    half = ops.half(dtype)
    pack, low, high = half.pack, half.low, half.high
    load_16, load_fresh, store_16 = ops.load_16, ops.load_16_fresh, ops.store_16
    xor, rsqrt, fma, f32_of_bits = ops.shuffle_xor_f32, ops.rsqrt, ops.fma, ops.f32_of_bits
    shared_f32, store_shared_f32 = ops.shared_f32, ops.store_shared_f32
    values = passes * 8
    warps = threads // 32

    def rms_norm(x, residual, weight, out, width, inverse, eps):  # type: ignore[no-untyped-def]
        shared = cuda.shared.array(0, u8)
        thread = cuda.threadIdx.x
        chunks = width >> 3
        row = i64(cuda.blockIdx.x) * width
        held = cuda.local.array(values, f32)
        total = f32(0)
        for p in range(passes):
            chunk = thread + p * threads
            if chunk < chunks:
                words = load_16(x, row + chunk * 8)
                if add:
                    old = load_fresh(residual, row + chunk * 8)
                    words = (
                        pack(low(words[0]) + low(old[0]), high(words[0]) + high(old[0])),
                        pack(low(words[1]) + low(old[1]), high(words[1]) + high(old[1])),
                        pack(low(words[2]) + low(old[2]), high(words[2]) + high(old[2])),
                        pack(low(words[3]) + low(old[3]), high(words[3]) + high(old[3])),
                    )
                    store_16(residual, row + chunk * 8, words)
                for i in range(4):
                    a = low(words[i])
                    b = high(words[i])
                    held[p * 8 + 2 * i] = a
                    held[p * 8 + 2 * i + 1] = b
                    total = fma(a, a, fma(b, b, total))
        for mask in (16, 8, 4, 2, 1):
            total += xor(total, mask)
        if (thread & 31) == 0:
            store_shared_f32(shared, (thread >> 5) * 4, total)
        cuda.syncthreads()
        total = f32(0)
        for w in range(warps):
            total += shared_f32(shared, w * 4)
        scale = rsqrt(fma(total, inverse, eps))
        for p in range(passes):
            chunk = thread + p * threads
            if chunk < chunks:
                g = load_16(weight, i64(chunk * 8))
                h = load_16(weight, i64(chunk * 8 + 4))
                k = p * 8
                words = (
                    pack(held[k] * scale * f32_of_bits(g[0]), held[k + 1] * scale * f32_of_bits(g[1])),
                    pack(held[k + 2] * scale * f32_of_bits(g[2]), held[k + 3] * scale * f32_of_bits(g[3])),
                    pack(held[k + 4] * scale * f32_of_bits(h[0]), held[k + 5] * scale * f32_of_bits(h[1])),
                    pack(held[k + 6] * scale * f32_of_bits(h[2]), held[k + 7] * scale * f32_of_bits(h[3])),
                )
                store_16(out, row + chunk * 8, words)

    kinds = ("*u16", "*u16", "*f32", "*u16", "i32", "f32", "f32")
    return KernelSource("rms_norm", rms_norm, kinds, threads, 128, (dtype, add, passes, threads))


def make_gated(ops: Any, *, dtype: str, activation: str, threads: int = 256) -> KernelSource:
    """gate_up u16 [T, 2 * width] → out u16 [T, width] = activation(gate) * up; width. Grid (T, width / 8 / threads rounded up).

    activation "silu", "gelu" (erf by Abramowitz & Stegun 7.1.26, error 1.5e-7) or "gelu_tanh". width is a multiple of 8.
    """
    cuda, f32, i64 = ops.cuda, ops.f32, ops.i64
    half, device = ops.half(dtype), ops.device
    pack, low, high = half.pack, half.low, half.high
    load_16, store_16, exp2, reciprocal = ops.load_16, ops.store_16, ops.exp2, ops.reciprocal
    is_silu, is_gelu = activation == "silu", activation == "gelu"
    log2e, tanh_scale, tanh_cubic = f32(LOG2E), f32(0.7978845608028654), f32(0.044715)
    root_half, p_erf = f32(0.7071067811865476), f32(0.3275911)
    a1, a2, a3, a4, a5 = (
        f32(0.254829592),
        f32(-0.284496736),
        f32(1.421413741),
        f32(-1.453152027),
        f32(1.061405429),
    )

    @device
    def active(gate):  # type: ignore[no-untyped-def]
        if is_silu:
            return gate * reciprocal(f32(1) + exp2(-gate * log2e))
        if is_gelu:
            x = gate * root_half
            size = max(x, -x)
            t = reciprocal(f32(1) + p_erf * size)
            tail = ((((a5 * t + a4) * t + a3) * t + a2) * t + a1) * t * exp2(-size * size * log2e)
            erf = f32(1) - tail if x > f32(0) else tail - f32(1)
            return f32(0.5) * gate * (f32(1) + erf)
        inner = tanh_scale * (gate + tanh_cubic * gate * gate * gate)
        return gate * reciprocal(
            f32(1) + exp2(f32(-2) * inner * log2e)
        )  # (1 + tanh) / 2 as a logistic function

    @device
    def both(gate, up):  # type: ignore[no-untyped-def]
        return pack(active(low(gate)) * low(up), active(high(gate)) * high(up))

    def gated(gate_up, out, width):  # type: ignore[no-untyped-def]
        row = i64(cuda.blockIdx.x)
        chunk = (cuda.blockIdx.y * threads + cuda.threadIdx.x) * 8
        if chunk < width:
            gate = load_16(gate_up, row * (2 * width) + chunk)
            up = load_16(gate_up, row * (2 * width) + width + chunk)
            words = (both(gate[0], up[0]), both(gate[1], up[1]), both(gate[2], up[2]), both(gate[3], up[3]))
            store_16(out, row * width + chunk, words)

    return KernelSource("gated", gated, ("*u16", "*u16", "i32"), threads, 0, (dtype, activation, threads))


def make_rope_cache(ops: Any, *, dtype: str, padded: int, norms: bool, threads: int = 256) -> KernelSource:
    """qkv u16 [T, (Hq + 2 Hkv) * D] in place, q_norm and k_norm f32 [D] (read with `norms` only), cos_sin f32 [P, 2, D / 2],
    positions i32 [T], slots i32 [T] (below 0: padding, nothing is written), k and v cache, eps, T, Hq, Hkv, D.
    Grid: a warp for each token and head. `padded` is head_dim up to a multiple of 64.

    One warp for each token and head: RMSNorm of q and k, rotation of the pairs (d, d + D / 2) (Su et al. 2021), q back in place, k and v into
    the layout that attention reads (layout.py). head_dim is a multiple of 8.
    """
    cuda, f32, i32, i64, u32 = ops.cuda, ops.f32, ops.i32, ops.i64, ops.u32
    half = ops.half(dtype)
    pack, low, high = half.pack, half.low, half.high
    load_4, store_4, xor, rsqrt, fma = ops.load_4, ops.store_4, ops.shuffle_xor_f32, ops.rsqrt, ops.fma
    reciprocal = ops.reciprocal
    passes = (padded // 4 + 31) // 32
    held = passes * 4
    parts = halves(padded)

    def rope_cache(  # type: ignore[no-untyped-def]
        qkv, q_norm, k_norm, cos_sin, positions, slots, k, v, eps, tokens, num_heads, num_kv_heads, head_dim
    ):
        item = i32((cuda.blockIdx.x * threads + cuda.threadIdx.x) >> 5)
        lane = cuda.threadIdx.x & 31
        heads = i32(num_heads + 2 * num_kv_heads)
        pairs = head_dim >> 1
        words = head_dim >> 2  # pairs of adjacent dims in a half of the head
        token = i32(u32(item) // u32(heads))
        head = item - token * heads
        if token < tokens:  # the same for all lanes of a warp
            source = i64(token) * (heads * head_dim) + head * head_dim
            values = cuda.local.array(held, f32)
            total = f32(0)
            for p in range(passes):
                word = lane + p * 32
                first = u32(0)
                second = u32(0)
                if word < words:
                    first = load_4(qkv, source + word * 2)
                    second = load_4(qkv, source + pairs + word * 2)
                values[p * 4] = low(first)
                values[p * 4 + 1] = high(first)
                values[p * 4 + 2] = low(second)
                values[p * 4 + 3] = high(second)
                if norms:
                    for i in range(4):
                        total = fma(values[p * 4 + i], values[p * 4 + i], total)
            rotated = head < num_heads + num_kv_heads
            if norms:
                for mask in (16, 8, 4, 2, 1):
                    total += xor(total, mask)
            scale = rsqrt(fma(total, reciprocal(f32(head_dim)), eps))
            slot = slots[token]
            block = slot // BLOCK
            row = slot - block * BLOCK
            angles = i64(positions[token]) * head_dim
            for p in range(passes):
                word = lane + p * 32
                if word < words:
                    dim = word * 2
                    a = values[p * 4]
                    b = values[p * 4 + 1]
                    c = values[p * 4 + 2]
                    d = values[p * 4 + 3]
                    if rotated:
                        if norms:
                            if head < num_heads:
                                a *= scale * q_norm[dim]
                                b *= scale * q_norm[dim + 1]
                                c *= scale * q_norm[pairs + dim]
                                d *= scale * q_norm[pairs + dim + 1]
                            else:
                                a *= scale * k_norm[dim]
                                b *= scale * k_norm[dim + 1]
                                c *= scale * k_norm[pairs + dim]
                                d *= scale * k_norm[pairs + dim + 1]
                        cos0 = cos_sin[angles + dim]
                        cos1 = cos_sin[angles + dim + 1]
                        sin0 = cos_sin[angles + pairs + dim]
                        sin1 = cos_sin[angles + pairs + dim + 1]
                        e = a * cos0 - c * sin0
                        g = b * cos1 - d * sin1
                        c = c * cos0 + a * sin0
                        d = d * cos1 + b * sin1
                        a = e
                        b = g
                    first = pack(a, b)
                    second = pack(c, d)
                    if head < num_heads:
                        store_4(qkv, source + dim, first)
                        store_4(qkv, source + pairs + dim, second)
                    elif slot >= 0:
                        kv_head = head - num_heads
                        if kv_head >= num_kv_heads:
                            kv_head -= num_kv_heads
                        page = (i64(block) * num_kv_heads + kv_head) * parts
                        here = (
                            ((page + (dim >> 6)) * BLOCK + row) * 64
                            + ((((dim >> 3) & 7) ^ (row & 7)) * 8)
                            + (dim & 7)
                        )
                        dim += pairs
                        there = (
                            ((page + (dim >> 6)) * BLOCK + row) * 64
                            + ((((dim >> 3) & 7) ^ (row & 7)) * 8)
                            + (dim & 7)
                        )
                        if head < num_heads + num_kv_heads:
                            store_4(k, here, first)
                            store_4(k, there, second)
                        else:
                            store_4(v, here, first)
                            store_4(v, there, second)

    pointers = ("*u16", "*f32", "*f32", "*f32", "*i32", "*i32", "*u16", "*u16")
    kinds = (*pointers, "f32", "i32", "i32", "i32", "i32")
    parameters = (dtype, padded, norms, threads)
    return KernelSource("rope_cache", rope_cache, kinds, threads, 0, parameters)
