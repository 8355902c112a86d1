"""Architecture name → network. A new family is a row here, if the spine has all its parts.

References: Llama (arXiv 2302.13971, 2407.21783), Mistral (arXiv 2310.06825), Qwen2 (arXiv 2407.10671), Qwen3 (arXiv 2505.09388), each
compared with transformers' implementation in tests/models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vsrv.errors import ConfigError, UnsupportedModelError
from vsrv.kernels import Kernels
from vsrv.kernels.facts import CacheFacts
from vsrv.models.bert import ENCODERS, read_encoder_spec
from vsrv.models.decoder import Model
from vsrv.models.encoder import EncoderSpec
from vsrv.models.loading import load_decoder
from vsrv.models.pooling import (
    PoolingSpec,
    is_sentence_transformer,
    max_seq_length,
    read_pooling,
    read_score_activation,
)
from vsrv.models.spec import Family, ModelSpec, read_config
from vsrv.models.spec import read_spec as _read_family_spec

FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family(qkv_bias=None, output_bias=None),
    "MistralForCausalLM": Family(qkv_bias=False, output_bias=False, window_always=True),
    "Qwen2ForCausalLM": Family(qkv_bias=True, output_bias=False),
    "Qwen3ForCausalLM": Family(qkv_bias=None, output_bias=None, qk_norm=True),
}


# Decoders that were saved without a head: they make vectors and nothing else.
_HEADLESS = {name.replace("ForCausalLM", "Model"): name for name in FAMILIES}


def read_spec(folder: Path, overrides: Mapping[str, Any]) -> ModelSpec:
    """ModelSpec of a model folder, from config.json alone. Raises UnsupportedModelError naming what is supported."""
    config = read_config(folder, overrides)
    name = _architecture(config, FAMILIES)
    return _read_family_spec(config, name, FAMILIES[name])


def _architecture(config: Mapping[str, Any], known: Iterable[str]) -> str:
    """The first of config.json's architectures that is `known`. Raises UnsupportedModelError."""
    listed = config.get("architectures")
    names: list[str] = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    for name in names:
        if name in known:
            return name
    found = ", ".join(names) or "none named in config.json"
    raise UnsupportedModelError(f"architecture {found} is not supported; supported: {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class PoolingModelSpec:
    """A network and what makes vectors, or a score ("Identity", "Sigmoid"), of its hidden states."""

    network: EncoderSpec | ModelSpec
    pooling: PoolingSpec | None
    score_activation: str | None
    max_tokens: int  # that the model was made for

    @property
    def task(self) -> str:
        return "embed" if self.pooling is not None else "score"


def read_any(
    folder: Path, overrides: Mapping[str, Any], runner: str, pooler_config: Mapping[str, Any]
) -> ModelSpec | PoolingModelSpec:
    """What a model folder holds and is to do: `runner` "generate" or "pooling", or "auto" for what it was made for.

    `pooler_config` is --pooler-config. Raises ConfigError or UnsupportedModelError.
    """
    config = read_config(folder, overrides)
    name = _architecture(config, (*FAMILIES, *_HEADLESS, *ENCODERS))
    if name in FAMILIES:
        if runner == "generate" or (runner == "auto" and not is_sentence_transformer(folder)):
            return _read_family_spec(config, name, FAMILIES[name])
    elif runner == "generate":
        raise ConfigError(f"--runner generate: {name} makes no text; use auto or pooling", "--runner auto")
    if name in ENCODERS:
        return _read_encoder_pooling(folder, config, name, pooler_config)
    return _read_decoder_pooling(folder, config, name, pooler_config)


def _read_encoder_pooling(
    folder: Path, config: Mapping[str, Any], name: str, pooler_config: Mapping[str, Any]
) -> PoolingModelSpec:
    spec = read_encoder_spec(config, name)
    longest = min(spec.max_tokens, max_seq_length(folder) or spec.max_tokens)
    if ENCODERS[name].head:
        return PoolingModelSpec(spec, None, read_score_activation(config, spec.num_labels), longest)
    pooling = read_pooling(folder, config, spec.hidden_size, "cls", pooler_config)
    return PoolingModelSpec(spec, pooling, None, longest)


def _read_decoder_pooling(
    folder: Path, config: Mapping[str, Any], name: str, pooler_config: Mapping[str, Any]
) -> PoolingModelSpec:
    if config.get("is_causal") is False:
        raise UnsupportedModelError("is_causal false: decoders that look ahead are not supported")
    # the head is not read: nothing samples
    spec = replace(_read_family_spec(config, name, FAMILIES[_HEADLESS.get(name, name)]), tied=True)
    pooling = read_pooling(folder, config, spec.hidden_size, "last", pooler_config)
    if pooling.method != "last":
        raise UnsupportedModelError(f"pooling {pooling.method!r} of a decoder is not supported; only last")
    longest = min(spec.max_position_embeddings, pooling.max_tokens or spec.max_position_embeddings)
    return PoolingModelSpec(replace(spec, max_position_embeddings=longest), pooling, None, longest)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """dtype "auto" keeps the checkpoint's; load_format "dummy" makes seeded random weights."""

    dtype: str
    load_format: str
    seed: int
    max_model_len: int

    def resolved_dtype(self, spec: ModelSpec | EncoderSpec, kernels: CacheFacts) -> str:
        """The type to compute with. Raises UnsupportedModelError naming what the device has."""
        if self.dtype == "auto":
            return spec.dtype if spec.dtype in kernels.dtypes else kernels.dtypes[0]
        if self.dtype not in kernels.dtypes:
            raise UnsupportedModelError(
                f"dtype {self.dtype!r} is not supported on {kernels.name}; supported: auto, {', '.join(kernels.dtypes)}",
                f"--dtype {kernels.dtypes[0]}",
            )
        return self.dtype


def load_model(
    folder: Path, spec: ModelSpec, kernels: Kernels, options: LoadOptions, progress: Callable[[float], None]
) -> Model:
    """Read, pack and assemble a model. progress gets a fraction from 0 to 1. Raises ConfigError."""
    dtype = options.resolved_dtype(spec, kernels)
    dummy_seed = options.seed if options.load_format == "dummy" else None
    weights = load_decoder(folder, spec, kernels, dtype, dummy_seed, progress)
    return Model(spec, weights, kernels, dtype, options.max_model_len)
