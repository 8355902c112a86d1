"""Train the demo model from nothing but this folder's data: python -m vsrv.demo.train --out DIR

Makes a byte-level BPE vocabulary, a Llama-shaped network and a Hugging Face folder that vsrv serves like any other. Seeded: the same command
gives the same data; weights are the same up to the order in which threads add. About 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional

from vsrv.demo.dialogue import make_dialogue, vocabulary_sample

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network; the names are those of config.json."""

    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 5
    num_attention_heads: int = 6
    num_key_value_heads: int = 6
    head_dim: int = 32
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


class Layer(nn.Module):
    """One decoder layer; parameter names are those of the checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner, width = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        self.shape = shape
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(shape.hidden_size, inner, False),
                "k_proj": nn.Linear(shape.hidden_size, width, False),
                "v_proj": nn.Linear(shape.hidden_size, width, False),
                "o_proj": nn.Linear(inner, shape.hidden_size, False),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(shape.hidden_size, shape.intermediate_size, False),
                "up_proj": nn.Linear(shape.hidden_size, shape.intermediate_size, False),
                "down_proj": nn.Linear(shape.intermediate_size, shape.hidden_size, False),
            }
        )

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, drop: float) -> torch.Tensor:
        """x [B, T, H] → [B, T, H]."""
        batch, length, _ = x.shape
        normed = self.input_layernorm(x)

        def heads(name: str) -> torch.Tensor:
            projected: torch.Tensor = self.self_attn[name](normed)
            return projected.view(batch, length, -1, self.shape.head_dim).transpose(1, 2)

        q, k = rotated(heads("q_proj"), cos, sin), rotated(heads("k_proj"), cos, sin)
        attended = functional.scaled_dot_product_attention(q, k, heads("v_proj"), is_causal=True)
        attended = attended.transpose(1, 2).reshape(batch, length, -1)
        x = x + functional.dropout(self.self_attn["o_proj"](attended), drop, self.training)
        normed = self.post_attention_layernorm(x)
        inner = functional.silu(self.mlp["gate_proj"](normed)) * self.mlp["up_proj"](normed)
        return x + functional.dropout(self.mlp["down_proj"](inner), drop, self.training)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding on halves; x [B, heads, T, D], cos and sin [T, D/2]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Network(nn.Module):
    """The whole decoder, embeddings tied."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        angles = torch.arange(shape.max_position_embeddings)[:, None] * frequencies[None]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0, 0.02)
        for layer in self.layers:
            for name in (layer.self_attn["o_proj"], layer.mlp["down_proj"]):
                nn.init.normal_(name.weight, 0, 0.02 / math.sqrt(2 * shape.num_hidden_layers))

    def forward(self, ids: torch.Tensor, drop: float = 0.0) -> torch.Tensor:
        """ids [B, T] → logits [B, T, V]."""
        x = functional.dropout(self.embed_tokens(ids), drop, self.training)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin, drop)
        return functional.linear(self.norm(x), self.embed_tokens.weight)


def make_tokenizer(vocab_size: int, seed: int) -> Tokenizer:
    """Byte-level BPE learned on 20,000 exchanges."""
    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(vocabulary_sample(rng, 20000), trainer)
    return tokenizer


class Examples:
    """Endless training examples: conversations as ids and the labels of what the assistant says."""

    def __init__(self, tokenizer: Tokenizer, seed: int, longest: int) -> None:
        self._tokenizer = tokenizer
        self._longest = longest
        self._rng = random.Random(seed)
        self._batches: list[list[tuple[list[int], list[int]]]] = []

    def one(self) -> tuple[list[int], list[int]]:
        rng = self._rng
        ids: list[int] = []
        labels: list[int] = []

        def say(role: str, text: str, learn: bool) -> None:
            head = self._tokenizer.encode(f"<|im_start|>{role}\n").ids
            body = self._tokenizer.encode(text).ids
            end = self._tokenizer.encode("<|im_end|>").ids
            newline = self._tokenizer.encode("\n").ids
            ids.extend(head + body + end + newline)
            labels.extend([IGNORED] * len(head) + (body + end if learn else [IGNORED] * (len(body) + 1)) + [IGNORED] * len(newline))

        dialogue = make_dialogue(rng, long=rng.random() < 0.01)
        if dialogue.system:
            say("system", dialogue.system, False)
        for turn in dialogue.turns:
            say("user", turn.question, False)
            say("assistant", turn.answer, True)
        return ids[: self._longest], labels[: self._longest]

    def batch(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Conversations of like length, about `tokens` in all → (ids, labels), both int64 [B, T]."""
        if not self._batches:
            # sorted within a pool, so that a row of 900 tokens does not pad forty rows of 70
            pool = sorted((self.one() for _ in range(768)), key=lambda row: len(row[0]))
            while pool:
                count = max(1, tokens // len(pool[-1][0]))
                self._batches.append(pool[-count:])
                del pool[-count:]
            self._rng.shuffle(self._batches)
        rows = self._batches.pop()
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        labels = torch.full((len(rows), longest), IGNORED)
        for i, (row, wanted) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, : len(row)] = torch.tensor(wanted)
        return ids, labels


def loss_of(network: Network, ids: torch.Tensor, labels: torch.Tensor, drop: float) -> torch.Tensor:
    """Cross entropy of what the assistant says. The first four tokens of an answer decide which one it is: they count four times."""
    logits = network(ids[:, :-1], drop)
    targets = labels[:, 1:]
    spoken = targets != IGNORED
    first = spoken & ~functional.pad(spoken[:, :-4], (4, 0))
    losses = functional.cross_entropy(logits[spoken], targets[spoken], reduction="none", label_smoothing=0.02)
    weights = torch.where(first[spoken], 4.0, 1.0)
    return (losses * weights).sum() / weights.sum()


def train(out: Path, minutes: float, steps: int, seed: int) -> None:
    """Run until `steps`, or until `minutes` have passed (0 = no limit; the schedule then follows the clock)."""
    torch.manual_seed(seed)
    shape = Shape()
    tokenizer = make_tokenizer(shape.vocab_size, seed)
    network = Network(shape)
    count = sum(p.numel() for p in network.parameters())
    print(f"{count / 1e6:.2f} million parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    rest = [p for p in network.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], 3e-3, (0.9, 0.98))
    examples = Examples(tokenizer, seed + 1, shape.max_position_embeddings)
    began = time.monotonic()
    average = 0.0
    for step in range(steps):
        spent = (time.monotonic() - began) / 60
        done = max(step / steps, spent / minutes if minutes else 0.0)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        ids, labels = examples.batch(4096)
        loss = loss_of(network, ids, labels, 0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {average:.4f} {spent:.1f} min", flush=True)
        if step and step % 500 == 0:
            save(network, tokenizer, shape, out)
    save(network, tokenizer, shape, out)
    print(f"done: loss {average:.4f}, {(time.monotonic() - began) / 60:.1f} minutes, {out}", flush=True)


def save(network: Network, tokenizer: Tokenizer, shape: Shape, out: Path) -> None:
    """Write the Hugging Face folder."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.detach().to(torch.bfloat16).contiguous() for name, value in network.named_parameters()}
    save_file(tensors, str(out / "model.safetensors"), {"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **{name: getattr(shape, name) for name in Shape.__dataclass_fields__},
    }
    texts = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0, "do_sample": False, "temperature": 0.0},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.max_position_embeddings,
            "bos_token": None,
            "eos_token": SPECIAL[2],
            "pad_token": SPECIAL[0],
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    }
    for name, table in texts.items():
        (out / name).write_text(json.dumps(table, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train vsrv's demo model on data that it makes itself.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of about 4096 tokens (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so many minutes; 0 = after --steps (default)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.out, arguments.minutes, arguments.steps, arguments.seed)


if __name__ == "__main__":
    main()
