"""BERT and what follows its plan: config.json → EncoderSpec, names of tensors → EncoderWeights and a classification head.

References: BERT (arXiv 1810.04805), RoBERTa (arXiv 1907.11692), XLM-R (arXiv 1911.02116), each compared with transformers' implementation in
tests/models. RoBERTa's positions begin behind its padding id, and its classifier has a layer of its own where BERT's stands on the pooler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vsrv.errors import ConfigError, UnsupportedModelError
from vsrv.kernels import Kernels
from vsrv.models.encoder import Encoder, EncoderLayer, EncoderSpec, EncoderWeights, Norm
from vsrv.models.loading import DummyReader, Reader, WeightReader, check_unread
from vsrv.models.spec import Fields, checkpoint_dtype
from vsrv.models.weights import Checkpoint

_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}


@dataclass(frozen=True, slots=True)
class EncoderFamily:
    """What config.json leaves to the architecture's own code. `base` is what tensors' names may begin with.

    `head` names the classifier's two layers; empty for a model without one. `ignored` tensors belong to other tasks.
    """

    base: str
    offset_positions: bool
    head: tuple[str, str] | tuple[()] = ()
    ignored: tuple[str, ...] = ("pooler.",)


_BERT_HEAD = ("bert.pooler.dense", "classifier")
_ROBERTA_HEAD = ("classifier.dense", "classifier.out_proj")
ENCODERS: Mapping[str, EncoderFamily] = {
    "BertModel": EncoderFamily("bert.", False),
    "BertForMaskedLM": EncoderFamily("bert.", False, (), ("pooler.", "cls.")),
    "BertForSequenceClassification": EncoderFamily("bert.", False, _BERT_HEAD),
    "RobertaModel": EncoderFamily("roberta.", True),
    "RobertaForMaskedLM": EncoderFamily("roberta.", True, (), ("pooler.", "lm_head.")),
    "RobertaForSequenceClassification": EncoderFamily("roberta.", True, _ROBERTA_HEAD),
    "XLMRobertaModel": EncoderFamily("roberta.", True),
    "XLMRobertaForSequenceClassification": EncoderFamily("roberta.", True, _ROBERTA_HEAD),
    "CamembertModel": EncoderFamily("roberta.", True),
}


def read_encoder_spec(config: Mapping[str, Any], architecture: str) -> EncoderSpec:
    """config.json of a known encoder → EncoderSpec. Raises ConfigError or UnsupportedModelError naming the field."""
    fields, family = Fields(config), ENCODERS[architecture]
    if config.get("quantization_config"):
        raise UnsupportedModelError("quantised encoders are not supported; use the unquantised weights")
    if (fields.get("position_embedding_type") or "absolute") != "absolute":
        raise UnsupportedModelError("position_embedding_type other than absolute is not supported")
    if fields.boolean("is_decoder", False):
        raise UnsupportedModelError("is_decoder: this encoder was made to generate, which is not supported")
    activation = fields.get("hidden_act") or "gelu"
    if activation not in _ACTIVATIONS:
        supported = ", ".join(_ACTIVATIONS)
        raise UnsupportedModelError(f"activation {activation!r} is not supported; supported: {supported}")
    hidden, heads = fields.integer("hidden_size", 1, 65536), fields.integer("num_attention_heads", 1, 1024)
    if hidden % heads:
        raise ConfigError(f"config.json: hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    first = fields.integer("pad_token_id", 0, 1 << 20, 1) + 1 if family.offset_positions else 0
    return EncoderSpec(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size", 1, 1 << 24),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size", 1, 1 << 20),
        num_layers=fields.integer("num_hidden_layers", 1, 1024),
        num_heads=heads,
        num_positions=fields.integer("max_position_embeddings", first + 1, 1 << 24, first + 512),
        first_position=first,
        num_token_types=fields.integer("type_vocab_size", 1, 1024, 2),
        layer_norm_eps=fields.number("layer_norm_eps", 0.0, 1.0, 1e-12),
        activation=_ACTIVATIONS[activation],
        dtype=checkpoint_dtype(config),
        num_labels=_num_labels(config) if family.head else 0,
    )


def _num_labels(config: Mapping[str, Any]) -> int:
    """As transformers: num_labels, else the labels' names, else 2."""
    names = config.get("id2label")
    default = len(names) if isinstance(names, dict) and names else 2
    return Fields(config).integer("num_labels", 1, 1 << 16, default)


@dataclass(frozen=True, slots=True)
class ClassifierWeights:
    """First token [H] → tanh(dense) [H] → out [L]; float32."""

    dense: torch.Tensor
    dense_bias: torch.Tensor
    out: torch.Tensor
    out_bias: torch.Tensor

    def __call__(self, first: torch.Tensor) -> torch.Tensor:
        """first [S, H] → logits [S, L]."""
        inner = torch.tanh(torch.nn.functional.linear(first, self.dense, self.dense_bias))
        return torch.nn.functional.linear(inner, self.out, self.out_bias)


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    network: Encoder
    classifier: ClassifierWeights | None


def load_encoder(
    folder: Path,
    spec: EncoderSpec,
    kernels: Kernels,
    dtype: str,
    dummy_seed: int | None,
    progress: Callable[[float], None],
) -> LoadedEncoder:
    """All weights of an encoder. dummy_seed not None makes random ones. Raises ConfigError on missing or unexpected tensors."""
    family = ENCODERS[spec.architecture]
    checkpoint = None if dummy_seed is not None else Checkpoint(folder, family.base)
    reader: WeightReader | DummyReader
    if checkpoint is None:
        reader = DummyReader(kernels, dtype, dummy_seed or 0)
    else:
        reader = WeightReader(checkpoint, kernels, dtype)
    kind: torch.dtype = getattr(torch, kernels.activation_dtype or dtype)
    weights, classifier = encoder_weights(reader, spec, kind, progress)
    if checkpoint is not None:
        check_unread(checkpoint, spec.architecture, ignored_of(spec))
        checkpoint.close()
    progress(1.0)
    return LoadedEncoder(Encoder(spec, weights, kernels, dtype), classifier)


def encoder_weights(
    reader: Reader, spec: EncoderSpec, kind: torch.dtype, progress: Callable[[float], None]
) -> tuple[EncoderWeights, ClassifierWeights | None]:
    """Ask `reader` for everything that an encoder has; tables and norms are of type `kind`."""
    family = ENCODERS[spec.architecture]
    loader = _Loader(reader, spec, family.base, kind)
    weights = loader.weights(progress)
    return weights, loader.classifier(*family.head) if family.head else None


def ignored_of(spec: EncoderSpec) -> tuple[str, ...]:
    """How names of tensors begin that belong to tasks of other networks."""
    family = ENCODERS[spec.architecture]
    return (*family.ignored, *(family.base + name for name in family.ignored))


@dataclass(frozen=True, slots=True)
class _Loader:
    reader: Reader
    spec: EncoderSpec
    base: str
    kind: torch.dtype

    def weights(self, progress: Callable[[float], None]) -> EncoderWeights:
        spec, hidden, front = self.spec, self.spec.hidden_size, f"{self.base}embeddings"
        embedding = self.reader.linear((f"{front}.word_embeddings",), (spec.vocab_size,), hidden, False, None)
        positions = self._table(f"{front}.position_embeddings.weight", (spec.num_positions, hidden))
        types = self._table(f"{front}.token_type_embeddings.weight", (spec.num_token_types, hidden))
        norm = self._norm(f"{front}.LayerNorm")
        layers = []
        for index in range(spec.num_layers):
            layers.append(self._layer(f"{self.base}encoder.layer.{index}"))
            progress((index + 1) / (spec.num_layers + 1))
        return EncoderWeights(embedding.packed, positions, types, norm, tuple(layers))

    def _layer(self, prefix: str) -> EncoderLayer:
        hidden, inner, linear = self.spec.hidden_size, self.spec.intermediate_size, self.reader.linear
        names = tuple(f"{prefix}.attention.self.{part}" for part in ("query", "key", "value"))
        return EncoderLayer(
            qkv=linear(names, (hidden,) * 3, hidden, True, 0).packed,
            output=linear((f"{prefix}.attention.output.dense",), (hidden,), hidden, True, 1).packed,
            attention_norm=self._norm(f"{prefix}.attention.output.LayerNorm"),
            up=linear((f"{prefix}.intermediate.dense",), (inner,), hidden, True, 0).packed,
            down=linear((f"{prefix}.output.dense",), (hidden,), inner, True, 1).packed,
            output_norm=self._norm(f"{prefix}.output.LayerNorm"),
        )

    def classifier(self, dense: str, out: str) -> ClassifierWeights:
        hidden, labels, read = self.spec.hidden_size, self.spec.num_labels, self.reader.table
        return ClassifierWeights(
            read(f"{dense}.weight", (hidden, hidden)),
            read(f"{dense}.bias", (hidden,)),
            read(f"{out}.weight", (labels, hidden)),
            read(f"{out}.bias", (labels,)),
        )

    def _norm(self, name: str) -> Norm:
        """Old checkpoints call weight and bias gamma and beta."""
        shape = (self.spec.hidden_size,)
        weight, bias = ("gamma", "beta") if self.reader.has(f"{name}.gamma") else ("weight", "bias")
        return Norm(self._table(f"{name}.{weight}", shape), self._table(f"{name}.{bias}", shape))

    def _table(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return self.reader.table(name, shape).to(self.kind)
