"""The GPU's `Kernels`, but for the matrix products, which its owner adds: which specialisation runs, on which grid, with which buffers.

Everything that a step needs is loaded and reserved by `prepare`; afterwards nothing here allocates or synchronises, so that a step may be
captured. Buffers of the decode plan, its partial results and counters are shared by all layers: launches follow each other on one stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from vsrv.errors import ConfigError
from vsrv.kernels.cuda import decode, elementwise, layout, prefill
from vsrv.kernels.cuda.adjusting import make_adjust
from vsrv.kernels.cuda.device import Device, Grid, Kernel, Loader, Tensor
from vsrv.kernels.cuda.logprobs import make_logprobs
from vsrv.kernels.cuda.sampler import Sampler, make_sampling
from vsrv.kernels.cuda.sampling import make_sample
from vsrv.kernels.cuda.sampling_state import CudaSamplingState
from vsrv.kernels.cuda.source import Arch, KernelSource, KernelSpec, NoInstructions, specialise
from vsrv.kernels.interface import AttentionMetadata, HeadShape, Kernels, KernelShapes

LOG2E = 1.4426950408889634
DTYPES = ("bfloat16", "float16")
MAX_NUM_SEQS = 1024
_GATE_THREADS = _ROPE_THREADS = 256
# Shared memory that one block may have, and that a multiprocessor has (CUDA programming guide, compute capabilities).
_SHARED_BYTES = {
    80: (163 << 10, 164 << 10),
    86: (99 << 10, 100 << 10),
    87: (163 << 10, 164 << 10),
    89: (99 << 10, 100 << 10),
}
_SHARED_BYTES_90 = (227 << 10, 228 << 10)
_RESERVED_BYTES = 1024  # of each block, by the system


def padded_dim(head_dim: int) -> int:
    return layout.halves(head_dim) * layout.ROW


def shared_limits(arch: Arch) -> tuple[int, int]:
    """Bytes of shared memory for one block, and of a multiprocessor; unknown ones count as the smallest of their generation."""
    if arch.major >= 12:  # consumer Blackwell has no more than Ada
        return _SHARED_BYTES[89]
    return _SHARED_BYTES.get(
        arch.major * 10 + arch.minor, _SHARED_BYTES_90 if arch.major >= 9 else _SHARED_BYTES[86]
    )


def decode_spec(arch: Arch, dtype: str, head_dim: int) -> KernelSpec:
    """Three tiles in flight for each of four warps, as far as shared memory goes; before sm_90 two blocks of two tiles beat one of three.

    Four blocks share a multiprocessor where 128 registers a thread are enough, which the addresses of per-lane copies do not leave.
    """
    padded, (limit, whole), bulk = padded_dim(head_dim), shared_limits(arch), arch.has_bulk_copies
    shapes = ((4, 3), (4, 2), (2, 2)) if bulk else ((4, 2), (2, 2))
    warps, stages = next(((w, s) for w, s in shapes if decode.shared_size(padded, s, w) <= limit), shapes[-1])
    fitting = whole // (decode.shared_size(padded, stages, warps) + _RESERVED_BYTES)
    return specialise(
        decode.make_decode_attention,
        dtype=dtype,
        padded=padded,
        bulk=bulk,
        stages=stages,
        warps=warps,
        resident=max(1, min(4 if bulk and padded == 64 else 2, fitting)),
    )


def prefill_spec(arch: Arch, dtype: str, head_dim: int) -> KernelSpec:
    """128 rows and 64 tokens a tile where registers (sums of 16 x padded for each warp) and shared memory allow."""
    padded, limit = padded_dim(head_dim), shared_limits(arch)[0]
    for warps, tile in ((8, 64), (8, 32), (4, 32)):
        if (padded <= 192 or tile == 32) and (16 * warps + 4 * tile) * padded * 2 <= limit:
            break
    return specialise(prefill.make_prefill_attention, dtype=dtype, padded=padded, warps=warps, tile=tile)


def norm_spec(dtype: str, width: int, add: bool) -> KernelSpec:
    """Blocks of 256 threads for the widths of real models; no more threads than a narrow row has 16-byte chunks."""
    threads, passes = min(256, max(32, -(-width // 256) * 32)), 1
    while passes * threads * 8 < width:
        passes *= 2
    return specialise(elementwise.make_rms_norm, dtype=dtype, add=add, passes=passes, threads=threads)


def gate_spec(dtype: str, activation: str) -> KernelSpec:
    return specialise(elementwise.make_gated, dtype=dtype, activation=activation, threads=_GATE_THREADS)


def rope_spec(dtype: str, head_dim: int, norms: bool) -> KernelSpec:
    return specialise(
        elementwise.make_rope_cache,
        dtype=dtype,
        padded=padded_dim(head_dim),
        norms=norms,
        threads=_ROPE_THREADS,
    )


def plan_spec() -> KernelSpec:
    return specialise(decode.make_decode_plan, threads=1024)


@dataclass(frozen=True, slots=True)
class SamplingVariant:
    """Block shape of the sampling kernels: the defaults are for large vocabularies; every shape gives the same bits."""

    threads: int = 1024
    digit_bits: int = 11
    capacity: int = 3840
    adjust_threads: int = 256
    chunk: int = 4096

    def specs(self) -> list[KernelSpec]:
        """adjust, sample, logprobs."""
        shape = {"threads": self.threads, "digit_bits": self.digit_bits, "capacity": self.capacity}
        return [
            specialise(make_adjust, threads=self.adjust_threads, chunk=self.chunk),
            specialise(make_sample, **shape),
            specialise(make_logprobs, **shape),
        ]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What `plan` made of a step: decode plans by window; the prefill part's own arrays, num_work 0 without prefills."""

    decodes: dict[int, Tensor]
    num_work: int
    work: Tensor
    tables: Tensor
    cu_seqlens: Tensor
    seq_lens: Tensor


class CudaOperations:
    """Bound methods of this object are fields of `Kernels`. For one model; owned by the engine thread."""

    _decode: Kernel
    _prefill: Kernel
    _planner: Kernel
    _rms: Kernel
    _add_rms: Kernel
    _gate: Kernel
    _rope: Kernel
    _sampler: Sampler

    def __init__(self, device: Device, loader: Loader, variant: SamplingVariant) -> None:
        self._device = device
        self._loader = loader
        self._variant = variant

    def prepare(self, shapes: KernelShapes) -> None:
        """Compile, load and reserve for a model. Raises ConfigError for shapes that the kernels do not have."""
        _check(shapes)
        heads, dtype, arch = shapes.heads[0], shapes.dtype, self._device.arch
        decode_kernel = decode_spec(arch, dtype, heads.head_dim)
        prefill_kernel = prefill_spec(arch, dtype, heads.head_dim)
        loaded = self._loader.load_all(
            [
                decode_kernel,
                prefill_kernel,
                plan_spec(),
                norm_spec(dtype, shapes.hidden_size, False),
                norm_spec(dtype, shapes.hidden_size, True),
                gate_spec(dtype, shapes.activation),
                rope_spec(dtype, heads.head_dim, shapes.qk_norm),
            ]
        )
        self._decode, self._prefill, self._planner, self._rms, self._add_rms, self._gate, self._rope = loaded
        source = decode_kernel.describe()
        self._decode_warps = source.threads // 32
        self._decode_blocks = min(decode.MAX_BLOCKS, self._device.num_multiprocessors * source.min_blocks)
        self._prefill_rows = prefill.rows_of(prefill_kernel.describe().threads // 32)
        variant = self._variant.specs()
        handles = self._loader.load_all(variant)
        self._sampling = {spec.describe().name: handle for spec, handle in zip(variant, handles, strict=True)}
        self._group = heads.num_heads // heads.num_kv_heads
        self._groups = decode.groups_of(heads.num_kv_heads, self._group)
        self._reserve(shapes, padded_dim(heads.head_dim))

    def _reserve(self, shapes: KernelShapes, padded: int) -> None:
        zeros, blocks = self._device.zeros, self._decode_blocks
        size = decode.plan_size(shapes.max_num_seqs)
        self._plans = {shape.sliding_window: zeros((size,), "int32") for shape in shapes.heads}
        self._partial = zeros((2 * blocks * 8 * padded,), "float32")
        self._lse = zeros((2 * blocks * 8,), "float32")
        self._arrived = zeros((shapes.max_num_seqs * self._groups,), "int32")
        most = shapes.max_num_tokens * self._group // self._prefill_rows + shapes.max_num_seqs + 1
        self._work = zeros((most, 2), "int32")

    def kv_block_bytes(self, num_kv_heads: int, head_dim: int, dtype: str) -> tuple[int, int]:
        size = layout.block_bytes(num_kv_heads, head_dim)
        return size, size

    def plan(self, meta: AttentionMetadata, heads: tuple[HeadShape, ...]) -> AttentionPlan:
        """Deal the decode tiles on the device and list the prefill blocks on the host; once a step, for all layers."""
        n = meta.num_decodes
        if n:
            for window, plan in self._plans.items():
                self._planner(
                    (1, 1, 1),
                    meta.seq_lens,
                    plan,
                    n,
                    self._decode_blocks,
                    self._groups,
                    window,
                    self._decode_warps,
                )
        work = self._prefill_work(meta.query_lens[n:])
        if len(work):
            self._device.upload(self._work[: len(work)], work)
        return AttentionPlan(
            self._plans,
            len(work),
            self._work,
            meta.block_tables[n:],
            meta.cu_seqlens_q[n:],
            meta.seq_lens[n:],
        )

    def _prefill_work(self, lengths: tuple[int, ...]) -> NDArray[np.int32]:
        """int32 [W, 2] (sequence, row block) of the sequences behind the decodes; late blocks, which see most, first."""
        rows = self._prefill_rows
        work = [
            (block, sequence)
            for sequence, tokens in enumerate(lengths)
            for block in range(-(-tokens * self._group // rows))
        ]
        work.sort(reverse=True)
        return np.array([(sequence, block) for block, sequence in work], np.int32).reshape(-1, 2)

    def attention(
        self,
        qkv: Tensor,
        cache: tuple[Tensor, Tensor],
        meta: AttentionMetadata,
        heads: HeadShape,
        dtype: str,
        out: Tensor,
    ) -> None:
        plan: AttentionPlan = meta.plan
        stride, scale, window = meta.block_tables.stride(0), heads.scale * LOG2E, heads.sliding_window
        if meta.num_decodes:
            self._decode(
                (self._decode_blocks, 1, 1), qkv, *cache, meta.block_tables, meta.seq_lens, plan.decodes[window],
                self._partial, self._lse, self._arrived, out,
                stride, heads.num_kv_heads, self._group, heads.head_dim, scale, window,
            )  # fmt: skip
        if plan.num_work:
            self._prefill(
                (plan.num_work, heads.num_kv_heads, 1), qkv, *cache, plan.tables, plan.cu_seqlens, plan.seq_lens,
                plan.work, out, stride, self._group, heads.head_dim, scale, window,
            )  # fmt: skip

    def rope_cache(
        self,
        qkv: Tensor,
        meta: AttentionMetadata,
        cos_sin: Tensor,
        norms: tuple[Tensor | None, Tensor | None, float],
        cache: tuple[Tensor, Tensor],
        heads: HeadShape,
        dtype: str,
    ) -> None:
        q_norm, k_norm, eps = norms
        tokens = qkv.shape[0]
        warps = tokens * (heads.num_heads + 2 * heads.num_kv_heads)
        unused = cos_sin  # the kernel without norms reads no weights
        self._rope(
            (-(-warps // (_ROPE_THREADS // 32)), 1, 1), qkv,
            unused if q_norm is None else q_norm, unused if k_norm is None else k_norm, cos_sin,
            meta.positions, meta.slot_mapping, *cache, eps, tokens, heads.num_heads, heads.num_kv_heads, heads.head_dim,
        )  # fmt: skip

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        rows, width = x.shape
        self._rms((rows, 1, 1), x, out, weight, out, width, 1.0 / width, eps)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        rows, width = x.shape
        self._add_rms((rows, 1, 1), x, residual, weight, out, width, 1.0 / width, eps)

    def gated(self, gate_up: Tensor, activation: str, out: Tensor) -> None:
        rows, width = out.shape
        self._gate((rows, -(-width // 8 // _GATE_THREADS), 1), gate_up, out, width)

    def new_sampling_state(self, max_slots: int, vocab_size: int) -> CudaSamplingState:
        """After `prepare`. The sampler's scratch is for one row of each slot."""
        v = self._variant
        kernels = make_sampling(
            NoInstructions(), v.threads, v.digit_bits, v.capacity, v.adjust_threads, v.chunk
        )
        self._sampler = Sampler(kernels, self._device, self._launch, vocab_size, max_slots)
        return CudaSamplingState(self._device, max_slots, vocab_size)

    def _launch(self, source: KernelSource, grid: Grid, arguments: tuple[Tensor | float, ...]) -> None:
        self._sampling[source.name](grid, *arguments)

    def sample(
        self, logits: Tensor, slots: Tensor, state: CudaSamplingState, mask: Tensor | None, out_ids: Tensor
    ) -> None:
        self._sampler.sample(logits, slots, state, mask, out_ids)

    def logprobs(
        self, logits: Tensor, chosen: Tensor, k: int, out_ids: Tensor, out_values: Tensor, out_ranks: Tensor
    ) -> None:
        self._sampler.logprobs(logits, chosen, k, out_ids, out_values, out_ranks)


def cuda_kernels(device: Device, loader: Loader, variant: SamplingVariant | None = None) -> Kernels:
    """Everything but `pack_linear`, `random_linear`, `linear` and `embedding`: these raise until the owner of the device has put its own in."""
    operations = CudaOperations(device, loader, variant or SamplingVariant())
    return Kernels(
        name="cuda",
        device="cuda",
        dtypes=DTYPES,
        block_size=layout.BLOCK,
        activation_dtype=None,
        num_threads=1,
        prepare=operations.prepare,
        plan=operations.plan,
        kv_block_bytes=operations.kv_block_bytes,
        pack_linear=_no_products,
        random_linear=_no_products,
        linear=_no_products,
        embedding=_no_products,
        rms_norm=operations.rms_norm,
        add_rms_norm=operations.add_rms_norm,
        rope_cache=operations.rope_cache,
        attention=operations.attention,
        gated=operations.gated,
        new_sampling_state=operations.new_sampling_state,
        sample=operations.sample,
        logprobs=operations.logprobs,
        close=lambda: None,
    )


def _no_products(*arguments: object) -> NoReturn:
    raise NotImplementedError("matrix products belong to the owner of the GPU (engine/gpu.py)")


def _check(shapes: KernelShapes) -> None:
    """Raises ConfigError, naming what the GPU's kernels need."""
    if shapes.dtype not in DTYPES:
        raise ConfigError(f"--dtype {shapes.dtype}: the GPU's kernels compute in {' or '.join(DTYPES)}")
    for name, value in (("hidden_size", shapes.hidden_size), ("intermediate_size", shapes.intermediate_size)):
        if value % 8:
            raise ConfigError(
                f"config.json: {name} {value} is no multiple of 8, which the GPU's kernels need; use --device cpu"
            )
    for heads in shapes.heads:
        if heads.head_dim % 8:
            raise ConfigError(
                f"head_dim {heads.head_dim} is no multiple of 8, which the GPU's kernels need; use --device cpu"
            )
    if shapes.max_num_seqs > MAX_NUM_SEQS:
        raise ConfigError(
            f"--max-num-seqs {shapes.max_num_seqs}: the GPU's kernels plan at most {MAX_NUM_SEQS} sequences"
        )
