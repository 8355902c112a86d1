"""Encoders and their pooling against transformers and sums written out here, over random tiny models."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from vsrv import models
from vsrv.engine.encoding import EncoderEngine, EncoderLimits, Network
from vsrv.engine.placement import Host
from vsrv.kernels import Kernels
from vsrv.messages import Embed, Pooled
from vsrv.models.bert import load_encoder
from vsrv.models.encoder import EncoderSpec
from vsrv.models.pooling import Pooler

TOLERANCE = 1e-4
BASE: dict[str, Any] = dict(
    vocab_size=120,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=80,
    max_position_embeddings=66,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": dict(type_vocab_size=2, pad_token_id=0),
    "Roberta": dict(type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5),
    "XLMRoberta": dict(type_vocab_size=1, pad_token_id=1, hidden_act="gelu_new"),
}
LENGTHS = (7, 1, 33, 7, 64, 12, 2, 33)


def make(folder: Path, family: str, head: str = "Model", **changes: Any) -> Any:
    """A saved random model of transformers, spread enough to tell tokens apart."""
    config = getattr(transformers, f"{family}Config")(**{**BASE, **FAMILIES[family], **changes})
    torch.manual_seed(3)
    network = getattr(transformers, family + head)._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "LayerNorm.weight" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.3)
    network.save_pretrained(folder)
    return network.eval()


def pooling_folder(folder: Path, mode: str, *more: dict[str, Any]) -> None:
    """The files that sentence-transformers writes beside a model."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *((m["path"], m["type"]) for m in more)]
    table = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(table))
    (folder / "1_Pooling").mkdir()
    switches = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({f"pooling_mode_{name}": name == mode for name in switches})
    )


def sequences(count: int = len(LENGTHS)) -> list[list[int]]:
    torch.manual_seed(5)
    return [torch.randint(5, 120, (length,)).tolist() for length in LENGTHS[:count]]


def engine_of(folder: Path, kernels: Kernels, budget: int = 64, **pooler_config: Any) -> EncoderEngine:
    spec = models.read_any(folder, {}, "auto", pooler_config)
    assert isinstance(spec, models.PoolingModelSpec) and isinstance(spec.network, EncoderSpec)
    loaded = load_encoder(folder, spec.network, kernels, "float32", None, lambda fraction: None)
    pooler = None if spec.pooling is None else Pooler(folder, spec.pooling, "cpu")
    limits = EncoderLimits(4, budget, spec.max_tokens)
    return EncoderEngine(Network(loaded, pooler, spec.score_activation), limits, Host())


def vectors(engine: EncoderEngine, frames: list[Embed]) -> list[torch.Tensor]:
    for frame in frames:
        engine.add(frame)
    found: dict[int, torch.Tensor] = {}
    while engine.has_work():
        for output in engine.step():
            assert isinstance(output, Pooled), output
            found[output.seq_id] = torch.tensor(output.values)
    return [found[frame.seq_id] for frame in frames]


def embeds(texts: list[list[int]], **changes: Any) -> list[Embed]:
    return [Embed(i + 1, array("I", ids), len(ids), **changes) for i, ids in enumerate(texts)]


def states(network: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.tensor([ids])).last_hidden_state[0]


POOL = {
    "mean_tokens": lambda h: h.mean(0),
    "cls_token": lambda h: h[0],
    "lasttoken": lambda h: h[-1],
    "max_tokens": lambda h: h.amax(0),
    "mean_sqrt_len_tokens": lambda h: h.sum(0) / len(h) ** 0.5,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", POOL)
def test_pooled_vectors_are_those_of_transformers(
    family: str, mode: str, tmp_path: Path, kernels: Kernels
) -> None:
    network = make(tmp_path, family)
    pooling_folder(tmp_path, mode)
    texts = sequences()
    got = vectors(engine_of(tmp_path, kernels), embeds(texts))
    for ids, vector in zip(texts, got, strict=True):
        expected = POOL[mode](states(network, ids))
        assert torch.allclose(vector, expected, atol=TOLERANCE, rtol=TOLERANCE)
