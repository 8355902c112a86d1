"""ModelSpec: what config.json says about a decoder, checked number by number, without touching any weight."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsrv.errors import ConfigError, UnsupportedModelError

DTYPES = ("float32", "float16", "bfloat16")
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
_ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """Rotary embedding: kind "default", "linear" (positions / factor) or "llama3" (frequencies smoothed by wavelength)."""

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Sizes and parts of a decoder. `sliding_windows` has one entry for each layer, 0 = full attention."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    activation: str
    rope: RopeSpec
    tied: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sliding_windows: tuple[int, ...]
    dtype: str
    eos_token_ids: tuple[int, ...]

    @property
    def qkv_size(self) -> int:
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    @property
    def buffer_widths(self) -> dict[str, int]:
        """Values that a step holds for each token, by buffer, in the order in which the decoder's `forward` takes them."""
        return {
            "residual": self.hidden_size,
            "normed": self.hidden_size,
            "qkv": self.qkv_size,
            "attended": self.num_heads * self.head_dim,
            "gate_up": 2 * self.intermediate_size,
            "inner": self.intermediate_size,
            "delta": self.hidden_size,
        }

    @property
    def num_parameters(self) -> int:
        layer = self.hidden_size * (
            self.qkv_size + self.num_heads * self.head_dim + 3 * self.intermediate_size
        )
        return self.num_layers * layer + self.vocab_size * self.hidden_size * (1 if self.tied else 2)


def read_config(folder: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model folder with `--hf-overrides` laid over it. Raises ConfigError."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} has no config.json: MODEL must be a Hugging Face model folder or a hub id"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return config | dict(overrides)


class Fields:
    """Typed, bounded reads from config.json; every refusal names the field."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        value = self._config.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"config.json: {name} must be an integer from {low} to {high}, not {value!r}")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self._config.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"config.json: {name} must be a number from {low} to {high}, not {value!r}")
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        value = self._config.get(name)
        if value is not None and not isinstance(value, bool):
            raise ConfigError(f"config.json: {name} must be true or false, not {value!r}")
        return default if value is None else value

    def get(self, name: str) -> Any:
        return self._config.get(name)


@dataclass(frozen=True, slots=True)
class Family:
    """What config.json leaves to the architecture's own code."""

    qkv_bias: bool | None  # None: read attention_bias
    output_bias: bool | None
    qk_norm: bool = False
    window_always: bool = False  # sliding_window counts without use_sliding_window


def read_spec(config: Mapping[str, Any], architecture: str, family: Family) -> ModelSpec:
    """config.json of a known family → ModelSpec. Raises ConfigError or UnsupportedModelError naming the field."""
    fields = Fields(config)
    if config.get("quantization_config") or config.get("compression_config"):
        method = (config.get("quantization_config") or {}).get("quant_method", "unknown")
        raise UnsupportedModelError(
            f"quantised checkpoints ({method}) are not supported; use the float32, float16 or bfloat16 weights of this model"
        )
    heads = fields.integer("num_attention_heads", 1, 1024)
    kv_heads = fields.integer("num_key_value_heads", 1, heads, heads)
    hidden = fields.integer("hidden_size", 1, 65536)
    head_dim = fields.integer("head_dim", 32, 256, hidden // heads)
    if heads % kv_heads:
        raise ConfigError(
            f"config.json: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}"
        )
    if head_dim % 2:
        raise UnsupportedModelError(f"head_dim {head_dim} is odd; rotary embedding needs pairs")
    activation = fields.get("hidden_act") or "silu"
    if activation not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"activation {activation!r} is not supported; supported: {', '.join(_ACTIVATIONS)}"
        )
    layers = fields.integer("num_hidden_layers", 1, 1024)
    attention_bias = fields.boolean("attention_bias", False)
    return ModelSpec(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size", 1, 1 << 24),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size", 1, 1 << 20),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=fields.integer("max_position_embeddings", 1, 1 << 27, 2048),
        rms_norm_eps=fields.number("rms_norm_eps", 0.0, 1.0, 1e-6),
        activation=_ACTIVATIONS[activation],
        rope=_rope(config),
        tied=fields.boolean("tie_word_embeddings", False),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        output_bias=attention_bias if family.output_bias is None else family.output_bias,
        mlp_bias=fields.boolean("mlp_bias", False),
        qk_norm=family.qk_norm,
        sliding_windows=_windows(fields, layers, family),
        dtype=checkpoint_dtype(config),
        eos_token_ids=_eos(config.get("eos_token_id")),
    )


def checkpoint_dtype(config: Mapping[str, Any]) -> str:
    """The type that config.json names. Raises UnsupportedModelError."""
    value = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    if value not in DTYPES:
        raise UnsupportedModelError(
            f"checkpoint dtype {value!r} is not supported; supported: {', '.join(DTYPES)}"
        )
    return value


def _eos(value: Any) -> tuple[int, ...]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(item for item in items if isinstance(item, int) and not isinstance(item, bool) and item >= 0)


def _rope(config: Mapping[str, Any]) -> RopeSpec:
    """Both spellings: rope_theta + rope_scaling, and rope_parameters of transformers 5."""
    table = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(table, dict):
        raise ConfigError("config.json: rope_scaling must be an object")
    fields = Fields({"rope_theta": config.get("rope_theta"), **table})
    kind = table.get("rope_type") or table.get("type") or "default"
    if kind not in _ROPE_TYPES:
        raise UnsupportedModelError(
            f"rope type {kind!r} is not supported; supported: {', '.join(_ROPE_TYPES)}"
        )
    if Fields(config).number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0:
        raise UnsupportedModelError(
            "partial rotary embedding (partial_rotary_factor below 1) is not supported"
        )
    rope = RopeSpec(
        theta=fields.number("rope_theta", 1.0, 1e12, 10000.0),
        kind=kind,
        factor=fields.number("factor", 1.0, 1e6, 1.0),
        low_freq_factor=fields.number("low_freq_factor", 0.0, 1e6, 1.0),
        high_freq_factor=fields.number("high_freq_factor", 0.0, 1e6, 4.0),
        original_max_position=fields.integer("original_max_position_embeddings", 1, 1 << 27, 8192),
    )
    if kind == "llama3" and not rope.high_freq_factor > rope.low_freq_factor:
        raise ConfigError("config.json: rope high_freq_factor must be above low_freq_factor")
    return rope


def _windows(fields: Fields, layers: int, family: Family) -> tuple[int, ...]:
    window = fields.get("sliding_window")
    if window is None or not (family.window_always or fields.boolean("use_sliding_window", False)):
        return (0,) * layers
    size = fields.integer("sliding_window", 1, 1 << 27)
    kinds = fields.get("layer_types")
    if kinds is not None:
        if (
            not isinstance(kinds, list)
            or len(kinds) != layers
            or set(kinds) - {"full_attention", "sliding_attention"}
        ):
            raise UnsupportedModelError(
                "layer_types must name full_attention or sliding_attention for every layer"
            )
        return tuple(size if kind == "sliding_attention" else 0 for kind in kinds)
    first = 0 if family.window_always else fields.integer("max_window_layers", 0, 1 << 20, layers)
    return tuple(size if layer >= first else 0 for layer in range(layers))


def rope_frequencies(rope: RopeSpec, head_dim: int) -> list[float]:
    """Angular frequency of each of the head_dim/2 pairs. "llama3" as in Llama 3.1's model card: long wavelengths are divided
    by `factor`, short ones kept, those between interpolated."""
    frequencies = [rope.theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if rope.kind == "linear":
        return [frequency / rope.factor for frequency in frequencies]
    if rope.kind == "default":
        return frequencies
    smoothed = []
    for frequency in frequencies:
        turns = rope.original_max_position * frequency / (2 * math.pi)
        share = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        share = min(1.0, max(0.0, share))
        smoothed.append((1 - share) * frequency / rope.factor + share * frequency)
    return smoothed
