"""The operations that models and the engine are made of: one `Kernels` for each kind of device, and the values it takes.

Tensors arrive duck-typed (`data_ptr()`, `shape`, `stride()`, `dtype`), so that nothing here imports torch. On the CPU activations are
float32, weights and KV are float32, float16 or bfloat16, and every output element is summed in a fixed order: results do not
depend on what else is in the batch. `reference.py` is the specification in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vsrv.messages import SamplingParams

Tensor = Any  # a torch tensor, seen through the four members named above


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """Where the T tokens of a batch stand in their S sequences. All int32 on the device.

    positions [T] · slot_mapping [T] = block * block_size + offset · block_tables [S, B] padded with 0 · cu_seqlens_q [S+1]
    offsets of each sequence's tokens · seq_lens [S] context length including this step's tokens.
    """

    positions: Tensor
    slot_mapping: Tensor
    block_tables: Tensor
    cu_seqlens_q: Tensor
    seq_lens: Tensor
    max_seq_len: int
    num_decodes: int = 0  # so many sequences in front have one query token each
    query_lens: tuple[int, ...] = ()  # host values, for kernels that plan their work there
    plan: Any = None  # what `Kernels.plan` made of this step; belongs to the kernels


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Attention heads of one layer. `scale` multiplies the scores; sliding_window 0 sees everything."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    sliding_window: int = 0


@dataclass(frozen=True, slots=True)
class KernelShapes:
    """What a model will ask for, so that everything can be compiled and reserved before the first step."""

    dtype: str
    hidden_size: int
    intermediate_size: int
    activation: str
    qk_norm: bool
    heads: tuple[HeadShape, ...]  # each kind of layer once
    max_num_seqs: int
    max_num_tokens: int


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A weight [out_features, in_features] in the kernels' own layout; `storage` keeps the memory alive."""

    storage: Any
    address: int
    bias: Any
    bias_address: int
    in_features: int
    out_features: int
    dtype: str
    nbytes: int


class SamplingState(Protocol):
    """Per-slot sampling parameters and counts; owned by the engine thread."""

    last_token: Any  # int32 [max_slots] on the device (a tensor, or an array that shares memory): the id sampled last in each slot

    def assign(
        self,
        slot: int,
        params: SamplingParams,
        seed: int,
        prompt_ids: Sequence[int],
        output_ids: Sequence[int],
    ) -> None:
        """Make `slot` belong to a sequence; also after a preemption, with what it has produced so far."""

    def release(self, slot: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Kernels:
    """The operations of one device. Shapes: T tokens, H hidden, N/K out/in features, R rows, V vocabulary.

    `device` is where tensors live, in torch's words; `dtypes` are the weight types it computes with, the preferred one first.
    prepare(KernelShapes) compiles and reserves · plan(meta, heads of all layers) → `AttentionMetadata.plan`, once a step ·
    linear(x [T,K], packed, out [T,N]) · embedding(ids i32 [T], packed, out [T,H]) reads rows of a packed weight ·
    rms_norm(x, weight, eps, out) · add_rms_norm(x, residual, weight, eps, out): residual += x, out = norm(residual) ·
    rope_cache(qkv [T,(Hq+2Hkv)*D], meta, cos_sin [P,2,D/2], q_norm, k_norm, eps, k_cache, v_cache, heads): norms and rotates q
    and k in place, writes k and v to their slots · attention(qkv, k_cache, v_cache, meta, heads, out [T,Hq*D]) ·
    gated(gate_up [T,2I], activation "silu" | "gelu" | "gelu_tanh", out [T,I]) ·
    sample(logits [R,V], slots i32 [R], state, mask u32 [R,ceil(V/32)] | None, out_ids i32 [R]) ·
    logprobs(logits, chosen i32 [R], k, out_ids i32 [R,k+1], out_values f32 [R,k+1], out_ranks i32 [R]): raw log_softmax, column 0
    the chosen token, then the k best.
    """

    name: str
    device: str
    dtypes: tuple[str, ...]
    block_size: int
    activation_dtype: str | None  # None: as the weights
    num_threads: int
    prepare: Callable[[KernelShapes], None]
    plan: Callable[[AttentionMetadata, tuple[HeadShape, ...]], Any]
    kv_block_bytes: Callable[[int, int, str], tuple[int, int]]
    pack_linear: Callable[..., PackedLinear]
    random_linear: Callable[..., PackedLinear]
    linear: Callable[..., None]
    embedding: Callable[..., None]
    rms_norm: Callable[..., None]
    add_rms_norm: Callable[..., None]
    rope_cache: Callable[..., None]
    attention: Callable[..., None]
    gated: Callable[..., None]
    new_sampling_state: Callable[[int, int], SamplingState]
    sample: Callable[..., None]
    logprobs: Callable[..., None]
    close: Callable[[], None]
