"""The spine of every decoder: embed → layers → norm → head. Knows sizes and parts, no family by name.

Shapes: T tokens, H hidden size, R rows of logits. Activations are buffers that grow to the largest batch seen, so that a step
allocates nothing; they are overwritten by the next forward. Owned by the engine thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vsrv.kernels import AttentionMetadata, HeadShape, Kernels, KernelShapes, PackedLinear
from vsrv.models.spec import ModelSpec, rope_frequencies


@dataclass(frozen=True, slots=True)
class Linear:
    """The seam for every matrix: which axis a tensor-parallel rank would own is known here and nowhere else."""

    packed: PackedLinear
    shard_axis: int | None  # 0 = output features, 1 = input features, None = whole on every rank


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer. Norm weights are float32 [H] or [head_dim]."""

    input_norm: torch.Tensor
    qkv: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    output: Linear
    post_norm: torch.Tensor
    gate_up: Linear
    down: Linear
    heads: HeadShape


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    embedding: Linear
    layers: tuple[Layer, ...]
    final_norm: torch.Tensor
    head: Linear  # the embedding itself when tied

    def nbytes(self) -> int:
        linears = {id(self.embedding.packed): self.embedding.packed, id(self.head.packed): self.head.packed}
        for layer in self.layers:
            for linear in (layer.qkv, layer.output, layer.gate_up, layer.down):
                linears[id(linear.packed)] = linear.packed
        return sum(packed.nbytes for packed in linears.values())


class Model:
    """A loaded decoder. `forward` writes K and V of the batch's tokens into the cache and returns hidden states."""

    def __init__(
        self, spec: ModelSpec, weights: DecoderWeights, kernels: Kernels, dtype: str, max_len: int
    ) -> None:
        self.spec = spec
        self.dtype = dtype
        self.weight_bytes = weights.nbytes()
        self._weights = weights
        self._kernels = kernels
        self._activations: torch.dtype = getattr(torch, kernels.activation_dtype or dtype)
        self._cos_sin = rope_table(spec, max_len).to(kernels.device)
        self._buffers: dict[str, torch.Tensor] = {}

    @property
    def heads(self) -> tuple[HeadShape, ...]:
        """Of every layer."""
        return tuple(layer.heads for layer in self._weights.layers)

    def kernel_shapes(self, max_num_seqs: int, max_num_tokens: int) -> KernelShapes:
        """What the kernels are asked for."""
        spec = self.spec
        return KernelShapes(
            self.dtype,
            spec.hidden_size,
            spec.intermediate_size,
            spec.activation,
            spec.qk_norm,
            tuple(dict.fromkeys(self.heads)),
            max_num_seqs,
            max_num_tokens,
        )

    def reserve(self, num_tokens: int, num_rows: int) -> None:
        """Make every buffer large enough for such a step: later ones neither allocate nor move them."""
        for name, width in self.spec.buffer_widths.items():
            self._buffer(name, num_tokens, width)
        self._logits(num_rows)

    def forward(
        self, input_ids: torch.Tensor, meta: AttentionMetadata, kv_cache: Sequence[tuple[Any, Any]]
    ) -> torch.Tensor:
        """input_ids i32 [T], kv_cache one (K, V) pair of uint8 [blocks, bytes] for each layer → hidden [T, H] after the
        final norm, valid until the next call."""
        spec, kernels = self.spec, self._kernels
        tokens = input_ids.shape[0]
        residual, normed, qkv, attended, gate_up, inner, delta = (
            self._buffer(name, tokens, width) for name, width in spec.buffer_widths.items()
        )
        eps = spec.rms_norm_eps
        kernels.embedding(input_ids, self._weights.embedding.packed, residual)
        kernels.rms_norm(residual, self._weights.layers[0].input_norm, eps, normed)
        for index, layer in enumerate(self._weights.layers):
            if index:
                kernels.add_rms_norm(delta, residual, layer.input_norm, eps, normed)
            kernels.linear(normed, layer.qkv.packed, qkv)
            norms = (layer.q_norm, layer.k_norm, eps)
            kernels.rope_cache(qkv, meta, self._cos_sin, norms, kv_cache[index], layer.heads, self.dtype)
            kernels.attention(qkv, kv_cache[index], meta, layer.heads, self.dtype, attended)
            kernels.linear(attended, layer.output.packed, delta)
            kernels.add_rms_norm(delta, residual, layer.post_norm, eps, normed)
            kernels.linear(normed, layer.gate_up.packed, gate_up)
            kernels.gated(gate_up, spec.activation, inner)
            kernels.linear(inner, layer.down.packed, delta)
        kernels.add_rms_norm(delta, residual, self._weights.final_norm, eps, normed)
        return normed

    def logits(self, hidden: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """hidden [T, H], rows int [R] (None: all T) → float32 [R, V], valid until the next call."""
        picked = hidden if rows is None else hidden.index_select(0, rows)
        out = self._logits(picked.shape[0])
        self._kernels.linear(picked, self._weights.head.packed, out)
        return out

    def _logits(self, rows: int) -> torch.Tensor:
        """float32 [rows, V] with rows on 16-byte boundaries, which vector loads need."""
        vocabulary = self.spec.vocab_size
        return self._buffer("logits", rows, (vocabulary + 3) // 4 * 4, torch.float32)[:, :vocabulary]

    def _buffer(self, name: str, rows: int, width: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape[0] < rows:
            buffer = torch.empty(
                max(rows, 16), width, dtype=dtype or self._activations, device=self._kernels.device
            )
            self._buffers[name] = buffer
        return buffer[:rows]


def rope_table(spec: ModelSpec, max_len: int) -> torch.Tensor:
    """float32 [max_len, 2, head_dim/2]: cosines, then sines, computed in float64 and rounded once."""
    frequencies = torch.tensor(rope_frequencies(spec.rope, spec.head_dim), dtype=torch.float64)
    angles = torch.arange(max_len, dtype=torch.float64)[:, None] * frequencies[None]
    return torch.stack((angles.cos(), angles.sin()), 1).float().contiguous()
