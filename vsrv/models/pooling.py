"""Hidden states → one vector for each sequence: what a sentence-transformers folder says (modules.json), or the operator (--pooler-config).

Reference: sentence-transformers (Reimers and Gurevych, arXiv 1908.10084), whose Pooling, Dense and Normalize modules these are, and vLLM's defaults for
folders without modules.json: the first token of an encoder, the last of a decoder, normalised.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from vsrv.errors import ConfigError, UnsupportedModelError
from vsrv.models.spec import Fields
from vsrv.models.weights import Checkpoint

METHODS = ("cls", "mean", "last", "max", "mean_sqrt_len")
_MODES = {  # of a Pooling module's config.json
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
_RENAMED = {"lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}
_ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": torch.relu,
    "GELU": functional.gelu,
    "Sigmoid": torch.sigmoid,
}
_POOLER_FIELDS = {"pooling_type", "seq_pooling_type", "normalize", "use_activation", "task"}


@dataclass(frozen=True, slots=True)
class DenseSpec:
    """A Dense module: `folder` inside the model's, [out, in]."""

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class PoolingSpec:
    """How vectors are made. `max_tokens` None: no bound but the network's own. `matryoshka` () with `is_matryoshka`: any shorter length."""

    method: str
    normalize: bool
    embedding_size: int
    dense: tuple[DenseSpec, ...] = ()
    max_tokens: int | None = None
    is_matryoshka: bool = False
    matryoshka: tuple[int, ...] = ()


def is_sentence_transformer(folder: Path) -> bool:
    return (folder / "modules.json").is_file()


def read_pooling(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    default_method: str,
    overrides: Mapping[str, Any],
) -> PoolingSpec:
    """PoolingSpec of a model folder; `overrides` is --pooler-config. Raises ConfigError or UnsupportedModelError."""
    spec = PoolingSpec(default_method, True, hidden_size, max_tokens=max_seq_length(folder))
    if is_sentence_transformer(folder):
        spec = _of_modules(folder, spec)
    sizes = config.get("matryoshka_dimensions") or ()
    if not all(isinstance(size, int) and 0 < size <= spec.embedding_size for size in sizes):
        raise ConfigError(f"config.json: matryoshka_dimensions must be from 1 to {spec.embedding_size}")
    flag = bool(sizes) or Fields(config).boolean("is_matryoshka", False)
    return _overridden(replace(spec, is_matryoshka=flag, matryoshka=tuple(sizes)), overrides)


def _overridden(spec: PoolingSpec, overrides: Mapping[str, Any]) -> PoolingSpec:
    if unknown := set(overrides) - _POOLER_FIELDS:
        raise ConfigError(
            f"--pooler-config: {sorted(unknown)[0]} is not supported; supported: {', '.join(sorted(_POOLER_FIELDS))}"
        )
    method = overrides.get("seq_pooling_type") or overrides.get("pooling_type")
    if method is not None:
        method = str(method).lower()
        if method not in METHODS:
            raise ConfigError(
                f"--pooler-config: pooling_type must be one of {', '.join(METHODS)}, not {method}"
            )
        spec = replace(spec, method=method)
    for name in ("normalize", "use_activation"):
        if overrides.get(name) is not None:
            spec = replace(spec, normalize=Fields(overrides).boolean(name, True))
    if overrides.get("task") not in (None, "embed", "classify"):
        raise ConfigError(f"--pooler-config: task {overrides['task']!r} is not supported")
    return spec


def _of_modules(folder: Path, spec: PoolingSpec) -> PoolingSpec:
    """The chain that modules.json names: Transformer, Pooling, any Dense, Normalize."""
    modules = _json(folder / "modules.json")
    if not isinstance(modules, list) or not modules:
        raise ConfigError(f"{folder / 'modules.json'} is not a list of modules")
    spec = replace(spec, normalize=False)
    for place, module in enumerate(modules):
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        path = str(module.get("path", "")) if kind else ""
        if "/" in path or path.startswith("."):
            raise ConfigError(f"{folder / 'modules.json'} names {path!r} outside of the model folder")
        if (kind == "Transformer") is not (place == 0) or (kind == "Transformer" and path):
            raise UnsupportedModelError(
                "modules.json: the first module must be a Transformer in the folder itself"
            )
        if kind == "Pooling":
            spec = replace(spec, method=_method(folder / path / "config.json"))
        elif kind == "Dense":
            dense = _dense(folder / path / "config.json", path, spec.embedding_size)
            spec = replace(spec, dense=(*spec.dense, dense), embedding_size=dense.out_features)
        elif kind == "Normalize":
            spec = replace(spec, normalize=True)
        elif kind not in ("Transformer", "Dropout"):
            raise UnsupportedModelError(
                f"modules.json: {kind or module!r} is not supported; supported: Transformer, Pooling, Dense, Normalize"
            )
    return spec


def _method(path: Path) -> str:
    """Old files have a switch for each mode, new ones `pooling_mode`."""
    table = _object(path)
    named = table.get("pooling_mode")
    chosen = [str(named)] if named is not None else [m for name, m in _MODES.items() if table.get(name)]
    chosen = [_RENAMED.get(method, method) for method in chosen]
    unknown = [name for name, on in table.items() if name.startswith("pooling_mode_") and on is True]
    unknown = [name for name in unknown if name not in _MODES]
    if len(chosen) != 1 or chosen[0] not in METHODS or unknown:
        raise UnsupportedModelError(
            f"{path}: exactly one pooling mode of {', '.join(METHODS)} is supported, not {chosen + unknown}"
        )
    return chosen[0]


def _dense(path: Path, folder: str, width: int) -> DenseSpec:
    fields = Fields(_object(path))
    activation = str(fields.get("activation_function") or "Tanh").rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"{path}: activation {activation!r} is not supported; supported: {', '.join(_ACTIVATIONS)}"
        )
    return DenseSpec(
        folder,
        fields.integer("in_features", width, width),
        fields.integer("out_features", 1, 65536),
        fields.boolean("bias", True),
        activation,
    )


def max_seq_length(folder: Path) -> int | None:
    """The length that the model was made for: sentence_bert_config.json and its like, else what the tokenizer's configuration says."""
    sources = [(path, "max_seq_length") for path in sorted(folder.glob("sentence_*_config.json"))]
    if (folder / "tokenizer_config.json").is_file():
        sources.append((folder / "tokenizer_config.json", "model_max_length"))
    for path, name in sources:
        length = _object(path).get(name)
        if isinstance(length, int) and 0 < length <= 1 << 27:  # transformers writes 10^30 for "none"
            return length
    return None


def read_score_activation(config: Mapping[str, Any], num_labels: int) -> str:
    """What turns a cross-encoder's logit into its score: what the model names, else as sentence-transformers a sigmoid. Raises UnsupportedModelError."""
    if num_labels != 1:
        raise UnsupportedModelError(
            f"a classifier of {num_labels} labels has no score: only cross-encoders with one label are supported"
        )
    own = config.get("sentence_transformers")
    name = own.get("activation_fn") if isinstance(own, dict) else None
    name = str(name or config.get("sbert_ce_default_activation_function") or "Sigmoid").rpartition(".")[2]
    if name not in ("Identity", "Sigmoid"):
        raise UnsupportedModelError(
            f"config.json: activation {name!r} of a cross-encoder is not supported; supported: Identity, Sigmoid"
        )
    return name


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    table = _json(path)
    if not isinstance(table, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return table


@dataclass(frozen=True, slots=True)
class _Dense:
    weight: torch.Tensor
    bias: torch.Tensor | None
    activation: str

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return _ACTIVATIONS[self.activation](functional.linear(x, self.weight, self.bias))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one sequence asks for: `dimensions` 0 is all of them; `raw` leaves the vector as the network gives it."""

    dimensions: int = 0
    raw: bool = False


class Pooler:
    """Hidden states of packed sequences → vectors, float32. Owned by the engine thread."""

    def __init__(self, folder: Path, spec: PoolingSpec, device: str) -> None:
        self.spec = spec
        self._dense = tuple(_load_dense(folder / dense.folder, dense, device) for dense in spec.dense)

    def pool(self, hidden: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """hidden [T, H] of sequences of `lengths`, one after the other → [S, H]."""
        counts = torch.tensor(lengths, device=hidden.device)
        ends = counts.cumsum(0)
        method = self.spec.method
        if method == "cls":
            return hidden.index_select(0, ends - counts).float()
        if method == "last":
            return hidden.index_select(0, ends - 1).float()
        if method == "max":
            return torch.stack([part.amax(0) for part in torch.split(hidden, list(lengths))]).float()
        owner = torch.repeat_interleave(counts)  # 0 0 0 1 1 …
        sums = torch.zeros(len(lengths), hidden.shape[1], device=hidden.device)
        sums.index_add_(0, owner, hidden.float())
        divisor = counts.float() if method == "mean" else counts.float().sqrt()
        return sums / divisor[:, None]

    def finish(self, pooled: torch.Tensor, wanted: Sequence[Wanted]) -> list[torch.Tensor]:
        """[S, H] → one vector on the host for each sequence: Dense modules, shortened, then normalised."""
        for dense in self._dense:
            pooled = dense(pooled)
        vectors = []
        for vector, wish in zip(pooled.cpu(), wanted, strict=True):
            vector = vector[: wish.dimensions] if wish.dimensions else vector
            is_plain = wish.raw or not self.spec.normalize
            vectors.append(vector if is_plain else functional.normalize(vector, dim=0))
        return vectors


def _load_dense(folder: Path, spec: DenseSpec, device: str) -> _Dense:
    checkpoint = Checkpoint(folder)
    weight = checkpoint.tensor("linear.weight", (spec.out_features, spec.in_features)).float().to(device)
    bias = checkpoint.tensor("linear.bias", (spec.out_features,)).float().to(device) if spec.bias else None
    checkpoint.close()
    return _Dense(weight, bias, spec.activation)
