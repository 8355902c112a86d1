"""256 requests, 100 to 1024 tokens in and out, on the Qwen3-0.6B shape: this engine, and transformers' continuous batching beside it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

from clock import host_clock, in_words
from networks import QWEN3_06B, TINY, make_engine, write_config
from report import OURS, THEIRS
from step_bench import checked
from target import Case, Context

from vsrv.engine import worker
from vsrv.messages import Generate, SamplingParams

_CAP = 50.0  # seconds for either engine


def lengths(tiny: bool) -> list[tuple[int, int]]:
    """(tokens in, tokens out) of every request, the same in every run."""
    draw = random.Random(0)
    count, low, high = (3, 3, 8) if tiny else (256, 100, 1024)
    return [(draw.randint(low, high), draw.randint(low, high)) for _ in range(count)]


def throughput(context: Context) -> str:
    target = context.target
    requests = lengths(target.tiny)
    blocks = sum(-(-(taken + given + 1) // 16) for taken, given in requests) + 16
    sizes: dict[str, Any] = dict(seqs=256, budget=8192, max_len=2304)
    if target.tiny:
        sizes = dict(seqs=4, budget=32, max_len=64)
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), TINY if target.tiny else QWEN3_06B)
        engine = make_engine(
            target, config, lag=1, graphs=True, blocks=blocks, dummy=True, caching=True, **sizes
        )
    vocabulary = engine._runner.model.spec.vocab_size
    worker.warm_up(engine, vocabulary)
    draw = random.Random(1)
    for seq_id, (taken, given) in enumerate(requests, 1):
        prompt = array("I", [draw.randrange(vocabulary) for _ in range(taken)])
        engine.add(
            Generate(seq_id, prompt, SamplingParams(given, temperature=0.6, ignore_eos=True, seed=seq_id))
        )
    target.finish()
    cap = context.seconds(_CAP)
    began, tokens = time.perf_counter(), 0
    with host_clock(engine) as sums:
        while engine.has_work() and time.perf_counter() - began < cap:
            tokens += sum(len(output.token_ids) for output in checked(engine))
        target.finish()
    seconds = time.perf_counter() - began
    if engine.has_work():
        context.out.note(
            f"stopped at {cap:.0f} s with {tokens} of {sum(given for _, given in requests)} tokens"
        )
    rate = tokens / seconds
    roofline = _roofline(engine, requests, target.copy_rate())
    context.out.figure(OURS, rate, "tokens/s")
    context.out.figure("256 requests, share of the byte roofline", 100 * rate / roofline, "%", None, 60)
    context.out.note(
        f"host in {engine.num_steps} steps of {seconds / engine.num_steps * 1e3:.2f} ms: {in_words(sums, engine.num_steps)}"
    )
    return f"{tokens} tokens in {seconds:.2f} s, preemptions {engine.scheduler.num_preemptions}, roofline {roofline:.0f} tokens/s"


def _roofline(engine: Any, requests: list[tuple[int, int]], copy_rate: float) -> float:
    """Tokens a second if every step took as long as its bytes: the weights once, and each token's context; prompts cost nothing."""
    model = engine._runner.model
    spec = model.spec
    kv = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * 2
    steps = max(given for _, given in requests)
    contexts = sum(given * taken + given * (given - 1) // 2 for taken, given in requests)
    seconds = (steps * model.weight_bytes + kv * contexts) / copy_rate
    return sum(given for _, given in requests) / seconds


def peer(context: Context) -> str:
    """In a process of its own, which may hang or die; what it has said until then counts."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("peer.py")),
        *(["--tiny"] if context.target.tiny else []),
    ]
    process = subprocess.Popen(
        [*command, str(_CAP)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, words = process.communicate(timeout=context.seconds(_CAP + 20))
    except subprocess.TimeoutExpired:
        process.kill()
        output, words = process.communicate()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert lines, f"transformers' continuous batching gave nothing: {words.strip()[-400:]}"
    found = lines[-1]
    rate = found["tokens"] / found["seconds"]
    context.out.figure(THEIRS, rate, "tokens/s")
    context.out.note(f"transformers: {found['words']}")
    return f"{found['tokens']} tokens in {found['seconds']:.1f} s"


def throughput_cases(tiny: bool) -> list[Case]:
    return [Case("256 requests", throughput)]


def peer_cases(tiny: bool) -> list[Case]:
    return [Case("256 requests by transformers", peer)]
