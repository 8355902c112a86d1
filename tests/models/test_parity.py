"""Every family against transformers' implementation, over random tiny configurations."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from vsrv import models
from vsrv.errors import ConfigError, UnsupportedModelError
from vsrv.kernels import AttentionMetadata, Kernels

BASE = dict(
    vocab_size=150,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
LLAMA3_ROPE = dict(
    rope_type="llama3",
    rope_theta=5000.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("Llama", dict(num_key_value_heads=4, head_dim=32)),
    "llama3-rope-tied": ("Llama", dict(head_dim=64, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True)),
    "llama-linear-rope": (
        "Llama",
        dict(head_dim=32, rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=1e4)),
    ),
    "llama-biases": ("Llama", dict(head_dim=32, attention_bias=True, mlp_bias=True)),
    "llama-head-dim-80": ("Llama", dict(head_dim=80)),
    "llama-head-dim-96-mqa": ("Llama", dict(head_dim=96, num_key_value_heads=1)),
    "llama-head-dim-128-gelu": ("Llama", dict(head_dim=128, hidden_act="gelu_pytorch_tanh", vocab_size=97)),
    "llama-head-dim-256": ("Llama", dict(head_dim=256, hidden_size=80)),
    "mistral-full": ("Mistral", dict(head_dim=32, sliding_window=None)),
    "mistral-window": ("Mistral", dict(head_dim=32, sliding_window=21)),
    "qwen2": ("Qwen2", dict(hidden_size=128)),
    "qwen2-tied": ("Qwen2", dict(hidden_size=128, tie_word_embeddings=True)),
    "qwen2-window-layers": (
        "Qwen2",
        dict(hidden_size=128, use_sliding_window=True, sliding_window=17, max_window_layers=1),
    ),
    "qwen3": ("Qwen3", dict(head_dim=64, tie_word_embeddings=True)),
}


def make_model(folder: Path, family: str, changes: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    config = getattr(transformers, f"{family}Config")(**{**BASE, **changes})
    torch.manual_seed(1)
    network = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter in network.parameters():  # the default initialisation is too flat to tell tokens apart
            parameter.normal_(0, 0.25) if parameter.dim() > 1 else parameter.uniform_(0.3, 1.2)
    network.to(dtype).save_pretrained(folder)
    return network.float().eval()


def load(folder: Path, kernels: Kernels, dtype: str = "auto", **options: Any) -> models.Model:
    spec = models.read_spec(folder, {})
    chosen = models.LoadOptions(dtype, options.get("load_format", "auto"), options.get("seed", 0), 512)
    return models.load_model(folder, spec, kernels, chosen, lambda fraction: None)


class OneSequence:
    """Feeds one sequence through a model in chunks, with blocks in an order of its own."""

    def __init__(self, model: models.Model, kernels: Kernels, blocks: list[int]) -> None:
        self.model, self.blocks, self.block_size = model, blocks, kernels.block_size
        k, v = kernels.kv_block_bytes(model.spec.num_kv_heads, model.spec.head_dim, model.dtype)
        count = max(blocks) + 1
        self.cache = [
            (torch.zeros(count, k, dtype=torch.uint8), torch.zeros(count, v, dtype=torch.uint8))
            for _ in range(model.spec.num_layers)
        ]
        self.length = 0

    def feed(self, ids: list[int]) -> torch.Tensor:
        positions = torch.arange(self.length, self.length + len(ids), dtype=torch.int32)
        table = torch.tensor([self.blocks], dtype=torch.int32)
        slots = table[0, positions // self.block_size] * self.block_size + positions % self.block_size
        self.length += len(ids)
        meta = AttentionMetadata(
            positions,
            slots.int(),
            table,
            torch.tensor([0, len(ids)], dtype=torch.int32),
            torch.tensor([self.length], dtype=torch.int32),
            self.length,
        )
        hidden = self.model.forward(torch.tensor(ids, dtype=torch.int32), meta, self.cache)
        return self.model.logits(hidden, torch.arange(len(ids))).clone()


def prompt(length: int, vocab: int, seed: int = 0) -> list[int]:
    return torch.randint(0, vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", CASES)
def test_logprobs_and_greedy_tokens_equal_transformers(name: str, tmp_path: Path, kernels: Kernels) -> None:
    family, changes = CASES[name]
    network = make_model(tmp_path, family, changes)
    ids = prompt(75, network.config.vocab_size)
    model = load(tmp_path, kernels)
    assert model.dtype == "float32"
    with torch.inference_mode():
        expected = network(torch.tensor([ids])).logits[0].log_softmax(-1)
    sequence = OneSequence(model, kernels, [5, 2, 7, 0])
    actual = sequence.feed(ids).log_softmax(-1)
    torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)
    for _ in range(20):
        ids.append(int(actual[-1].argmax()))
        actual = sequence.feed(ids[-1:]).log_softmax(-1)
        with torch.inference_mode():
            expected = network(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        torch.testing.assert_close(actual[-1], expected, atol=2e-4, rtol=1e-4)
        top = expected.topk(2)
        if float(top.values[0] - top.values[1]) > 1e-3:
            assert int(actual[-1].argmax()) == int(top.indices[0])


def random_case(seed: int) -> tuple[str, dict[str, Any]]:
    """A family with every size and part drawn: head sizes need not be round, hidden sizes need not be heads x head_dim."""
    rng = random.Random(seed)
    family = ("Llama", "Qwen2", "Qwen3", "Mistral")[seed % 4]
    kv_heads = rng.choice((1, 2, 3))
    heads = kv_heads * rng.choice((1, 2, 4, 7))
    head_dim = rng.choice((32, 34, 40, 50, 64, 72, 100, 128, 160, 200, 256))
    changes: dict[str, Any] = dict(
        vocab_size=rng.randint(40, 300),
        intermediate_size=rng.randint(20, 150),
        num_hidden_layers=rng.randint(1, 4),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        hidden_size=rng.randint(30, 130),
        rms_norm_eps=rng.choice((1e-6, 1e-5, 1e-2)),
        tie_word_embeddings=rng.random() < 0.5,
        rope_parameters=rng.choice(
            (dict(rope_type="default", rope_theta=rng.choice((1e3, 1e6))), LLAMA3_ROPE)
        ),
        head_dim=head_dim,
    )
    if family == "Qwen2":  # the reference takes its head size from hidden_size alone
        changes["hidden_size"] = heads * 2 * rng.randint(16, 30)
        del changes["head_dim"]
    if family == "Llama":  # the reference wants a multiple here
        changes |= dict(
            hidden_size=heads * rng.randint(3, 12),
            attention_bias=rng.random() < 0.5,
            mlp_bias=rng.random() < 0.5,
        )
    if family == "Mistral":
        changes["sliding_window"] = rng.choice((None, 5, 40))
    return family, changes


@pytest.mark.parametrize("seed", range(16))
def test_random_configurations_equal_transformers(seed: int, tmp_path: Path, kernels: Kernels) -> None:
    family, changes = random_case(seed)
    network = make_model(tmp_path, family, changes)
    ids = prompt(60, network.config.vocab_size, seed)
    with torch.inference_mode():
        expected = network(torch.tensor([ids])).logits[0].log_softmax(-1)
    sequence = OneSequence(load(tmp_path, kernels), kernels, [1, 0])
    actual = torch.cat([sequence.feed(part) for part in (ids[:41], ids[41:42], ids[42:])]).log_softmax(-1)
    torch.testing.assert_close(actual, expected, atol=5e-4, rtol=2e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama3-rope-tied", "mistral-window", "qwen2", "qwen3"])
def test_half_precision_checkpoints_stay_close(
    name: str, dtype: str, tmp_path: Path, kernels: Kernels
) -> None:
    """Weights and KV are rounded to the checkpoint's type, activations are not: close to fp32 on the rounded weights."""
    family, changes = CASES[name]
    make_model(tmp_path, family, changes, getattr(torch, dtype))
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = prompt(60, network.config.vocab_size)
    model = load(tmp_path, kernels)
    assert model.dtype == dtype
    actual = OneSequence(model, kernels, [1, 0]).feed(ids).log_softmax(-1)
    with torch.inference_mode():
        expected = network(torch.tensor([ids])).logits[0].log_softmax(-1)
    tolerance = 0.15 if dtype == "bfloat16" else 0.03
    assert float((actual - expected).abs().mean()) < tolerance / 5
    assert float((actual - expected).abs().max()) < tolerance * 4


@pytest.mark.parametrize("name", ["llama-biases", "mistral-window", "qwen2-window-layers", "qwen3"])
def test_chunked_equals_whole_bit_for_bit(name: str, tmp_path: Path, kernels: Kernels) -> None:
    family, changes = CASES[name]
    make_model(tmp_path, family, changes, torch.bfloat16)
    model = load(tmp_path, kernels)
    ids = prompt(100, model.spec.vocab_size)
    whole = OneSequence(model, kernels, [3, 1, 0, 2]).feed(ids)
    for cuts in ([1] * 100, [33, 32, 35], [7, 90, 3]):
        sequence, parts, start = OneSequence(model, kernels, [0, 1, 2, 3]), [], 0
        for cut in cuts:
            parts.append(sequence.feed(ids[start : start + cut]))
            start += cut
        assert torch.equal(torch.cat(parts), whole)


def test_a_sharded_checkpoint_is_the_same_model(tmp_path: Path, kernels: Kernels) -> None:
    network = make_model(tmp_path / "one", "Qwen3", CASES["qwen3"][1])
    network.save_pretrained(tmp_path / "many", max_shard_size="60KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 2
    ids = prompt(20, 150)
    logits = [OneSequence(load(tmp_path / f, kernels), kernels, [0]).feed(ids) for f in ("one", "many")]
    assert torch.equal(*logits)


def test_dummy_weights_depend_on_the_seed_alone(tmp_path: Path, kernels: Kernels) -> None:
    make_model(tmp_path, "Llama", CASES["llama2"][1], torch.bfloat16)
    (tmp_path / "model.safetensors").unlink()
    ids = prompt(9, 150)
    results = [
        OneSequence(load(tmp_path, kernels, load_format="dummy", seed=seed), kernels, [0]).feed(ids)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert torch.isfinite(results[0]).all()


def edited(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (dict(architectures=["GPT2LMHeadModel"]), UnsupportedModelError, "GPT2LMHeadModel.*LlamaForCausalLM"),
        (dict(quantization_config=dict(quant_method="awq")), UnsupportedModelError, "awq"),
        (dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e4)), UnsupportedModelError, "yarn"),
        (dict(hidden_act="relu"), UnsupportedModelError, "relu"),
        (dict(head_dim=512), ConfigError, "head_dim"),
        (dict(num_hidden_layers=-1), ConfigError, "num_hidden_layers"),
        (dict(vocab_size="many"), ConfigError, "vocab_size"),
        (dict(intermediate_size=100), ConfigError, "gate_proj.*shape"),
        (dict(num_hidden_layers=4), ConfigError, "layers.3.*missing"),
        (dict(num_hidden_layers=2), ConfigError, "unexpected.*layers.2"),
        (dict(attention_bias=True), ConfigError, "bias.*missing"),
    ],
)
def test_what_does_not_fit_is_named(
    changes: dict[str, Any], error: type[Exception], words: str, tmp_path: Path, kernels: Kernels
) -> None:
    make_model(tmp_path, "Llama", CASES["llama2"][1])
    edited(tmp_path, **changes)
    with pytest.raises(error, match=words):
        load(tmp_path, kernels)


def test_pickled_weights_are_refused_by_name(tmp_path: Path, kernels: Kernels) -> None:
    make_model(tmp_path, "Llama", CASES["llama2"][1])
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match="pytorch_model.bin.*safetensors only"):
        load(tmp_path, kernels)
