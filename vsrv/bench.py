"""`vsrv bench`: load on any OpenAI-compatible server, and what it felt like: TTFT, ITL, tokens per second.

One connection for each request, no client library: on a small host the generator must not eat what it measures.
Prompts are token ids where the server takes them (so that their length is exact), else words.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from vsrv.client.http import ProtocolError, RequestFailed, Target, refused, unreachable
from vsrv.config import BenchOptions
from vsrv.errors import ConfigError

_WORDS = "time year people way day man thing woman life child world school state family student group country problem hand part".split()
_PERCENTILES = (50, 90, 99)


@dataclass(slots=True)
class Sample:
    """One request. Times are seconds from its start; `events` are the arrival times of chunks with output."""

    status: int = 0
    error: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    total_s: float = 0.0
    events: list[float] = field(default_factory=list)


class Prompts:
    """Random prompts of a given length, with a common beginning if asked."""

    def __init__(self, options: BenchOptions, as_ids: bool) -> None:
        self._options = options
        self._as_ids = as_ids
        self._random = random.Random(options.seed)
        self._prefix = self._draw(options.shared_prefix_tokens)

    def _draw(self, count: int) -> list[Any]:
        if self._as_ids:
            return [self._random.randrange(10, 250) for _ in range(count)]
        return [self._random.choice(_WORDS) for _ in range(count)]

    def body(self, model: str) -> bytes:
        options = self._options
        pieces = self._prefix + self._draw(max(1, options.prompt_tokens - len(self._prefix)))
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": options.output_tokens,
            "temperature": options.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": options.ignore_eos,
        }
        prompt = pieces if self._as_ids else " ".join(pieces)
        if options.api == "chat":
            body["messages"] = [
                {"role": "user", "content": " ".join(map(str, pieces)) if self._as_ids else prompt}
            ]
        else:
            body["prompt"] = prompt
        return orjson.dumps(body)


async def request(target: Target, path: str, body: bytes) -> Sample:
    """Send one streaming request and note when its chunks come."""
    sample = Sample()
    began = time.perf_counter()
    try:
        async with target.request("POST", path, body) as reply:
            sample.status = reply.status
            finished = False
            async for line in reply.lines():
                if line.startswith(b"data: {"):
                    _note(sample, line, time.perf_counter() - began)
                elif line.startswith(b"data: [DONE]"):
                    finished = True
                elif sample.status != 200 and line.startswith(b"{"):
                    sample.error = line.decode(errors="replace")[:200]
            if sample.status == 200 and not finished and not sample.error:
                sample.error = "the stream ended early"
    except ProtocolError as error:
        sample.error = sample.error or str(error)
    except (OSError, ValueError) as error:
        sample.error = repr(error)
    sample.total_s = time.perf_counter() - began
    if sample.status == 200 and not sample.events and not sample.error:
        sample.error = "no output"
    return sample


def _note(sample: Sample, line: bytes, now: float) -> None:
    event = orjson.loads(line[6:])
    if "error" in event:
        sample.error = str(event["error"])[:200]
        return
    usage = event.get("usage")
    if usage:
        sample.prompt_tokens = usage.get("prompt_tokens") or 0
        sample.completion_tokens = usage.get("completion_tokens") or 0
        sample.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    for choice in event.get("choices") or ():
        if choice.get("text") or (choice.get("delta") or {}).get("content"):
            sample.events.append(now)


async def measure(options: BenchOptions) -> dict[str, Any]:
    """Run the load → all figures. Ctrl-C ends it early with what was measured."""
    target = Target.of(options.url, options.api_key, options.ca_file)
    model = await _model(target, options.model)
    path = "/v1/chat/completions" if options.api == "chat" else "/v1/completions"
    as_ids = options.api == "completions" and await _takes_ids(target, path, model)
    prompts = Prompts(options, as_ids)
    for _ in range(options.warmup):
        warm = await request(target, path, prompts.body(model))
        if warm.error:
            raise ConfigError(f"the warm-up request to {target.name} failed: {warm.error}")
    samples: list[Sample] = []
    began = time.perf_counter()
    try:
        await _run(options, target, path, [prompts.body(model) for _ in range(options.num_requests)], samples)
    except asyncio.CancelledError:
        print("\nstopped early: figures of what was measured so far", file=sys.stderr)
    return summary(options, model, samples, time.perf_counter() - began)


async def _run(
    options: BenchOptions, target: Target, path: str, bodies: list[bytes], samples: list[Sample]
) -> None:
    gate = asyncio.Semaphore(options.concurrency if options.request_rate is None else len(bodies) or 1)
    arrivals = random.Random(options.seed + 1)

    async def one(body: bytes) -> None:
        async with gate:
            samples.append(await request(target, path, body))
            if sys.stderr.isatty() or len(samples) % 50 == 0 or len(samples) == len(bodies):
                end = "\r" if sys.stderr.isatty() and len(samples) < len(bodies) else "\n"
                print(f"{len(samples)} of {len(bodies)} requests", end=end, file=sys.stderr, flush=True)

    tasks = []
    try:
        for body in bodies:
            tasks.append(asyncio.get_running_loop().create_task(one(body)))
            if options.request_rate is not None:
                await asyncio.sleep(arrivals.expovariate(options.request_rate))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _model(target: Target, asked: str) -> str:
    """The model that was asked for, or the first that is served. Raises NoServerError when nobody answers."""
    try:
        names = await target.models()
    except (RequestFailed, ProtocolError) as error:
        if asked:
            return asked
        raise refused("GET /v1/models: ", error) from None
    if not asked and not names:
        raise ConfigError("GET /v1/models: no model is served")
    return asked or names[0]


async def _takes_ids(target: Target, path: str, model: str) -> bool:
    body = orjson.dumps({"model": model, "prompt": [10, 11, 12], "max_tokens": 1})
    try:
        async with target.request("POST", path, body) as reply:
            await reply.body()
            return reply.status == 200
    except OSError as error:
        raise unreachable(target, error) from None


def summary(options: BenchOptions, model: str, samples: list[Sample], wall_s: float) -> dict[str, Any]:
    """All figures as one JSON-able table. Times in milliseconds, rates per second of wall time."""
    good = [s for s in samples if s.status == 200 and not s.error and s.events]
    tokens = sum(s.completion_tokens or len(s.events) for s in good)
    gaps = [b - a for s in good for a, b in zip(s.events, s.events[1:], strict=False)]
    per_token = [
        (s.events[-1] - s.events[0]) / (s.completion_tokens - 1) for s in good if s.completion_tokens > 1
    ]
    errors: dict[str, int] = {}
    for sample in samples:
        if sample.error or sample.status != 200:
            key = f"{sample.status} {sample.error}"[:120]
            errors[key] = errors.get(key, 0) + 1
    return {
        "url": options.url,
        "model": model,
        "api": options.api,
        "concurrency": options.concurrency,
        "request_rate": options.request_rate,
        "requests": len(samples),
        "failed": len(samples) - len(good),
        "errors": errors,
        "wall_s": round(wall_s, 3),
        "requests_per_s": round(len(good) / wall_s, 3),
        "output_tokens": tokens,
        "output_tokens_per_s": round(tokens / wall_s, 2),
        "decode_tokens_per_s": round(options.concurrency / percentile(gaps, 50), 2) if gaps else None,
        "prompt_tokens": sum(s.prompt_tokens for s in good),
        "cached_tokens": sum(s.cached_tokens for s in good),
        "ttft_ms": _spread([s.events[0] for s in good]),
        "itl_ms": _spread(gaps),
        "tpot_ms": _spread(per_token),
        "e2e_ms": _spread([s.total_s for s in good]),
    }


def percentile(values: list[float], q: float) -> float:
    """Nearest-rank percentile of a non-empty list."""
    return sorted(values)[max(1, math.ceil(q * len(values) / 100)) - 1]


def _spread(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    table = {f"p{q}": round(percentile(seconds, q) * 1e3, 3) for q in _PERCENTILES}
    return {"mean": round(sum(seconds) / len(seconds) * 1e3, 3), **table, "max": round(max(seconds) * 1e3, 3)}


def table(figures: dict[str, Any]) -> str:
    """The figures as lines for people."""
    lines = [
        f"{figures['requests']} requests, {figures['failed']} failed, concurrency {figures['concurrency']}, {figures['wall_s']} s",
        f"output    {figures['output_tokens_per_s']} tok/s, {figures['requests_per_s']} requests/s, {figures['output_tokens']} tokens",
        f"prompt    {figures['prompt_tokens']} tokens, {figures['cached_tokens']} of them cached",
    ]
    if figures["decode_tokens_per_s"]:
        lines.append(f"decode    {figures['decode_tokens_per_s']} tok/s (concurrency / median ITL)")
    lines.append(f"{'ms':<8}{'mean':>10}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}")
    for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"):
        row = figures[name]
        if row is not None:
            lines.append(
                f"{name[:-3]:<8}"
                + "".join(f"{row[key]:>10.2f}" for key in ("mean", "p50", "p90", "p99", "max"))
            )
    lines += [f"error     {count} x {text}" for text, count in figures["errors"].items()]
    return "\n".join(lines)


def run(options: BenchOptions) -> int:
    """Measure, print, write JSON; exit status 1 if a request failed."""
    if (
        options.concurrency < 1
        or options.num_requests < 1
        or options.output_tokens < 1
        or options.prompt_tokens < 1
    ):
        raise ConfigError(
            "--concurrency, --num-requests, --prompt-tokens and --output-tokens must be at least 1"
        )
    if options.request_rate is not None and options.request_rate <= 0:
        raise ConfigError("--request-rate must be above 0")
    figures = asyncio.run(measure(options))
    print(table(figures))
    if options.json_path:
        Path(options.json_path).write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if figures["failed"] or not figures["requests"] else 0
