"""Encoders and their pooling against transformers and sums written out here, over random tiny models."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from vsrv import models
from vsrv.engine.encoding import EncoderEngine, EncoderLimits, Network
from vsrv.engine.gpu import TorchProducts, with_products
from vsrv.engine.placement import Host
from vsrv.errors import ConfigError, UnsupportedModelError
from vsrv.kernels import Kernels
from vsrv.messages import Embed, Pooled
from vsrv.models.bert import load_encoder
from vsrv.models.encoder import EncoderSpec
from vsrv.models.pooling import Pooler
from vsrv.models.verify import verify_weights

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


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are so small that a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    (folder / "1_Pooling").mkdir(exist_ok=True)
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
def test_pooled_vectors_are_those_of_transformers(family: str, tmp_path: Path, kernels: Kernels) -> None:
    """In every mode, for lengths that meet in a batch in any order."""
    network = make(tmp_path, family)
    texts = sequences()
    hidden = [states(network, ids) for ids in texts]
    for mode, pool in POOL.items():
        pooling_folder(tmp_path, mode)
        got = vectors(engine_of(tmp_path, kernels), embeds(texts))
        for expected, vector in zip(hidden, got, strict=True):
            assert torch.allclose(vector, pool(expected), atol=TOLERANCE, rtol=TOLERANCE), mode


@pytest.mark.parametrize("family", FAMILIES)
def test_cross_encoders_score_pairs_as_transformers_does(
    family: str, tmp_path: Path, kernels: Kernels
) -> None:
    """Token types are 1 from `second_from` on; one label is bounded by a sigmoid, as sentence-transformers' CrossEncoder has it."""
    network = make(tmp_path, family, "ForSequenceClassification", num_labels=1)
    texts = sequences()
    has_types = FAMILIES[family]["type_vocab_size"] == 2
    borders = [(len(ids) + 1) // 2 if has_types else len(ids) for ids in texts]
    frames = [
        Embed(i + 1, array("I", ids), border)
        for i, (ids, border) in enumerate(zip(texts, borders, strict=True))
    ]
    raw = [
        Embed(50 + i, array("I", ids), border, raw=True)
        for i, (ids, border) in enumerate(zip(texts, borders, strict=True))
    ]
    engine = engine_of(tmp_path, kernels)
    scores, logits = vectors(engine, frames), vectors(engine, raw)
    for ids, border, score, logit in zip(texts, borders, scores, logits, strict=True):
        types = torch.tensor([[int(i >= border) for i in range(len(ids))]])
        with torch.no_grad():
            expected = network(torch.tensor([ids]), token_type_ids=types).logits[0]
        assert torch.allclose(logit, expected, atol=TOLERANCE, rtol=TOLERANCE)
        assert torch.allclose(score, torch.sigmoid(expected), atol=TOLERANCE)


def test_a_batch_gives_the_same_bits_as_each_input_alone(tmp_path: Path, kernels: Kernels) -> None:
    make(tmp_path, "Bert")
    pooling_folder(tmp_path, "mean_tokens", {"path": "2_Normalize", "type": "Normalize"})
    texts = sequences()
    together = vectors(engine_of(tmp_path, kernels, budget=256), embeds(texts))
    engine = engine_of(tmp_path, kernels)
    for index, (ids, vector) in enumerate(zip(texts, together, strict=True)):
        (alone,) = vectors(engine, [Embed(100 + index, array("I", ids), len(ids))])
        assert torch.equal(alone, vector)
        assert abs(float(alone.norm()) - 1) < 1e-6


def test_on_a_device_whose_products_are_torchs_the_vectors_are_the_same(
    tmp_path: Path, kernels: Kernels
) -> None:
    """What a GPU runs, here on the CPU: weights as torch has them, activations of the weights' type."""
    products = TorchProducts("cpu")
    network = make(tmp_path, "Bert")
    pooling_folder(tmp_path, "mean_tokens")
    texts = sequences()
    device = replace(with_products(kernels, products), activation_dtype=None)
    got = vectors(engine_of(tmp_path, device), embeds(texts))
    for ids, vector in zip(texts, got, strict=True):
        expected = states(network, ids).mean(0)
        assert torch.allclose(vector, expected, atol=TOLERANCE, rtol=TOLERANCE)
    spec = models.read_any(tmp_path, {}, "auto", {})
    assert isinstance(spec, models.PoolingModelSpec) and isinstance(spec.network, EncoderSpec)
    half = load_encoder(tmp_path, spec.network, device, "bfloat16", None, lambda fraction: None)
    engine = EncoderEngine(
        Network(half, Pooler(tmp_path, spec.pooling, "cpu"), None), EncoderLimits(4, 64, 64), Host()
    )
    for vector, exact in zip(vectors(engine, embeds(texts)), got, strict=True):
        assert torch.nn.functional.cosine_similarity(vector, exact, dim=0) > 0.99


def test_dense_modules_follow_the_pooling(tmp_path: Path, kernels: Kernels) -> None:
    from safetensors.torch import save_file

    network = make(tmp_path, "Bert")
    pooling_folder(tmp_path, "mean_tokens", {"path": "2_Dense", "type": "Dense"})
    weight, bias = torch.randn(10, 48), torch.randn(10)
    (tmp_path / "2_Dense").mkdir()
    settings = {
        "in_features": 48,
        "out_features": 10,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (tmp_path / "2_Dense" / "config.json").write_text(json.dumps(settings))
    save_file({"linear.weight": weight, "linear.bias": bias}, tmp_path / "2_Dense" / "model.safetensors")
    texts = sequences(3)
    for ids, vector in zip(texts, vectors(engine_of(tmp_path, kernels), embeds(texts)), strict=True):
        expected = torch.tanh(weight @ states(network, ids).mean(0) + bias)
        assert torch.allclose(vector, expected, atol=TOLERANCE)


def test_a_folder_without_modules_takes_the_first_token_and_normalises_and_the_operator_may_differ(
    tmp_path: Path, kernels: Kernels
) -> None:
    """vLLM's defaults, and its --pooler-config."""
    network = make(tmp_path, "Bert")
    (ids,) = sequences(1)
    (default,) = vectors(engine_of(tmp_path, kernels), embeds([ids]))
    first = states(network, ids)[0]
    assert torch.allclose(default, first / first.norm(), atol=TOLERANCE)
    changed = engine_of(tmp_path, kernels, pooling_type="MEAN", normalize=False)
    (mean,) = vectors(changed, embeds([ids]))
    assert torch.allclose(mean, states(network, ids).mean(0), atol=TOLERANCE, rtol=TOLERANCE)
    (raw,) = vectors(engine_of(tmp_path, kernels), embeds([ids], raw=True))
    assert torch.allclose(raw, first, atol=TOLERANCE, rtol=TOLERANCE)
    (short,) = vectors(engine_of(tmp_path, kernels), embeds([ids], dimensions=8))
    assert torch.allclose(short, first[:8] / first[:8].norm(), atol=TOLERANCE)


def test_tensors_may_have_the_names_of_a_larger_network_or_of_old_ones(
    tmp_path: Path, kernels: Kernels
) -> None:
    from safetensors.torch import load_file, save_file

    network = make(tmp_path, "Bert")
    (ids,) = sequences(1)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    old = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in tensors.items()
    }
    save_file({**old, "bert.embeddings.position_ids": torch.arange(66)[None]}, file)
    (vector,) = vectors(engine_of(tmp_path, kernels, normalize=False), embeds([ids]))
    assert torch.allclose(vector, states(network, ids)[0], atol=TOLERANCE, rtol=TOLERANCE)
    save_file({**old, "cls.predictions.bias": torch.zeros(3)}, file)
    with pytest.raises(ConfigError, match=r"unexpected tensors for BertModel: cls\.predictions\.bias"):
        engine_of(tmp_path, kernels)


def test_the_files_of_sentence_transformers_6_are_read_too(tmp_path: Path) -> None:
    """As its `save_pretrained` writes them: types by their new names, and the mode of the pooling as a word."""
    make(tmp_path, "Bert", num_hidden_layers=1)
    root = "sentence_transformers"
    kinds = (
        ("", f"{root}.base.modules.transformer.Transformer"),
        ("1_Pooling", f"{root}.sentence_transformer.modules.pooling.Pooling"),
        ("2_Normalize", f"{root}.base.modules.normalize.Normalize"),
    )
    table = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(kinds)]
    (tmp_path / "modules.json").write_text(json.dumps(table))
    (tmp_path / "1_Pooling").mkdir()
    for mode, method in (("mean", "mean"), ("lasttoken", "last"), ("cls", "cls"), ("max", "max")):
        settings = {"embedding_dimension": 48, "pooling_mode": mode, "include_prompt": True}
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
        spec = models.read_any(tmp_path, {}, "auto", {})
        assert isinstance(spec, models.PoolingModelSpec) and spec.pooling is not None
        assert (spec.pooling.method, spec.pooling.normalize) == (method, True)


def test_the_headers_tell_what_a_checkpoint_lacks(tmp_path: Path) -> None:
    """As `vsrv check` looks at it, without loading anything."""
    from safetensors.torch import load_file, save_file

    make(tmp_path, "Roberta", "ForSequenceClassification", num_labels=1)
    spec = models.read_any(tmp_path, {}, "auto", {})
    assert isinstance(spec, models.PoolingModelSpec)
    assert verify_weights(tmp_path, spec.network).problems == ()
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["roberta.encoder.layer.1.output.dense.bias"]
    save_file({**tensors, "lm_head.bias": torch.zeros(2)}, file)
    missing, extra = verify_weights(tmp_path, spec.network).problems
    assert missing == "tensors are missing: roberta.encoder.layer.1.output.dense.bias"
    assert extra == "tensors that RobertaForSequenceClassification does not have: lm_head.bias"


def change(path: Path, **values: Any) -> None:
    table = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**table, **values}))


@pytest.mark.parametrize(
    ("file", "values", "match"),
    [
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("config.json", {"hidden_act": "swish"}, "activation 'swish'"),
        ("config.json", {"is_decoder": True}, "is_decoder"),
        ("config.json", {"matryoshka_dimensions": [96]}, "matryoshka_dimensions"),
        ("config.json", {"architectures": ["MPNetModel"]}, "architecture MPNetModel is not supported"),
        ("modules.json", None, "is not a list of modules"),
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "exactly one pooling mode"),
    ],
)
def test_what_is_not_built_is_refused_by_name(
    file: str, values: dict[str, Any] | None, match: str, tmp_path: Path
) -> None:
    make(tmp_path, "Bert", num_hidden_layers=1)
    pooling_folder(tmp_path, "mean_tokens")
    if values is None:
        (tmp_path / file).write_text("{}")
    else:
        change(tmp_path / file, **values)
    with pytest.raises(ConfigError, match=match):
        models.read_any(tmp_path, {}, "auto", {})


def test_classifiers_of_more_labels_and_unknown_activations_have_no_score(tmp_path: Path) -> None:
    make(tmp_path, "Bert", "ForSequenceClassification", num_hidden_layers=1, num_labels=3)
    with pytest.raises(UnsupportedModelError, match="3 labels has no score"):
        models.read_any(tmp_path, {}, "auto", {})
    change(tmp_path / "config.json", id2label={"0": "a"}, label2id={"a": 0})
    own = {"activation_fn": "torch.nn.modules.linear.Identity"}  # as in cross-encoder/ms-marco-MiniLM-L6-v2
    change(tmp_path / "config.json", sentence_transformers=own)
    spec = models.read_any(tmp_path, {}, "auto", {})
    assert isinstance(spec, models.PoolingModelSpec)
    assert (spec.task, spec.score_activation) == ("score", "Identity")
    change(tmp_path / "config.json", sentence_transformers={"activation_fn": "mine.Own"})
    with pytest.raises(UnsupportedModelError, match="'Own' of a cross-encoder"):
        models.read_any(tmp_path, {}, "auto", {})


def test_the_length_is_the_least_that_the_folder_says(tmp_path: Path) -> None:
    make(tmp_path, "Roberta", num_hidden_layers=1)
    spec = models.read_any(tmp_path, {}, "auto", {})
    assert (
        isinstance(spec, models.PoolingModelSpec) and spec.max_tokens == 64
    )  # 66 positions, two before the first
    change(tmp_path / "tokenizer_config.json", model_max_length=10**30)
    assert models.read_any(tmp_path, {}, "auto", {}).max_tokens == 64
    change(tmp_path / "tokenizer_config.json", model_max_length=40)
    assert models.read_any(tmp_path, {}, "auto", {}).max_tokens == 40
    change(tmp_path / "sentence_bert_config.json", max_seq_length=30)
    assert models.read_any(tmp_path, {}, "auto", {}).max_tokens == 30
    with pytest.raises(ConfigError, match="makes no text"):
        models.read_any(tmp_path, {}, "generate", {})
