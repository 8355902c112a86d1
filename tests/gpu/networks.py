"""Models made on the spot: small random networks saved by transformers, and shapes of real ones with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vsrv import models
from vsrv.engine.blocks import BlockPool
from vsrv.engine.engine import Engine
from vsrv.engine.runner import ModelRunner
from vsrv.engine.scheduler import Scheduler, SchedulerLimits
from vsrv.kernels import Kernels

_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151936, "head_dim": 128,
    "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "torch_dtype": "bfloat16", "attention_bias": False, "bos_token_id": 1, "eos_token_id": 151645,
}  # fmt: skip
QWEN3_06B = _QWEN3 | {
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_8B = _QWEN3 | {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "tie_word_embeddings": False,
}  # fmt: skip
TINY = _QWEN3 | {
    "vocab_size": 98, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 3,
    "num_key_value_heads": 1, "head_dim": 64, "max_position_embeddings": 256, "tie_word_embeddings": True, "eos_token_id": 2,
}  # fmt: skip


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_weights(folder: Path) -> None:
    """Random bfloat16 weights for a Qwen3 config.json, under the names that a checkpoint has."""
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text())
    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def matrix(n: int, k: int) -> torch.Tensor:
        return (torch.randn(n, k, device=device) * k**-0.5).to(torch.bfloat16).cpu()

    def ones(n: int) -> torch.Tensor:
        return torch.ones(n, dtype=torch.bfloat16)

    tensors = {
        "model.embed_tokens.weight": matrix(config["vocab_size"], hidden),
        "model.norm.weight": ones(hidden),
    }
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}"
        tensors |= {
            f"{at}.input_layernorm.weight": ones(hidden), f"{at}.post_attention_layernorm.weight": ones(hidden),
            f"{at}.self_attn.q_proj.weight": matrix(q, hidden), f"{at}.self_attn.k_proj.weight": matrix(kv, hidden),
            f"{at}.self_attn.v_proj.weight": matrix(kv, hidden), f"{at}.self_attn.o_proj.weight": matrix(hidden, q),
            f"{at}.self_attn.q_norm.weight": ones(dim), f"{at}.self_attn.k_norm.weight": ones(dim),
            f"{at}.mlp.gate_proj.weight": matrix(inner, hidden), f"{at}.mlp.up_proj.weight": matrix(inner, hidden),
            f"{at}.mlp.down_proj.weight": matrix(hidden, inner),
        }  # fmt: skip
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})


def save_random(folder: Path, family: str, tiny: bool) -> Path:
    """A small network of a family, with weights large enough that greedy choices are mostly clear."""
    import transformers

    sizes: dict[str, Any] = dict(
        vocab_size=998,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    if tiny:
        sizes = dict(
            vocab_size=98,
            hidden_size=64,
            intermediate_size=80,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
        )
    sizes |= dict(max_position_embeddings=1024, eos_token_id=2, bos_token_id=1, pad_token_id=0)
    heads = dict(head_dim=64)
    if family == "Llama":
        config: Any = transformers.LlamaConfig(**sizes, **heads, tie_word_embeddings=False)
    elif family == "Qwen2":
        sizes["hidden_size"] = 64 * sizes["num_attention_heads"]  # its heads have no size of their own
        config = transformers.Qwen2Config(**sizes, tie_word_embeddings=True)
    elif family == "Qwen3":
        config = transformers.Qwen3Config(**sizes, **heads, tie_word_embeddings=True)
    else:
        config = transformers.MistralConfig(**sizes, **heads, sliding_window=20, tie_word_embeddings=False)
    torch.manual_seed(5)
    network = getattr(transformers, f"{family}ForCausalLM")(config)
    spread = 0.3 if tiny else 0.12
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                parameter.normal_(
                    0, spread / 3
                )  # else scores are so large that rounding decides which token is seen
            elif parameter.dim() > 1:
                parameter.normal_(0, spread)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.2)
            else:
                parameter.uniform_(0.5, 1.5)
    folder.mkdir(parents=True, exist_ok=True)
    network.to(torch.bfloat16).save_pretrained(folder)
    return folder


def load(folder: Path, kernels: Kernels, dummy: bool, max_len: int) -> models.Model:
    spec = models.read_spec(folder, {})
    options = models.LoadOptions("bfloat16", "dummy" if dummy else "auto", 0, max_len)
    return models.load_model(folder, spec, kernels, options, lambda fraction: None)


def make_engine(
    target: Any,
    folder: Path,
    *,
    lag: int,
    graphs: bool,
    blocks: int,
    seqs: int,
    budget: int,
    max_len: int,
    dummy: bool = False,
    caching: bool = False,
) -> Engine:
    """An engine as engine/worker.py assembles it, with everything that the cases vary."""
    kernels = target.kernels()
    model = load(folder, kernels, dummy, max_len)
    kernels.prepare(model.kernel_shapes(seqs, budget))
    model.reserve(budget, seqs)
    runner = ModelRunner(model, kernels, blocks, seqs, target.placement())
    if graphs:
        runner.use_graphs(target.capture(), seqs, -(-max_len // kernels.block_size))
    limits = SchedulerLimits(seqs, budget, min(max_len, blocks * kernels.block_size))
    pool = BlockPool(blocks, kernels.block_size, caching)
    return Engine(runner, Scheduler(limits, pool), kernels.block_size, lag, 0)
