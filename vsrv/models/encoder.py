"""The spine of every bidirectional encoder: embeddings → layers (attention, MLP, each normed after its residual) → hidden states.

Sequences are packed without padding: T tokens in all, S sequences sorted by length, so that attention runs once for each length that occurs
and everything else once for all tokens. Shapes: T tokens, H hidden size. Knows sizes and parts, no family by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from vsrv.kernels import Kernels, PackedLinear


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Sizes and parts of an encoder. `max_tokens` is how many tokens the position table serves, of which the first has `first_position`.

    `num_labels` 0 is no classification head; `activation` is "gelu", "gelu_tanh" or "relu".
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_positions: int
    first_position: int
    num_token_types: int
    layer_norm_eps: float
    activation: str
    dtype: str
    num_labels: int = 0

    @property
    def max_tokens(self) -> int:
        return self.num_positions - self.first_position

    @property
    def num_parameters(self) -> int:
        h, inner = self.hidden_size, self.intermediate_size
        layer = 4 * h * (h + 1) + inner * (2 * h + 1) + h + 4 * h
        tables = self.vocab_size + self.num_positions + self.num_token_types + 2
        head = h * (h + 1) + self.num_labels * (h + 1) if self.num_labels else 0
        return self.num_layers * layer + tables * h + head

    @property
    def values_per_token(self) -> int:
        """What a step holds for each token: hidden states twice, q k v, attention, both sides of the MLP's activation."""
        return 2 * self.hidden_size + 4 * self.hidden_size + 2 * self.intermediate_size


@dataclass(frozen=True, slots=True)
class Norm:
    """LayerNorm: weight and bias [H]."""

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    """Weights of one layer; `qkv` is the three projections merged."""

    qkv: PackedLinear
    output: PackedLinear
    attention_norm: Norm
    up: PackedLinear
    down: PackedLinear
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class EncoderWeights:
    """`positions` [P, H] and `token_types` [N, H] are added to the word's own row."""

    embedding: PackedLinear
    positions: torch.Tensor
    token_types: torch.Tensor
    embedding_norm: Norm
    layers: tuple[EncoderLayer, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """T tokens of S sequences, one after the other, lengths ascending. ids i32 [T], positions i64 [T], token_types i64 [T] on the device."""

    ids: torch.Tensor
    positions: torch.Tensor
    token_types: torch.Tensor
    lengths: tuple[int, ...]

    @property
    def groups(self) -> Iterator[tuple[int, int, int]]:
        """(first row, number of sequences, their length) for each length that occurs."""
        row = 0
        for length, members in itertools.groupby(self.lengths):
            count = len(list(members))
            yield row, count, length
            row += count * length


def pack(
    sequences: Sequence[tuple[Sequence[int], int]], first_position: int, device: str | torch.device
) -> Packed:
    """(token ids, index from which on the token type is 1) of each sequence, lengths ascending → arrays on the device."""
    lengths = [len(ids) for ids, _ in sequences]
    ids = torch.tensor([token for ids, _ in sequences for token in ids], dtype=torch.int32)
    counts = torch.tensor(lengths)
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    inside = torch.arange(len(ids)) - starts
    second = torch.repeat_interleave(torch.tensor([from_ for _, from_ in sequences]), counts)
    types = (inside >= second).long()
    return Packed(ids.to(device), (inside + first_position).to(device), types.to(device), tuple(lengths))


class Encoder:
    """A loaded encoder. Owned by the engine thread."""

    def __init__(self, spec: EncoderSpec, weights: EncoderWeights, kernels: Kernels, dtype: str) -> None:
        self.spec = spec
        self.dtype = dtype
        self.device = kernels.device
        self._weights = weights
        self._kernels = kernels
        self._type: torch.dtype = getattr(torch, kernels.activation_dtype or dtype)
        self._head_dim = spec.hidden_size // spec.num_heads

    def forward(self, batch: Packed) -> Generator[None, None, torch.Tensor]:
        """Hidden states [T, H] after the last layer; yields after every layer, so that the caller can look at its socket."""
        weights, spec = self._weights, self.spec
        hidden = self._new(batch, spec.hidden_size)
        self._kernels.embedding(batch.ids, weights.embedding, hidden)
        hidden += weights.positions.index_select(0, batch.positions)
        hidden += weights.token_types.index_select(0, batch.token_types)
        hidden = self._normed(hidden, weights.embedding_norm)
        for layer in weights.layers:
            hidden = self._layer(hidden, layer, batch)
            yield
        return hidden

    def _layer(self, hidden: torch.Tensor, layer: EncoderLayer, batch: Packed) -> torch.Tensor:
        attended = self._attention(self._linear(hidden, layer.qkv), batch)
        delta = self._linear(attended, layer.output)
        hidden = self._normed(delta.add_(hidden), layer.attention_norm)
        inner = self._activated(self._linear(hidden, layer.up))
        delta = self._linear(inner, layer.down)
        return self._normed(delta.add_(hidden), layer.output_norm)

    def _attention(self, qkv: torch.Tensor, batch: Packed) -> torch.Tensor:
        """qkv [T, 3H] → [T, H]: every token sees all tokens of its own sequence. Sequences of one length are one call."""
        heads, size = self.spec.num_heads, self._head_dim
        out = self._new(batch, self.spec.hidden_size)
        for row, count, length in batch.groups:
            rows = slice(row, row + count * length)
            q, k, v = qkv[rows].view(count, length, 3, heads, size).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(q, k, v)
            out[rows].view(count, length, heads, size).copy_(attended.transpose(1, 2))
        return out

    def _activated(self, x: torch.Tensor) -> torch.Tensor:
        if self.spec.activation == "relu":
            return functional.relu_(x)
        return functional.gelu(x, approximate="tanh" if self.spec.activation == "gelu_tanh" else "none")

    def _normed(self, x: torch.Tensor, norm: Norm) -> torch.Tensor:
        return functional.layer_norm(
            x, (self.spec.hidden_size,), norm.weight, norm.bias, self.spec.layer_norm_eps
        )

    def _linear(self, x: torch.Tensor, packed: PackedLinear) -> torch.Tensor:
        out = torch.empty(x.shape[0], packed.out_features, dtype=self._type, device=self.device)
        self._kernels.linear(x, packed, out)
        return out

    def _new(self, batch: Packed, width: int) -> torch.Tensor:
        return torch.empty(len(batch.ids), width, dtype=self._type, device=self.device)
