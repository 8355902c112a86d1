"""Prometheus metrics: vLLM's names, which public dashboards query, and vsrv's own.

Names follow `promtool check metrics` but for what vLLM's dashboards need: the colon, and a histogram called `iteration_tokens_total`.
Histograms of requests are fed at their end; engine counters are read from its newest Beat when a scrape comes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics

from vsrv.log import RequestRecord
from vsrv.messages import ITERATION_BUCKETS, Beat, Ready

_TTFT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
)
_ITL = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
_LATENCY = (
    0.01,
    0.05,
    0.1,
    0.3,
    0.5,
    0.8,
    1,
    1.5,
    2,
    2.5,
    5,
    10,
    15,
    20,
    30,
    40,
    50,
    60,
    120,
    240,
    480,
    960,
    1920,
)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
_FINISHED = ("stop", "length", "abort", "error")
_MAX_TENANTS = (
    100  # that have series of their own; the others share one, so that keys cannot fill a Prometheus
)
OTHER = "other"
_SAMPLES_A_TURN = 64  # of the event loop; about 0.2 ms
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS_END = b"# EOF\n"


class Times(Protocol):
    """Moments of one request, of the monotonic clock; None as long as they have not come."""

    arrival: float
    granted: float | None
    first_token: float | None
    last_token: float | None


@dataclass(frozen=True, slots=True)
class QueueState:
    """The queue in front of the engine, at a scrape."""

    waiting: int = 0
    tokens: int = 0
    bytes: int = 0
    oldest_wait_s: float = 0.0


class Metrics:
    """Owned by the front's event loop. `tenant_series` off keeps tenants' names out of an exposition that anybody may read."""

    def __init__(self, model_name: str, tenant_series: bool = True) -> None:
        self._labels = {"model_name": model_name, "engine": "0"}
        self._tenants = _TenantCollector() if tenant_series else None
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # a time a series: half of the text, and nobody queries it
        self.registry = prometheus_client.CollectorRegistry()
        self._next: dict[bool, asyncio.Task[tuple[bytes, str]]] = {}  # that have not begun, by format
        self._exposing = asyncio.Lock()
        self.beat: Beat | None = None
        self.ready: Ready | None = None
        self.queue = QueueState()
        self.certificate_expiry: Callable[[], float | None] = _no_certificate
        self._request_histograms()
        self._counters()
        self.registry.register(_EngineCollector(self))
        self.registry.register(_FrontCollector(self))
        if self._tenants is not None:
            self.registry.register(self._tenants)
        prometheus_client.ProcessCollector(registry=self.registry)

    def _request_histograms(self) -> None:
        made = self._histogram
        self._ttft = made("vllm:time_to_first_token_seconds", "Arrival to first token", _TTFT)
        self._itl = made("vllm:inter_token_latency_seconds", "Gap between outputs of a sequence", _ITL)
        self._tpot = made("vllm:request_time_per_output_token_seconds", "Mean time per output token", _ITL)
        self._e2e = made("vllm:e2e_request_latency_seconds", "Arrival to last token", _LATENCY)
        self._queue = made("vllm:request_queue_time_seconds", "Arrival to engine", _LATENCY)
        self._inference = made("vllm:request_inference_time_seconds", "Engine to last token", _LATENCY)
        self._prefill = made("vllm:request_prefill_time_seconds", "Engine to first token", _LATENCY)
        self._decode = made("vllm:request_decode_time_seconds", "First to last token", _LATENCY)
        self._prompt = made("vllm:request_prompt_tokens", "Prompt length", _TOKENS)
        self._computed = made(
            "vllm:request_prefill_kv_computed_tokens", "Prompt tokens that were not cached", _TOKENS
        )
        self._generated = made("vllm:request_generation_tokens", "Output length", _TOKENS)
        self._max_tokens = made("vllm:request_params_max_tokens", "Requested max_tokens", _TOKENS)
        self._n = made("vllm:request_params_n", "Requested n", (1, 2, 5, 10, 20))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Any:
        made = prometheus_client.Histogram(
            name, text, list(self._labels), buckets=buckets, registry=self.registry
        )
        return made.labels(**self._labels)

    def _counter(self, name: str, text: str, labels: list[str]) -> prometheus_client.Counter:
        return prometheus_client.Counter(name, text, labels, registry=self.registry)

    def _counters(self) -> None:
        made = self._counter
        self._cached = made("vllm:prompt_tokens_cached", "Cached prompt tokens", list(self._labels))
        self._rejected = made(
            "vllm:admission_rejections", "Requests refused because of load", ["model_name", "reason"]
        )
        self._responses = made("vsrv_http_responses", "Answers by route and status", ["path", "status"])
        self._aborts = made(
            "vsrv_request_aborts", "Requests that did not reach their end, by reason", ["reason"]
        )
        self._stalls = made("vsrv_engine_stalls", "Times that the engine made no step while work waited", [])
        self._restarts = made("vsrv_engine_restarts", "Times that the engine process was started again", [])

    @property
    def labels(self) -> dict[str, str]:
        return self._labels

    def first_token(self, ttft_s: float) -> None:
        self._ttft.observe(ttft_s)

    def inter_token(self, seconds: float) -> None:
        self._itl.observe(seconds)

    def rejected(self, reason: str) -> None:
        """The server refused or gave up a request because of its own load."""
        self._rejected.labels(model_name=self._labels["model_name"], reason=reason).inc()

    def engine_stalled(self) -> None:
        """The engine made no step for longer than it may."""
        self._stalls.inc()

    def engine_restarted(self) -> None:
        """The engine process was started again."""
        self._restarts.inc()

    def request_finished(self, record: RequestRecord) -> None:
        """Any request's end."""
        self._responses.labels(path=record.route, status=str(record.status)).inc()
        if self._tenants is not None and record.tenant:
            self._tenants.count(record)

    def generation_finished(self, record: RequestRecord, times: Times) -> None:
        """The end of a request that was to generate; the vllm: histograms are of those that reached the engine."""
        if record.error:
            self._aborts.labels(reason=record.error).inc()
        granted, first, last = times.granted, times.first_token, times.last_token
        if granted is None:
            return
        self._queue.observe(granted - times.arrival)
        self._prompt.observe(record.prompt_tokens)
        self._generated.observe(record.completion_tokens)
        self._max_tokens.observe(record.max_tokens)
        self._n.observe(record.n)
        self._cached.labels(**self._labels).inc(record.cached_tokens)
        if first is None or last is None:
            return
        self._e2e.observe(last - times.arrival)
        self._inference.observe(last - granted)
        self._prefill.observe(first - granted)
        self._decode.observe(last - first)
        self._computed.observe(max(0, record.prompt_tokens - record.cached_tokens))
        if record.completion_tokens > record.n:
            self._tpot.observe((last - first) / (record.completion_tokens / record.n - 1))

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Text exposition, OpenMetrics if the scraper asks for it → (body, content type).

        All who ask while one is being made share the next one, so that a flood of scrapes costs no more than one after another.
        """
        is_open = "application/openmetrics-text" in accept
        shared = self._next.get(is_open)
        if shared is None:
            shared = asyncio.get_running_loop().create_task(self._expose(is_open))
            self._next[is_open] = shared
        return await asyncio.shield(shared)

    async def _expose(self, is_open: bool) -> tuple[bytes, str]:
        """Family by family, since all of them are several milliseconds of Python, which no stream should wait for.

        A thread would not help: it would hold the interpreter's lock for as long.
        """
        async with self._exposing:
            del self._next[is_open]  # who comes from now on may know of more than what this one shows
            return await self._rendered(is_open)

    async def _rendered(self, is_open: bool) -> tuple[bytes, str]:
        if is_open:
            render, end, content_type = _openmetrics, _OPENMETRICS_END, openmetrics.CONTENT_TYPE_LATEST
        else:
            render, end, content_type = prometheus_client.generate_latest, b"", _TEXT
        parts = []
        for family in self.registry.collect():
            for is_first, piece in _pieces(family):
                text = render(_Family(piece)).removesuffix(end)
                parts.append(text if is_first else _without_head(text))
                await asyncio.sleep(0)
        return b"".join(parts) + end, content_type


def _pieces(family: Metric) -> Iterable[tuple[bool, Metric]]:
    """A family in parts of a few samples each; the first has the head."""
    for start in range(0, max(1, len(family.samples)), _SAMPLES_A_TURN):
        piece = Metric(family.name, family.documentation, family.type, family.unit)
        piece.samples = family.samples[start : start + _SAMPLES_A_TURN]
        yield start == 0, piece


def _without_head(text: bytes) -> bytes:
    """Without the lines # HELP, # TYPE and # UNIT."""
    while text.startswith(b"# "):
        text = text.partition(b"\n")[2]
    return text


class _Family(prometheus_client.CollectorRegistry):
    """What the library's renderers ask of a registry, for one family."""

    def __init__(self, family: Metric) -> None:
        super().__init__()
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _openmetrics(registry: prometheus_client.CollectorRegistry) -> bytes:
    text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


def _no_certificate() -> float | None:
    return None


def _gauge(name: str, text: str, labels: dict[str, str], value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _iterations(beat: Beat, labels: dict[str, str]) -> HistogramMetricFamily:
    """Tokens of each step. A histogram whose name ends like a counter's: dashboards query it so."""
    steps, below = beat.iteration_tokens or [0] * (len(ITERATION_BUCKETS) + 1), 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(float, ITERATION_BUCKETS), math.inf), steps, strict=True):
        below += count
        buckets.append((str(bound) if bound < math.inf else "+Inf", below))
    family = HistogramMetricFamily(
        "vllm:iteration_tokens_total", "Tokens per engine step", labels=list(labels)
    )
    family.add_metric(list(labels.values()), buckets, beat.counters.get("computed_tokens", 0.0))
    return family


class _TenantCollector:
    """Counts by tenant: plain tables, since the library's children cost a scrape of 100 tenants 2 ms more in one turn."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._requests: dict[tuple[str, str], int] = {}
        self._tokens: dict[tuple[str, str], int] = {}

    def count(self, record: RequestRecord) -> None:
        """One request's end. Above a number of tenants the others are counted as one."""
        tenant = record.tenant
        if tenant not in self._names:
            if len(self._names) >= _MAX_TENANTS:
                tenant = OTHER
            else:
                self._names.add(tenant)
        key = (tenant, str(record.status))
        self._requests[key] = self._requests.get(key, 0) + 1
        for kind, count in (
            ("prompt", record.prompt_tokens),
            ("cached", record.cached_tokens),
            ("generation", record.completion_tokens),
        ):
            self._tokens[tenant, kind] = self._tokens.get((tenant, kind), 0) + count

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        for name, text, label, table in (
            ("vsrv_tenant_requests", "Requests by tenant and status", "status", self._requests),
            ("vsrv_tenant_tokens", "Tokens by tenant and kind", "kind", self._tokens),
        ):
            family = CounterMetricFamily(name, text, labels=["tenant", label])
            for values, count in list(table.items()):
                family.add_metric(values, float(count))
            yield family


class _FrontCollector:
    """The queue in front of the engine, and the certificate."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        queue = self._metrics.queue
        yield _gauge("vsrv_queue_requests", "Sequences that wait for the engine", {}, queue.waiting)
        yield _gauge("vsrv_queue_tokens", "Prompt tokens of sequences without a token yet", {}, queue.tokens)
        yield _gauge("vsrv_queue_bytes", "Bytes of request bodies in memory", {}, queue.bytes)
        yield _gauge("vsrv_queue_age_seconds", "Wait of the oldest in the queue", {}, queue.oldest_wait_s)
        expiry = self._metrics.certificate_expiry()
        if expiry is not None:
            text = "When the TLS certificate expires, in Unix time"
            yield _gauge("vsrv_certificate_expiry_timestamp_seconds", text, {}, expiry)
            left = expiry - time.time()
            yield _gauge(
                "vsrv_certificate_expiry_seconds", "Life that the TLS certificate has left", {}, left
            )


class _EngineCollector:
    """Queues, cache and token counters out of the newest Beat; zeros before the first."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        beat = self._metrics.beat or Beat(0, 0, 0, 0.0)
        labels = self._metrics.labels
        # who waits for a place waits in front of the engine; an engine's own queue holds what its memory defers
        waiting = {"capacity": self._metrics.queue.waiting, "deferred": beat.num_waiting}
        yield _gauge("vllm:num_requests_running", "Sequences in the batch", labels, beat.num_running)
        yield _gauge("vllm:num_requests_waiting", "Sequences that wait", labels, sum(waiting.values()))
        reasons = GaugeMetricFamily(
            "vllm:num_requests_waiting_by_reason",
            "Sequences that wait, by reason",
            labels=[*labels, "reason"],
        )
        for reason, count in waiting.items():
            reasons.add_metric([*labels.values(), reason], float(count))
        yield reasons
        yield _gauge("vllm:kv_cache_usage_perc", "Used share of KV blocks, 0 to 1", labels, beat.kv_usage)
        yield _iterations(beat, labels)
        yield from self._engine_counters(beat, labels)
        ready = self._metrics.ready
        if ready is not None:
            facts = {
                "engine": "0",
                "block_size": str(ready.block_size),
                "num_gpu_blocks": str(ready.num_blocks),
                "cache_dtype": ready.dtype,
            }
            yield _gauge("vllm:cache_config_info", "Sizes of the KV cache", facts, 1.0)

    def _engine_counters(self, beat: Beat, labels: dict[str, str]) -> Iterable[Metric]:
        for name, key, text in (
            ("vsrv_engine_steps", "", "Finished engine steps"),
            ("vllm:prompt_tokens", "prompt_tokens", "Prompt tokens of started sequences"),
            ("vllm:generation_tokens", "generation_tokens", "Produced tokens"),
            ("vllm:prefix_cache_queries", "prefix_cache_queries", "Tokens looked up in the prefix cache"),
            ("vllm:prefix_cache_hits", "prefix_cache_hits", "Tokens found in the prefix cache"),
            ("vllm:num_preemptions", "preemptions", "Sequences pushed out for memory"),
        ):
            counter = CounterMetricFamily(name, text, labels=list(labels))
            counter.add_metric(
                list(labels.values()), beat.counters.get(key, 0.0) if key else float(beat.step)
            )
            yield counter
        finished = CounterMetricFamily(
            "vllm:request_success", "Ended sequences", labels=[*labels, "finished_reason"]
        )
        for reason in _FINISHED:
            finished.add_metric([*labels.values(), reason], beat.counters.get(f"finished_{reason}", 0.0))
        yield finished
