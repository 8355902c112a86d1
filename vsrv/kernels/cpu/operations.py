"""The CPU's `Kernels`: checks arguments, fills the job's argument row, runs it on the thread team.

A call costs about 5 µs of Python; jobs below `_SERIAL_WORK` run on the calling thread, since handing over costs about 2 µs
when the team is awake and 50 µs when it is parked.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from vsrv import host
from vsrv.kernels.cpu import team as jobs
from vsrv.kernels.cpu.attention import BLOCK
from vsrv.kernels.cpu.intrinsics import BFLOAT16, FLOAT16, FLOAT32
from vsrv.kernels.cpu.sampling_state import CpuSamplingState, check_slots
from vsrv.kernels.cpu.team import MAX_ARGUMENTS, ThreadTeam
from vsrv.kernels.interface import AttentionMetadata, HeadShape, Kernels, PackedLinear

_DTYPES = {"bfloat16": BFLOAT16, "float16": FLOAT16, "float32": FLOAT32}
_ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2}
_LINE_BYTES = 64
_SERIAL_WORK = 100_000  # multiply-adds, or four times the elements of a row-wise job


def _float_bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def _item_bytes(dtype: str) -> int:
    return 4 if dtype == "float32" else 2


def _aligned(num_bytes: int) -> Any:
    """uint8 buffer on a page boundary: packed lines must be 64-byte aligned, pages help the hardware prefetcher."""
    raw = np.empty(num_bytes + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + num_bytes]


def _check_cache(k_cache: Any, v_cache: Any) -> None:
    """Blocks are read with aligned vector loads: a misplaced cache would end the process, not the step."""
    places = k_cache.data_ptr() | v_cache.data_ptr() | k_cache.stride()[0] | v_cache.stride()[0]
    if places % _LINE_BYTES:
        raise ValueError(f"KV blocks must lie on {_LINE_BYTES}-byte boundaries")


class CpuOperations:
    """Bound methods of this object are the fields of `Kernels`. Owned by the engine thread."""

    def __init__(self, num_threads: int) -> None:
        self.team = ThreadTeam(num_threads)
        self._arguments = np.zeros(MAX_ARGUMENTS, np.int64)

    def _run(self, job: int, values: tuple[int, ...], work: int) -> None:
        self._arguments[: len(values)] = values
        self.team.run(job, self._arguments, work >= _SERIAL_WORK)

    def kv_block_bytes(self, num_kv_heads: int, head_dim: int, dtype: str) -> tuple[int, int]:
        size = num_kv_heads * ((head_dim + 31) // 32 * 32) * BLOCK * _item_bytes(dtype)
        return size, size

    def pack_linear(self, weight: Any, bias: Any, dtype: str) -> PackedLinear:
        """weight [N, K] contiguous in `dtype`, bias float32 [N] or None."""
        n, k = weight.shape
        if str(weight.dtype) != f"torch.{dtype}" or weight.stride() != (k, 1):
            raise ValueError(
                f"weight to pack is {weight.dtype} with strides {weight.stride()}, not contiguous {dtype}"
            )
        storage = _aligned((n + 31) // 32 * k * 32 * _item_bytes(dtype))
        self._run(jobs.PACK, (weight.data_ptr(), n, k, _DTYPES[dtype], storage.ctypes.data), 1 << 30)
        return self._packed(storage, bias, n, k, dtype)

    def random_linear(self, n: int, k: int, dtype: str, seed: int) -> PackedLinear:
        """Seeded random weights of one magnitude, 1/sqrt(k), straight into the packed layout."""
        storage = _aligned((n + 31) // 32 * k * 32 * _item_bytes(dtype))
        exponent = max(-14, math.floor(math.log2(1 / math.sqrt(k)))) if k > 1 else 0
        if dtype == "float32":
            mask, high = 0x807FFFFF, (127 + exponent) << 23
        else:
            half = (127 + exponent) << 7 if dtype == "bfloat16" else (15 + exponent) << 10
            bits = 0x807F if dtype == "bfloat16" else 0x83FF
            mask, high = bits << 16 | bits, half << 16 | half
        self._run(jobs.FILL, (storage.ctypes.data, storage.nbytes // 4, seed, 0, mask, high), 1 << 30)
        return self._packed(storage, None, n, k, dtype)

    def _packed(self, storage: Any, bias: Any, n: int, k: int, dtype: str) -> PackedLinear:
        address = 0 if bias is None else bias.data_ptr()
        return PackedLinear(storage, storage.ctypes.data, bias, address, k, n, dtype, storage.nbytes)

    def linear(self, x: Any, packed: PackedLinear, out: Any) -> None:
        rows, k = x.shape
        n = packed.out_features
        if k != packed.in_features or out.shape[0] < rows or out.shape[1] < n:
            raise ValueError(
                f"linear: x {tuple(x.shape)}, weight [{n}, {packed.in_features}], out {tuple(out.shape)}"
            )
        values = (
            x.data_ptr(),
            x.stride()[0] * 4,
            packed.address,
            k,
            n,
            out.data_ptr(),
            out.stride()[0] * 4,
            rows,
            _DTYPES[packed.dtype],
            packed.bias_address,
        )
        self._run(jobs.LINEAR, values, rows * n * k)

    def embedding(self, ids: Any, packed: PackedLinear, out: Any) -> None:
        rows, hidden = ids.shape[0], packed.in_features
        values = (
            ids.data_ptr(),
            rows,
            packed.address,
            hidden,
            _DTYPES[packed.dtype],
            out.data_ptr(),
            out.stride()[0] * 4,
        )
        self._run(jobs.EMBEDDING, values, rows * hidden * 4)

    def rms_norm(self, x: Any, weight: Any, eps: float, out: Any) -> None:
        self._norm(x, 0, 0, weight, eps, out)

    def add_rms_norm(self, x: Any, residual: Any, weight: Any, eps: float, out: Any) -> None:
        self._norm(x, residual.data_ptr(), residual.stride()[0] * 4, weight, eps, out)

    def _norm(self, x: Any, residual: int, residual_stride: int, weight: Any, eps: float, out: Any) -> None:
        rows, hidden = x.shape
        values = (
            x.data_ptr(),
            x.stride()[0] * 4,
            residual,
            residual_stride,
            weight.data_ptr(),
            _float_bits(eps),
            out.data_ptr(),
            out.stride()[0] * 4,
            rows,
            hidden,
        )
        self._run(jobs.RMS_NORM, values, rows * hidden * 4)

    def gated(self, gate_up: Any, activation: str, out: Any) -> None:
        rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        values = (
            gate_up.data_ptr(),
            gate_up.stride()[0] * 4,
            out.data_ptr(),
            out.stride()[0] * 4,
            rows,
            width,
            _ACTIVATIONS[activation],
        )
        self._run(jobs.GATED, values, rows * width * 16)

    def rope_cache(
        self,
        qkv: Any,
        meta: AttentionMetadata,
        cos_sin: Any,
        norms: tuple[Any, Any, float],
        cache: tuple[Any, Any],
        heads: HeadShape,
        dtype: str,
    ) -> None:
        """norms: (q weight or None, k weight or None, eps); cache: this layer's K and V, uint8 [blocks, bytes]."""
        q_norm, k_norm, eps = norms
        k_cache, v_cache = cache
        _check_cache(k_cache, v_cache)
        values = (
            qkv.data_ptr(),
            qkv.stride()[0] * 4,
            qkv.shape[0],
            meta.positions.data_ptr(),
            cos_sin.data_ptr(),
            cos_sin.shape[2],
            0 if q_norm is None else q_norm.data_ptr(),
            0 if k_norm is None else k_norm.data_ptr(),
            _float_bits(eps),
            meta.slot_mapping.data_ptr(),
            k_cache.data_ptr(),
            k_cache.stride()[0],
            v_cache.data_ptr(),
            v_cache.stride()[0],
            heads.num_heads,
            heads.num_kv_heads,
            heads.head_dim,
            _DTYPES[dtype],
        )
        self._run(jobs.ROPE_CACHE, values, qkv.shape[0] * qkv.shape[1] * 8)

    def attention(
        self,
        qkv: Any,
        cache: tuple[Any, Any],
        meta: AttentionMetadata,
        heads: HeadShape,
        dtype: str,
        out: Any,
    ) -> None:
        k_cache, v_cache = cache
        _check_cache(k_cache, v_cache)
        tables = meta.block_tables
        values = (
            qkv.data_ptr(),
            qkv.stride()[0] * 4,
            tables.data_ptr(),
            tables.stride()[0],
            meta.cu_seqlens_q.data_ptr(),
            meta.seq_lens.data_ptr(),
            heads.num_heads // heads.num_kv_heads,
            heads.num_kv_heads,
            heads.head_dim,
            k_cache.data_ptr(),
            k_cache.stride()[0],
            v_cache.data_ptr(),
            v_cache.stride()[0],
            out.data_ptr(),
            _float_bits(heads.scale),
            heads.sliding_window,
            _DTYPES[dtype],
            out.stride()[0] * 4,
            tables.shape[0],
        )
        work = qkv.shape[0] * heads.num_heads * heads.head_dim * max(1, meta.max_seq_len) * 2
        self._run(jobs.ATTENTION, values, work)

    def new_sampling_state(self, max_slots: int, vocab_size: int) -> CpuSamplingState:
        return CpuSamplingState(max_slots, vocab_size)

    def sample(self, logits: Any, slots: Any, state: CpuSamplingState, mask: Any, out_ids: Any) -> None:
        rows, vocabulary = logits.shape
        if vocabulary != state.vocab_size:
            raise ValueError(f"logits of {vocabulary} tokens for a state of {state.vocab_size}")
        check_slots(state, slots)
        values = (
            logits.data_ptr(),
            logits.stride()[0] * 4,
            rows,
            vocabulary,
            slots.data_ptr(),
            out_ids.data_ptr(),
            0 if mask is None else mask.data_ptr(),
            *state.addresses,
        )
        self._run(jobs.SAMPLE, values, rows * vocabulary * 4 if rows > 1 else 0)

    def logprobs(
        self, logits: Any, chosen: Any, k: int, out_ids: Any, out_values: Any, out_ranks: Any
    ) -> None:
        rows, vocabulary = logits.shape
        values = (
            logits.data_ptr(),
            logits.stride()[0] * 4,
            rows,
            vocabulary,
            chosen.data_ptr(),
            min(k, vocabulary),
            out_ids.data_ptr(),
            out_values.data_ptr(),
            out_ranks.data_ptr(),
        )
        self._run(jobs.LOGPROBS, values, rows * vocabulary * 4 if rows > 1 else 0)


def cpu_kernels(num_threads: int) -> Kernels:
    """Kernels with a team of `num_threads` (0 = the cores that this process may run on)."""
    operations = CpuOperations(host.num_threads(num_threads))
    return Kernels(
        name="cpu",
        device="cpu",
        dtypes=tuple(_DTYPES),
        block_size=BLOCK,
        activation_dtype="float32",
        num_threads=operations.team.num_threads,
        prepare=lambda shapes: None,
        plan=lambda meta, heads: None,
        kv_block_bytes=operations.kv_block_bytes,
        pack_linear=operations.pack_linear,
        random_linear=operations.random_linear,
        linear=operations.linear,
        embedding=operations.embedding,
        rms_norm=operations.rms_norm,
        add_rms_norm=operations.add_rms_norm,
        rope_cache=operations.rope_cache,
        attention=operations.attention,
        gated=operations.gated,
        new_sampling_state=operations.new_sampling_state,
        sample=operations.sample,
        logprobs=operations.logprobs,
        close=operations.team.stop,
    )
