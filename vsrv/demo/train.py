"""Trains the demo model: `python -m vsrv.demo.train --out DIR`, from nothing or (`--start DIR`) from a model for older topics.

Makes its own data (see dialogue.py), so nothing is downloaded. One seed gives one data stream; weights can differ in the
last bits between processors. Writes config.json, model.safetensors and the tokenizer's files into DIR, at the end and
every few hundred steps (each time a whole, usable model).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from vsrv.demo.dialogue import TOPICS, make_dialogue, make_turn, vocabulary_sample
from vsrv.demo.network import Network, Shape, generate
from vsrv.demo.tokens import PAD, Encoder, Sample, train_tokenizer, write_json, write_tokenizer

LEARNING_RATE = 2e-3  # at its peak
SAVE_EVERY = 500  # steps
TOKENS_PER_STEP = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a training run."""

    out: Path
    steps: int
    seed: int
    threads: int
    tokens_per_step: int = TOKENS_PER_STEP
    learning_rate: float = LEARNING_RATE
    warmup: int = 150
    weight_decay: float = 0.05
    dropout: float = 0.1
    cut: float = 0.8
    long_share: float = 0.008
    save_every: int = SAVE_EVERY
    vocabulary_texts: int = 60_000
    check: int = 200  # generated questions that are answered and compared at the end
    start: Path | None = None  # a model of the same shape, vocabulary aside, to go on from


def batches(encoder: Encoder, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids [B, T], weights [B, T]); samples of similar length share a batch."""
    rng = random.Random(plan.seed)
    while True:
        samples = []
        for _ in range(1024):
            long = rng.random() < plan.long_share
            samples.append(encoder.sample(make_dialogue(rng, long), rng, plan.cut))
        samples.sort(key=lambda sample: len(sample.ids))
        groups: list[list[Sample]] = [[]]
        for sample in samples:
            if (len(groups[-1]) + 1) * len(sample.ids) > plan.tokens_per_step and groups[-1]:
                groups.append([])
            groups[-1].append(sample)
        rng.shuffle(groups)
        for group in groups:
            yield _padded(group)


def _padded(group: list[Sample]) -> tuple[Tensor, Tensor]:
    width = max(len(sample.ids) for sample in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    weights = torch.zeros(len(group), width)
    for row, sample in enumerate(group):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        weights[row, : len(sample.ids)] = torch.tensor(sample.weights)
    return ids, weights


def loss_of(network: Network, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the cross entropy of each next token."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network(ids)[:, :-1]
        wanted = weights[:, 1:] > 0
        scores = network.logits(hidden[wanted])
    each = functional.cross_entropy(scores.float(), ids[:, 1:][wanted], reduction="none")
    picked = weights[:, 1:][wanted]
    return (each * picked).sum() / picked.sum()


def rate_at(step: int, plan: Plan) -> float:
    """Learning rate: linear warm-up, then a half cosine down to 2 % of the peak."""
    warmup = min(plan.warmup, plan.steps // 10)
    if step < warmup:
        return plan.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, plan.steps - warmup)
    return plan.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def optimizer_of(network: Network, plan: Plan) -> torch.optim.AdamW:
    """AdamW; norms are not decayed."""
    matrices = [p for p in network.parameters() if p.dim() > 1]
    vectors = [p for p in network.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98), eps=1e-8)


def inherit(network: Network, tokenizer: Tokenizer, folder: Path) -> None:
    """Take over the layers of the model in `folder`, and its rows for the tokens that both vocabularies have; a token that is
    new gets the mean of the rows that its text had there. Raises ValueError if the shapes differ in more than the vocabulary."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape.from_config(config)
    if replace(shape, vocab_size=network.shape.vocab_size) != network.shape:
        raise ValueError(f"{folder} has another shape: {shape}")
    older = Tokenizer.from_file(str(folder / "tokenizer.json"))
    weights = {
        name.removeprefix("model."): value.float()
        for name, value in load_file(folder / "model.safetensors").items()
    }
    known = weights["embed_tokens.weight"]
    rows = network.embed_tokens.weight.detach().clone()
    for token, place in tokenizer.get_vocab().items():
        row = older.token_to_id(token)
        pieces = [row] if row is not None else older.encode(tokenizer.decode([place])).ids
        rows[place] = known[pieces].mean(dim=0) if pieces else rows[place]
    network.load_state_dict(weights | {"embed_tokens.weight": rows})


def save(network: Network, encoder: Encoder, folder: Path) -> None:
    """Write a whole model in Hugging Face layout; weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"model.{name}": p.detach().to(torch.bfloat16).contiguous() for name, p in network.named_parameters()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", network.shape.config(encoder.end, encoder.tokenizer.token_to_id(PAD)))
    write_tokenizer(encoder.tokenizer, folder, network.shape.max_position_embeddings)


def score(network: Network, encoder: Encoder, count: int, seed: int) -> float:
    """Share of `count` fresh generated questions whose answer is right to the letter."""
    rng = random.Random(seed)
    network.eval()
    right = 0
    for _ in range(count):
        turn, _topic = make_turn(rng)
        found = generate(network, encoder.prompt([("user", turn.question)]), encoder.end, 96)
        right += encoder.tokenizer.decode(found) == turn.answer
    network.train()
    return right / count


def train(plan: Plan) -> Network:
    """Run the plan; prints the loss now and then."""
    torch.manual_seed(plan.seed)
    torch.set_num_threads(plan.threads)
    shape = Shape()
    tokenizer = train_tokenizer(
        vocabulary_sample(random.Random(plan.seed), plan.vocabulary_texts), shape.vocab_size
    )
    encoder = Encoder(tokenizer)
    network = Network(shape, plan.dropout)
    if plan.start:
        inherit(network, tokenizer, plan.start)
    optimizer = optimizer_of(network, plan)
    print(f"{len(TOPICS)} topics, {sum(p.numel() for p in network.parameters()):,} parameters", flush=True)
    began, average, seen = time.monotonic(), 0.0, 0
    stream = batches(encoder, plan)
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, plan)
        ids, weights = next(stream)
        loss = loss_of(network, ids, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        seen += ids.numel()
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        if (step + 1) % 100 == 0:
            pace = seen / (time.monotonic() - began)
            print(f"step {step + 1} loss {average:.4f} {pace:,.0f} tokens/s", flush=True)
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            save(network, encoder, plan.out)
    if plan.check:
        share = score(network, encoder, plan.check, plan.seed + 1)
        print(f"{share:.1%} of {plan.check} fresh generated questions answered to the letter")
    print(f"{time.monotonic() - began:.0f} s; written to {plan.out}")
    return network


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="train vsrv's demo model")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help="at its peak")
    parser.add_argument("--tokens-per-step", type=int, default=TOKENS_PER_STEP)
    parser.add_argument("--save-every", type=int, default=SAVE_EVERY, metavar="STEPS")
    parser.add_argument("--start", type=Path, help="folder of a model to go on from, when topics were added")
    given = parser.parse_args()
    train(
        Plan(
            given.out,
            given.steps,
            given.seed,
            given.threads,
            given.tokens_per_step,
            given.learning_rate,
            save_every=given.save_every,
            start=given.start,
        )
    )


if __name__ == "__main__":
    main()
