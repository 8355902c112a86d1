"""Checkpoint names → the spine's parts: q, k, v merged, gate and up merged, everything packed for the kernels as it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch

from vsrv.errors import ConfigError
from vsrv.kernels import HeadShape, Kernels
from vsrv.models.decoder import DecoderWeights, Layer, Linear
from vsrv.models.spec import ModelSpec
from vsrv.models.weights import Checkpoint

# Buffers that older exports saved beside the weights; derived data, not parameters.
_HARMLESS = re.compile(
    r"(rotary_emb\.inv_freq|\.masked_bias|attn\.bias|embeddings\.(position|token_type)_ids)$"
)
DECODER_BASE = (
    "model."  # what the names of a decoder's tensors begin with, unless it was saved without a head
)


class WeightReader:
    """Reads, merges and packs. One merged tensor in memory at a time, besides the packed result."""

    def __init__(self, checkpoint: Checkpoint, kernels: Kernels, dtype: str) -> None:
        self._checkpoint = checkpoint
        self._kernels = kernels
        self._dtype = dtype

    def linear(
        self, names: tuple[str, ...], sizes: tuple[int, ...], k: int, bias: bool, axis: int | None
    ) -> Linear:
        """Merge [size, k] tensors along their output and pack them; biases are float32."""
        parts = [
            self._cast(self._checkpoint.tensor(f"{n}.weight", (size, k)))
            for n, size in zip(names, sizes, strict=True)
        ]
        offsets = None
        if bias:
            biases = [
                self._checkpoint.tensor(f"{n}.bias", (size,)) for n, size in zip(names, sizes, strict=True)
            ]
            offsets = torch.cat([b.float() for b in biases]).contiguous()
        weight = parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)
        return Linear(self._kernels.pack_linear(weight, offsets, self._dtype), axis)

    def norm(self, name: str, size: int) -> torch.Tensor:
        return self.table(f"{name}.weight", (size,))

    def has(self, name: str) -> bool:
        return name in self._checkpoint

    def table(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor as it is, float32 on the device."""
        return self._checkpoint.tensor(name, shape).float().contiguous().to(self._kernels.device)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        target: torch.dtype = getattr(torch, self._dtype)
        cast = tensor.to(target)
        if target is torch.float16 and not torch.isfinite(cast).all():
            raise ConfigError("a weight does not fit into float16; use --dtype bfloat16")
        return cast


class DummyReader:
    """Seeded random weights made in the packed layout (0.6 billion in about a second): shapes and speed, not sense."""

    def __init__(self, kernels: Kernels, dtype: str, seed: int) -> None:
        self._kernels = kernels
        self._dtype = dtype
        self._seed = (seed + 1) << 32

    def linear(
        self, names: tuple[str, ...], sizes: tuple[int, ...], k: int, bias: bool, axis: int | None
    ) -> Linear:
        self._seed += 1 << 20
        return Linear(self._kernels.random_linear(sum(sizes), k, self._dtype, self._seed), axis)

    def norm(self, name: str, size: int) -> torch.Tensor:
        return torch.ones(size, device=self._kernels.device)

    def has(self, name: str) -> bool:
        return False

    def table(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Ones for weights of norms, zeros for biases, else seeded normal values of deviation 0.05."""
        if len(shape) == 1:
            return torch.full(shape, float(name.endswith(".weight")), device=self._kernels.device)
        self._seed += 1 << 20
        generator = torch.Generator().manual_seed(self._seed)
        return torch.empty(shape).normal_(0.0, 0.05, generator=generator).to(self._kernels.device)


def load_decoder(
    folder: Path,
    spec: ModelSpec,
    kernels: Kernels,
    dtype: str,
    dummy_seed: int | None,
    progress: Callable[[float], None],
) -> DecoderWeights:
    """All weights of a decoder. dummy_seed not None makes random ones. Raises ConfigError on missing or unexpected tensors."""
    checkpoint = None if dummy_seed is not None else Checkpoint(folder, DECODER_BASE)
    reader: WeightReader | DummyReader
    if checkpoint is None:
        reader = DummyReader(kernels, dtype, dummy_seed or 0)
    else:
        reader = WeightReader(checkpoint, kernels, dtype)
    weights = decoder_weights(reader, spec, progress)
    if checkpoint is not None:
        check_unread(checkpoint, spec.architecture, ignored_of(spec))
        checkpoint.close()
    progress(1.0)
    return weights


class Reader(Protocol):
    """Where weights come from: a checkpoint, random numbers, or only the headers of a checkpoint."""

    def linear(
        self, names: tuple[str, ...], sizes: tuple[int, ...], k: int, bias: bool, axis: int | None
    ) -> Linear: ...

    def norm(self, name: str, size: int) -> torch.Tensor: ...

    def has(self, name: str) -> bool: ...

    def table(self, name: str, shape: tuple[int, ...]) -> torch.Tensor: ...


def decoder_weights(reader: Reader, spec: ModelSpec, progress: Callable[[float], None]) -> DecoderWeights:
    """Ask `reader` for everything that a decoder has, by the names of its checkpoint."""
    embedding = reader.linear(("model.embed_tokens",), (spec.vocab_size,), spec.hidden_size, False, 0)
    layers = []
    for index in range(spec.num_layers):
        layers.append(_layer(reader, spec, index))
        progress((index + 1) / (spec.num_layers + 1))
    final_norm = reader.norm("model.norm", spec.hidden_size)
    head = embedding
    if not spec.tied:
        head = reader.linear(("lm_head",), (spec.vocab_size,), spec.hidden_size, False, 0)
    return DecoderWeights(embedding, tuple(layers), final_norm, head)


def _layer(reader: Reader, spec: ModelSpec, index: int) -> Layer:
    prefix = f"model.layers.{index}"
    attention = f"{prefix}.self_attn"
    hidden, q, kv = spec.hidden_size, spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    heads = HeadShape(
        spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.head_dim**-0.5, spec.sliding_windows[index]
    )
    names = (f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj")
    up = (f"{prefix}.mlp.gate_proj", f"{prefix}.mlp.up_proj")
    inner = spec.intermediate_size
    return Layer(
        input_norm=reader.norm(f"{prefix}.input_layernorm", hidden),
        qkv=reader.linear(names, (q, kv, kv), hidden, spec.qkv_bias, 0),
        q_norm=reader.norm(f"{attention}.q_norm", spec.head_dim) if spec.qk_norm else None,
        k_norm=reader.norm(f"{attention}.k_norm", spec.head_dim) if spec.qk_norm else None,
        output=reader.linear((f"{attention}.o_proj",), (hidden,), q, spec.output_bias, 1),
        post_norm=reader.norm(f"{prefix}.post_attention_layernorm", hidden),
        gate_up=reader.linear(up, (inner, inner), hidden, spec.mlp_bias, 0),
        down=reader.linear((f"{prefix}.mlp.down_proj",), (hidden,), inner, spec.mlp_bias, 1),
        heads=heads,
    )


def check_unread(checkpoint: Checkpoint, architecture: str, ignored: tuple[str, ...]) -> None:
    """A tensor that no part asked for means that this is another network than config.json says."""
    unknown = unexpected(checkpoint.unread(), ignored)
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise ConfigError(f"{checkpoint.folder}: unexpected tensors for {architecture}: {shown}")


def unexpected(names: Iterable[str], ignored: tuple[str, ...]) -> list[str]:
    """Those of `names`, which no part asked for, that are parameters; `ignored` is how names of other tasks begin."""
    return [name for name in names if not _HARMLESS.search(name) and not name.startswith(ignored)]


def ignored_of(spec: ModelSpec) -> tuple[str, ...]:
    """A tied decoder may have its head saved, which is the embedding."""
    return ("lm_head.weight",) if spec.tied else ()
