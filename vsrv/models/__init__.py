"""Architecture name → network. A new family is a row here, if the spine has all its parts.

References: Llama (arXiv 2302.13971, 2407.21783), Mistral (arXiv 2310.06825), Qwen2 (arXiv 2407.10671), Qwen3 (arXiv 2505.09388), each
compared with transformers' implementation in tests/models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsrv.errors import UnsupportedModelError
from vsrv.kernels import Kernels
from vsrv.kernels.facts import CacheFacts
from vsrv.models.decoder import Model
from vsrv.models.loading import load_decoder
from vsrv.models.spec import Family, ModelSpec, read_config
from vsrv.models.spec import read_spec as _read_family_spec

FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family(qkv_bias=None, output_bias=None),
    "MistralForCausalLM": Family(qkv_bias=False, output_bias=False, window_always=True),
    "Qwen2ForCausalLM": Family(qkv_bias=True, output_bias=False),
    "Qwen3ForCausalLM": Family(qkv_bias=None, output_bias=None, qk_norm=True),
}


def read_spec(folder: Path, overrides: Mapping[str, Any]) -> ModelSpec:
    """ModelSpec of a model folder, from config.json alone. Raises UnsupportedModelError naming what is supported."""
    config = read_config(folder, overrides)
    names = config.get("architectures")
    names = names if isinstance(names, list) else []
    for name in names:
        if name in FAMILIES:
            return _read_family_spec(config, name, FAMILIES[name])
    found = ", ".join(map(str, names)) or "none named in config.json"
    raise UnsupportedModelError(f"architecture {found} is not supported; supported: {', '.join(FAMILIES)}")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """dtype "auto" keeps the checkpoint's; load_format "dummy" makes seeded random weights."""

    dtype: str
    load_format: str
    seed: int
    max_model_len: int

    def resolved_dtype(self, spec: ModelSpec, kernels: CacheFacts) -> str:
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
